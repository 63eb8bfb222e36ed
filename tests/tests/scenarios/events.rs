//! Events over real processes: a parent hears of its child once whatever is killed, files that two agents change, ten thousand who watch.

use std::{
    fs,
    path::PathBuf,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use murmur_proto::{
    client::{ControlClient, Headers, connect_server},
    v1::{self, publish_event_request::Target, watch_events_response::Item},
};
use murmur_tests::{
    network::{Network, Node, WORKSPACE},
    talk::register,
    wait,
};
use serde_json::Value;
use tokio::sync::mpsc;

#[tokio::test]
async fn a_parent_hears_of_each_phase_of_its_child_once_through_restarts_of_everything() {
    let mut network = Network::start().await;
    let mut here = network.host("here", "jdoe").await;
    register(&here, "lead").await;
    here.ctl_json(Some("lead"), &["spawn", "child", "one", "--backend", "echo", "--on-idle", "keep_alive"]).await;
    here.until_phase("/u/jdoe/lead/child", "idle").await;
    network.server.kill_9();
    network.server.start();
    network.ready().await;
    here.process.kill_9();
    here.process.start();
    here.ready().await;
    here.ctl_json(Some("lead"), &["queue", "add", "child", "two"]).await;
    // Whatever of the turn has been told by then, the rest is told afterwards.
    network.server.kill_9();
    here.process.kill_9();
    network.server.start();
    here.process.start();
    network.ready().await;
    here.ready().await;
    wait::until("the second turn is over", || async {
        let status = here.ctl(None, &["status", "/u/jdoe/lead/child", "--json"]).await;
        let status: Value = serde_json::from_slice(&status.stdout).ok()?;
        let response = status["output"]["response"].as_str()?.trim().to_owned();
        (response.ends_with("two") && status["phase"] == "idle").then_some(())
    })
    .await;
    here.ctl_json(None, &["kill", "/u/jdoe/lead/child"]).await;
    here.until_phase("/u/jdoe/lead/child", "canceled").await;
    let told = log(&here, "/u/jdoe/lead", true).await;
    let phases: Vec<_> = told.iter().map(|event| event["attributes"]["phase"].as_str().unwrap().to_owned()).collect();
    let lived = timeline(&here, "/u/jdoe/lead/child").await;
    assert_eq!(phases, lived, "each phase that it had, once, in order");
    assert!(phases.len() >= 8, "{phases:?}");
    let current = log(&here, "/u/jdoe/lead", false).await;
    assert_eq!((current.len(), &current[0]["attributes"]["phase"]), (1, &Value::from("canceled")));
    assert!(log(&here, "/u/jdoe/lead/child", true).await.is_empty(), "nobody else is told");
}

#[tokio::test]
async fn an_agent_hears_that_another_pushed_to_files_that_it_has_changed() {
    let network = Network::start().await;
    let here = network.host("here", "jdoe").await;
    let origin = network.dir.path().join("widgets.git");
    let seed = network.dir.path().join("seed");
    fs::create_dir(&seed).unwrap();
    fs::write(seed.join("shared.txt"), "one\n").unwrap();
    fs::write(seed.join("other.txt"), "one\n").unwrap();
    git(&seed, &["init", "-q", "-b", "main"]);
    git(&seed, &["add", "."]);
    git(&seed, &["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "first"]);
    git(network.dir.path(), &["clone", "-q", "--bare", "seed", "widgets.git"]);
    let repo = origin.to_str().unwrap();
    let keep = ["--repo", repo, "--on-idle", "keep_alive"];
    // What is changed and not committed counts; so does what is new.
    let alice = "echo two >> shared.txt; echo x > new.txt; git branch --show-current";
    here.ctl_json(None, &[&["spawn", "alice", alice][..], &keep].concat()).await;
    here.until_phase("/u/jdoe/alice", "idle").await;
    let task = ["task", "add", "look", "--for", "alice", "--activate-when", "files_modified", "--pattern", "other.*"];
    here.ctl_json(None, &task).await;
    let commit = "git -c user.name=a -c user.email=a@a commit -qam work && git push -q origin HEAD";
    let bob = format!("echo three >> shared.txt; echo three >> other.txt; {commit}");
    here.ctl_json(None, &[&["spawn", "bob", &bob][..], &keep].concat()).await;
    let told = wait::until("alice hears of the push", || async {
        let told = log(&here, "/u/jdoe/alice", false).await;
        (!told.is_empty()).then_some(told)
    })
    .await;
    let [event] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!((&event["kind"], &event["origin"]), (&"file_changed".into(), &"agent:/w/acme/u/jdoe/bob".into()));
    assert_eq!((&event["attributes"]["count"], &event["attributes"]["branch"]), (&"1".into(), &"murmur/bob".into()));
    assert!(event["text"].as_str().unwrap().contains("\n- shared.txt"), "{event}");
    let tasks = here.ctl_json(None, &["task", "ls", "--for", "alice"]).await;
    assert_eq!(tasks["tasks"][0]["activation"], "active", "{tasks}");
    assert!(log(&here, "/u/jdoe/bob", true).await.is_empty(), "who pushed knows");
}

/// Streams on one connection, of which the control plane takes 256.
const STREAMS: usize = 200;
const WATCHERS: usize = 10_000;
const EVENTS: usize = 10;

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_watch_and_one_that_does_not_read_slows_nobody() {
    let network = Network::start().await;
    let here = network.node("here", "jdoe").await;
    register(&here, "alice").await;
    let token = person(&network).await;
    let request = v1::WatchEventsRequest {
        filter: Some(v1::EventFilter { slug: "/u/jdoe/alice".into(), ..Default::default() }),
        ..Default::default()
    };
    let mut slow = client(&network, &token).await.events.watch_events(request.clone()).await.unwrap().into_inner();
    let counts: Arc<[AtomicUsize]> = (0..EVENTS).map(|_| AtomicUsize::new(0)).collect();
    let (ready, mut are_ready) = mpsc::channel(STREAMS);
    let (done, mut are_done) = mpsc::channel(STREAMS);
    let mut watching = tokio::task::JoinSet::new();
    for _ in 0..WATCHERS / STREAMS {
        let shared = client(&network, &token).await;
        for _ in 0..STREAMS {
            let (mut events, request, counts) = (shared.events.clone(), request.clone(), Arc::clone(&counts));
            let (ready, done) = (ready.clone(), done.clone());
            watching.spawn(async move {
                let mut stream = events.watch_events(request).await.unwrap().into_inner();
                let mut seen = 0;
                while seen < EVENTS {
                    match stream.message().await.unwrap().unwrap().item.unwrap() {
                        Item::Event(event) => {
                            // Each once, in order.
                            assert_eq!(event.text, seen.to_string());
                            counts[seen].fetch_add(1, Ordering::Relaxed);
                            seen += 1;
                        }
                        Item::CaughtUp(_) => ready.send(()).await.unwrap(),
                        Item::Gap(gap) => panic!("{gap:?}"),
                    }
                }
                done.send(()).await.unwrap();
                // It stays connected until everybody has everything.
                std::future::pending::<()>().await;
            });
        }
    }
    for _ in 0..WATCHERS {
        are_ready.recv().await.unwrap();
    }
    let mut publisher = client(&network, &token).await;
    for number in 0..EVENTS {
        let request = v1::PublishEventRequest {
            target: Some(Target::Slug("/u/jdoe/alice".into())),
            text: number.to_string(),
            ..Default::default()
        };
        publisher.events.publish_event(request).await.unwrap();
    }
    for _ in 0..WATCHERS {
        are_done.recv().await.unwrap();
    }
    assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == WATCHERS));
    // The one that did not read finds everything, too.
    let mut seen = Vec::new();
    while seen.len() < EVENTS {
        if let Item::Event(event) = slow.message().await.unwrap().unwrap().item.unwrap() {
            seen.push(event.text);
        }
    }
    assert_eq!(seen, (0..EVENTS).map(|number| number.to_string()).collect::<Vec<_>>());
    watching.shutdown().await;
}

#[tokio::test]
async fn words_are_sent_and_listed_from_the_command_line_and_from_python() {
    let network = Network::start().await;
    let here = network.host("here", "jdoe").await;
    register(&here, "alice").await;
    let told = here.ctl(None, &["notify", "alice", "look at <b>this</b>"]).await;
    assert_eq!(String::from_utf8_lossy(&told.stdout), "told /w/acme/u/jdoe/alice\n");
    let send = ["event", "send", "red", "--to", "alice", "--kind", "ci_result", "-a", "check=lint", "--id", "run-7"];
    assert_eq!(here.ctl_json(None, &send).await["duplicate"], false);
    assert_eq!(here.ctl_json(None, &send).await["duplicate"], true);
    let refused = here.ctl(None, &["event", "send", "x", "--to", "alice", "--kind", "progress"]).await;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(2) && said.contains("kind: must not be progress"), "{said}");
    let output = python(&here, &["--agent", "alice", "--count", "2", "--say", "from Python"]).await;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("2  ci_result  human:jdoe  red"), "{said}");
    assert!(said.contains("3  notify  agent:/w/acme/u/jdoe/alice  from Python"), "{said}");
    let listed = here.ctl(None, &["event", "ls", "alice"]).await;
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert_eq!(listed.lines().count(), 4, "{listed}");
    assert!(listed.contains("look at <b>this</b>") && listed.contains("human:jdoe"), "{listed}");
}

async fn log(node: &Node, slug: &str, all: bool) -> Vec<Value> {
    let mut args = vec!["event", "ls", slug, "--limit", "1000"];
    args.extend(all.then_some("--all"));
    node.ctl_json(None, &args).await["events"].as_array().unwrap().clone()
}

/// The phases that an agent had, by its own timeline.
async fn timeline(node: &Node, slug: &str) -> Vec<String> {
    let channel = murmur_proto::client::connect_socket(&node.socket).await.unwrap();
    let mut agents = ControlClient::new(channel, Headers::new()).agents;
    let timeline = vec![v1::TimelineKind::Phase.into()];
    let request = v1::GetAgentStatusRequest { slug: slug.into(), timeline, ..Default::default() };
    let entries = agents.get_agent_status(request).await.unwrap().into_inner().timeline;
    let word = |entry: &v1::TimelineEntry| {
        entry.phase().as_str_name().trim_start_matches("PHASE_").to_ascii_lowercase().replace('_', "-")
    };
    entries.iter().map(word).collect()
}

/// The token of a person who reads and tells events.
async fn person(network: &Network) -> String {
    let scopes = [v1::Scope::EventsRead, v1::Scope::EventsPublish, v1::Scope::AgentsRead];
    let request = v1::IssueTokenRequest {
        kind: v1::TokenKind::User.into(),
        scopes: scopes.map(i32::from).to_vec(),
        workspace: WORKSPACE.into(),
        account: "jdoe".into(),
        ..Default::default()
    };
    network.admin().await.auth.issue_token(request).await.unwrap().into_inner().token
}

async fn client(network: &Network, token: &str) -> ControlClient {
    let channel = connect_server(&network.server_url, None).await.unwrap();
    ControlClient::new(channel, Headers::new().with_token(token).unwrap())
}

/// Runs git, and returns the line that it says.
pub(crate) fn git(dir: &std::path::Path, args: &[&str]) -> String {
    let output = Command::new("git").current_dir(dir).args(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Runs the script of the guide on a node's socket.
async fn python(node: &Node, arguments: &[&str]) -> std::process::Output {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut command = Command::new("sh");
    command.arg(root.join("deploy/tool.sh")).arg("python").arg(root.join("docs/guide/python/events.py"));
    command.args(arguments).env("MURMUR_NODE_SOCKET", &node.socket).env_remove("MURMUR_AGENT_TOKEN_FILE");
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}
