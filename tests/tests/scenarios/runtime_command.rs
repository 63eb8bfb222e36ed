//! Agents as processes: any program, its answer, its end, and nothing of it left.

use std::fs;

use murmur_proto::{
    client::{Headers, NodeClient, connect_socket},
    v1::{self, AgentSpec, Phase, output_chunk::Source},
};
use murmur_tests::{
    network::Network,
    spawned::{file, is_gone},
    wait,
};

/// A node that runs bash scripts: the prompt is the script.
const BASH: &str = "[runtime.backends.command]\nprogram = 'bash'\nargs = ['-c', '{prompt}']\nprompt = 'argument'\n";

fn bash(script: &str) -> AgentSpec {
    AgentSpec { description: script.to_owned(), backend: "command".to_owned(), ..AgentSpec::default() }
}

#[tokio::test]
async fn a_spawned_program_runs_and_its_answer_is_read() {
    let network = Network::start().await;
    let node = network.node_configured("here", "jdoe", BASH).await;
    let owner = node.owner("jdoe").await;
    let spec = AgentSpec {
        env: [("COLOUR".to_owned(), "blue".to_owned())].into(),
        ..bash("echo thinking >&2; echo \"$COLOUR $MURMUR_SLUG\"")
    };
    let agent = owner.spawn("painter", spec).await;
    assert_eq!((agent.phase(), agent.incarnation), (Phase::Starting, 1));
    let ended = owner.is("painter", Phase::Completed).await;
    assert_eq!(ended.output.unwrap().response, "blue /w/acme/u/jdoe/painter");
    assert_eq!((ended.exit_code, ended.node.as_str(), ended.turns), (Some(0), "here", 1));
    let chunks = owner.output("painter").await;
    let said = |source: Source| {
        let data =
            chunks.iter().filter(|chunk| chunk.source() == source).flat_map(|chunk| chunk.data.to_vec()).collect();
        String::from_utf8(data).unwrap()
    };
    assert_eq!(said(Source::Stdout), "blue /w/acme/u/jdoe/painter\n");
    assert_eq!(said(Source::Stderr), "thinking\n");
    assert!(said(Source::Note).contains("exit code 0"), "{}", said(Source::Note));
    assert!(is_gone(node.group(&agent).unwrap()));
}

#[tokio::test]
async fn a_program_that_crashes_is_failed_with_its_last_words() {
    let network = Network::start().await;
    let node = network.node_configured("here", "jdoe", BASH).await;
    let owner = node.owner("jdoe").await;
    owner.spawn("crasher", bash("echo 'no such table' >&2; exit 3")).await;
    let failed = owner.is("crasher", Phase::Failed).await;
    assert_eq!((failed.reason.as_str(), failed.exit_code), ("exit code 3: no such table", Some(3)));
    owner.spawn("shot", bash("kill -SEGV $$")).await;
    assert!(owner.is("shot", Phase::Failed).await.reason.contains("SIGSEGV"));
}

#[tokio::test]
async fn a_backend_that_cannot_run_and_a_repository_that_is_not_there_are_said_so() {
    let network = Network::start().await;
    let toml = format!("{BASH}[runtime.backends.missing]\nprogram = '/nowhere/agent'\n");
    let node = network.node_configured("here", "jdoe", &toml).await;
    let owner = node.owner("jdoe").await;
    owner.spawn("ghost", AgentSpec { backend: "missing".to_owned(), ..bash("x") }).await;
    let failed = owner.is("ghost", Phase::Failed).await;
    assert!(failed.reason.contains("/nowhere/agent"), "{}", failed.reason);
    let repo = v1::Repo { clone_url: "/nowhere/repo".to_owned(), ..v1::Repo::default() };
    owner.spawn("cloner", AgentSpec { repos: vec![repo], ..bash("true") }).await;
    let failed = owner.is("cloner", Phase::Failed).await;
    assert!(failed.reason.contains("/nowhere/repo"), "{}", failed.reason);
}

#[tokio::test]
async fn a_killed_agent_leaves_no_process() {
    let network = Network::start().await;
    let node = network.node_configured("here", "jdoe", BASH).await;
    let owner = node.owner("jdoe").await;
    // A child in its group, one in a session of its own, and a deaf ear.
    let script = "trap '' TERM; sleep 1000 & setsid sleep 1001 & echo \"$! $(jobs -p | tr '\\n' ' ')\" > pids; while :; do sleep 1000; done";
    let agent = owner.spawn("stubborn", bash(script)).await;
    owner.is("stubborn", Phase::Running).await;
    let pids = file(&node.place(&agent).join("work/pids")).await;
    let pids: Vec<i32> = pids.split_ascii_whitespace().map(|pid| pid.parse().unwrap()).collect();
    assert!(pids.iter().all(|pid| !is_gone(*pid)));
    let killed = owner.kill("stubborn").await;
    assert_eq!((killed.killed, killed.pending), (vec![owner.slug("stubborn")], 1));
    let canceled = owner.is("stubborn", Phase::Canceled).await;
    assert!(canceled.reason.contains("killed"), "{}", canceled.reason);
    assert!(pids.iter().all(|pid| is_gone(*pid)) && is_gone(node.group(&agent).unwrap()));
    assert_eq!(owner.kill("stubborn").await.killed, [""; 0], "a repeat has nothing to do");
}

#[tokio::test]
async fn a_program_that_never_stops_talking_can_be_killed() {
    // Reading a line of this costs more than writing it.
    let line = r#"{"type":"assistant","message":{"role":"assistant","content":[{"type":"text","text":"more"}]}}"#;
    let toml = format!("[runtime.backends.chatty]\npreset = 'claude'\nprogram = 'yes'\nargs = ['{line}']\n");
    let network = Network::start().await;
    let node = network.node_configured("here", "jdoe", &toml).await;
    let owner = node.owner("jdoe").await;
    let agent = owner.spawn("chatty", AgentSpec { backend: "chatty".to_owned(), ..bash("talk") }).await;
    owner.is("chatty", Phase::Running).await;
    let log = node.place(&agent).join("output");
    // A segment is full: it is far ahead of who reads it.
    wait::until("it talks", || async { (fs::read_dir(&log).ok()?.count() > 1).then_some(()) }).await;
    owner.kill("chatty").await;
    owner.is("chatty", Phase::Canceled).await;
    assert!(is_gone(node.group(&agent).unwrap()));
}

#[tokio::test]
async fn an_agent_finds_itself_with_nothing_configured_and_its_token_is_its_alone() {
    let network = Network::start().await;
    let node = network.node_configured("here", "jdoe", BASH).await;
    let owner = node.owner("jdoe").await;
    let mut boss = node.shim("boss").await;
    boss.ok("register", serde_json::json!({})).await;
    // The command line speaks as the agent, and its message comes from it.
    let script = "murmurctl send /w/acme/u/jdoe/boss 'it is done' && stat -c %a \"$MURMUR_AGENT_TOKEN_FILE\"; env; cat /proc/self/cmdline";
    let agent = owner.spawn("worker", bash(script)).await;
    let push = boss.push().await;
    assert_eq!(push["meta"]["from"], "/w/acme/u/jdoe/worker");
    assert!(push["content"].as_str().unwrap().contains("it is done"));
    let response = owner.is("worker", Phase::Completed).await.output.unwrap().response;
    assert!(response.contains("\n600\n") || response.contains("600\n"), "{response}");
    let token = fs::read_to_string(node.place(&agent).join("token")).unwrap();
    assert!(token.starts_with("mmt_") && !response.contains(token.trim()), "its token is in no environment");
    // It ended, and its token with it.
    let late = wait::until("the token is refused", || async {
        let env = [("MURMUR_AGENT_TOKEN_FILE", node.place(&agent).join("token").to_string_lossy().into_owned())];
        let output = std::process::Command::new(murmur_tests::process::binary("murmurctl"))
            .args(["--socket".as_ref(), node.socket.as_os_str(), "send".as_ref(), "boss".as_ref(), "late".as_ref()])
            .envs(env)
            .output()
            .unwrap();
        (!output.status.success()).then_some(output)
    })
    .await;
    assert!(!String::from_utf8_lossy(&late.stderr).is_empty());
}

#[tokio::test]
async fn an_agent_with_a_repository_starts_in_a_worktree_and_its_commits_can_be_pushed() {
    let network = Network::start().await;
    let node = network.node_configured("here", "jdoe", BASH).await;
    let owner = node.owner("jdoe").await;
    let origin = network.dir.path().join("widgets");
    let git = |args: &[&str]| {
        let output = std::process::Command::new("git").current_dir(&origin).args(args).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    fs::create_dir(&origin).unwrap();
    let user = ["-c", "user.name=t", "-c", "user.email=t@t"];
    git(&["init", "-q"]);
    git(&[&user[..], &["commit", "--allow-empty", "-qm", "first"]].concat());
    let repo = v1::Repo { clone_url: origin.to_string_lossy().into_owned(), ..v1::Repo::default() };
    let script = "git branch --show-current; echo x > x; git add x; git -c user.name=a -c user.email=a@a commit -qm work; git push -q origin HEAD";
    // One lies below another, whose branch is a file among git's references.
    for path in ["fix/one", "fix/two", "fix"] {
        owner.spawn(path, AgentSpec { repos: vec![repo.clone()], ..bash(script) }).await;
    }
    for (path, branch) in [("fix", "murmur/fix"), ("fix/one", "murmur/fix_one"), ("fix/two", "murmur/fix_two")] {
        let answer = owner.is(path, Phase::Completed).await.output.unwrap().response;
        assert_eq!(answer, branch);
        assert_eq!(git(&["log", "-1", "--format=%s", branch]), "work\n");
    }
    // Another agent of the same name: the folder of the first one still has its branch.
    let again = v1::SpawnAgentRequest {
        slug: owner.slug("fix"),
        spec: Some(AgentSpec { repos: vec![repo], ..bash(script) }),
        force_new: true,
        ..v1::SpawnAgentRequest::default()
    };
    owner.spawn_as(again).await;
    let answer = owner.is("fix", Phase::Completed).await.output.unwrap().response;
    assert!(answer.starts_with("murmur/fix_2"), "{answer}");
}

#[tokio::test]
async fn a_resurrected_agent_keeps_its_folder_and_history() {
    let network = Network::start().await;
    let node = network.node_configured("here", "jdoe", BASH).await;
    let owner = node.owner("jdoe").await;
    let first = owner.spawn("writer", bash("echo draft | tee draft; exit 1")).await;
    owner.is("writer", Phase::Failed).await;
    let again = owner
        .spawn_as(v1::SpawnAgentRequest {
            slug: owner.slug("writer"),
            spec: Some(bash("cat draft; grep -c . \"$MURMUR_HISTORY_FILE\"")),
            resurrect: true,
            ..v1::SpawnAgentRequest::default()
        })
        .await;
    assert_eq!((again.agent_id, again.incarnation), (first.agent_id, 2));
    let ended = owner.is("writer", Phase::Completed).await;
    assert_eq!(ended.output.unwrap().response, "draft\n1");
}

#[tokio::test]
async fn follow_ups_of_a_program_are_run_one_by_one_as_they_were_written() {
    let network = Network::start().await;
    let node = network.node_configured("here", "jdoe", BASH).await;
    let owner = node.owner("jdoe").await;
    let agent =
        owner.spawn("worker", AgentSpec { on_idle: v1::OnIdle::KeepAlive.into(), ..bash("echo 0 > log") }).await;
    owner.is("worker", Phase::Idle).await;
    for number in 1..=3 {
        owner.add("worker", &format!("echo \"{number} $MURMUR_FROM $MURMUR_REDELIVERED\" >> log; exit 0")).await;
    }
    let last = wait::until("all of it is done", || async {
        let agent = owner.status("worker").await;
        (agent.turns == 4 && agent.phase() == Phase::Idle).then_some(agent)
    })
    .await;
    assert_eq!(last.exit_code, Some(0));
    let log = fs::read_to_string(node.place(&agent).join("work/log")).unwrap();
    assert_eq!(log, "0\n1 jdoe 0\n2 jdoe 0\n3 jdoe 0\n");
}

#[tokio::test]
async fn an_agent_that_was_killed_asleep_does_what_it_is_resurrected_for() {
    let network = Network::start().await;
    let node = network.node_configured("here", "jdoe", BASH).await;
    let owner = node.owner("jdoe").await;
    owner.spawn("sleeper", AgentSpec { on_idle: v1::OnIdle::Sleep.into(), ..bash("echo one") }).await;
    owner.is("sleeper", Phase::Sleeping).await;
    owner.kill("sleeper").await;
    owner.is("sleeper", Phase::Canceled).await;
    let request = v1::SpawnAgentRequest {
        slug: owner.slug("sleeper"),
        spec: Some(bash("echo two")),
        resurrect: true,
        ..v1::SpawnAgentRequest::default()
    };
    owner.spawn_as(request).await;
    owner.add("sleeper", "echo three").await;
    // It may sleep between the two.
    let done = wait::until("both are done", || async {
        let agent = owner.status("sleeper").await;
        (agent.turns == 3 && agent.phase() == Phase::Sleeping).then_some(agent)
    })
    .await;
    assert_eq!(done.output.unwrap().response, "three");
    let notes = owner.output("sleeper").await.into_iter().filter(|chunk| chunk.source() == Source::Stdout);
    let said: Vec<u8> = notes.flat_map(|chunk| chunk.data.to_vec()).collect();
    assert_eq!(String::from_utf8(said).unwrap(), "one\ntwo\nthree\n");
}

#[tokio::test]
async fn an_agent_that_is_deregistered_leaves_no_process() {
    let network = Network::start().await;
    let node = network.node_configured("here", "jdoe", BASH).await;
    let owner = node.owner("jdoe").await;
    let agent = owner.spawn("leaver", bash("exec sleep 1000")).await;
    owner.is("leaver", Phase::Running).await;
    let token = fs::read_to_string(node.place(&agent).join("token")).unwrap();
    let headers = Headers::new().with_token(token.trim()).unwrap();
    let mut session = NodeClient::new(connect_socket(&node.socket).await.unwrap(), headers).sessions;
    session.deregister(murmur_proto::node::v1::DeregisterRequest::default()).await.unwrap();
    owner.is("leaver", Phase::Completed).await;
    let group = node.group(&agent).unwrap();
    wait::until("its process is gone", || async { is_gone(group).then_some(()) }).await;
}

#[tokio::test]
async fn output_is_followed_while_it_comes() {
    let network = Network::start().await;
    let node = network.node_configured("here", "jdoe", BASH).await;
    let owner = node.owner("jdoe").await;
    let agent = owner.spawn("talker", bash("mkfifo go; echo one; read -r line < go; echo $line")).await;
    owner.is("talker", Phase::Running).await;
    let request = v1::WatchAgentOutputRequest {
        slug: owner.slug("talker"),
        follow: true,
        ..v1::WatchAgentOutputRequest::default()
    };
    let mut answers = owner.client().agents.watch_agent_output(request).await.unwrap().into_inner();
    let mut next = async |text: &str| loop {
        let chunk = answers.message().await.unwrap().unwrap().chunk.unwrap();
        if chunk.source() == Source::Stdout {
            assert_eq!(chunk.data, text.as_bytes());
            return;
        }
    };
    next("one\n").await;
    let go = node.place(&agent).join("work/go");
    tokio::task::spawn_blocking(move || fs::write(go, "two\n").unwrap()).await.unwrap();
    next("two\n").await;
    owner.is("talker", Phase::Completed).await;
}
