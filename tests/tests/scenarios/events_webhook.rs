//! From a code host to the session of the agent that works there, and to no other: over real processes, through kills of every part.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use murmur_tests::{
    hook::{GitHub, example, works_on},
    network::Network,
    ports::PortLease,
    process::Process,
    wait,
};
use serde_json::{Value, json};

use crate::{
    events::git,
    events_push::{log, session},
};

const REPO: &str = "Codertocat/Hello-World";

/// GitHub's example of a review, as the n-th one that says something.
fn review(number: u64) -> Value {
    let mut review = example("pull_request_review", 0);
    review["review"]["id"] = json!(1_000 + number);
    review["review"]["body"] = json!(format!("review {number}"));
    review
}

#[tokio::test]
async fn a_webhook_reaches_the_right_session_and_no_other_once_in_its_log_through_kills_of_every_part() {
    let mut network = Network::start().await;
    let mut node = network.node("here", "jdoe").await;
    let (mut alice, mut bob) = (session(&node, "alice").await, session(&node, "bob").await);
    works_on(&node, "/u/jdoe/alice", REPO, "changes").await;
    works_on(&node, "/u/jdoe/bob", REPO, "other").await;
    let github = GitHub::of(&network, "Codertocat/*").await;

    assert_eq!(github.deliver("pull_request_review", &review(0)).await, "accepted");
    let push = alice.push().await;
    let meta = &push["meta"];
    assert_eq!((&push["content"], &meta["kind"], &meta["pr"]), (&json!("review 0"), &json!("pr_review"), &json!("2")));
    assert_eq!((&meta["origin"], &meta["untrusted"]), (&json!("github:verified"), &json!("true")));
    // The same again is known, whatever its headers say.
    assert_eq!(github.deliver("pull_request_review", &review(0)).await, "duplicate");

    let mut sessions = vec![alice];
    for number in 1..=9 {
        let body = review(number);
        // Whatever of it is done when the part dies, it is delivered again.
        let (_, ()) = tokio::join!(github.try_deliver("pull_request_review", &body), async {
            match number % 3 {
                0 => node.process.kill_9(),
                1 => network.server.kill_9(),
                // The one before is listened to on: what it has written may still be on the way.
                _ => sessions.push(node.shim("alice").await),
            }
        });
        match number % 3 {
            0 => {
                node.process.start();
                node.ready().await;
            }
            1 => {
                network.server.start();
                network.ready().await;
            }
            _ => {}
        }
        github.deliver("pull_request_review", &body).await;
        assert_eq!(github.deliver("pull_request_review", &body).await, "duplicate");
    }
    let wanted: Vec<String> = (0..=9).map(|number| format!("review {number}")).collect();
    let mut told = vec!["review 0".to_owned()];
    wait::until("alice is told of every review, by one session or another", || {
        let pushes = sessions.iter_mut().flat_map(|session| std::iter::from_fn(|| session.pushed()));
        told.extend(pushes.map(|push| push["content"].as_str().unwrap().to_owned()));
        std::future::ready(wanted.iter().all(|text| told.contains(text)).then_some(()))
    })
    .await;
    let once: BTreeMap<String, usize> = wanted.into_iter().map(|text| (text, 1)).collect();
    assert_eq!(log(&node, "alice").await, once);
    assert_eq!(log(&node, "bob").await, BTreeMap::new());
    assert_eq!(bob.pushed(), None);
}

/// A host of repositories on this machine.
struct Host {
    process: Process,
    url: String,
    _port: PortLease,
}

impl Host {
    fn start(network: &Network, base: &Path) -> Self {
        let port = PortLease::take();
        let args = [
            "--reuseaddr".into(),
            "--export-all".into(),
            "--enable=receive-pack".into(),
            "--listen=127.0.0.1".into(),
            format!("--port={}", port.port).into(),
            format!("--base-path={}", base.display()).into(),
            base.into(),
        ];
        let log = network.dir.path().join("logs/git.log");
        // `git daemon` starts this as a child, which outlives it when it is killed.
        let programs = Command::new("git").arg("--exec-path").output().unwrap().stdout;
        let program = Path::new(String::from_utf8(programs).unwrap().trim()).join("git-daemon");
        let mut process = Process::new(&program, args.to_vec(), log);
        process.start();
        Self { process, url: format!("git://127.0.0.1:{}", port.port), _port: port }
    }
}

#[tokio::test]
async fn a_push_that_a_webhook_tells_of_reaches_the_agent_that_has_changed_the_same_file() {
    let network = Network::start().await;
    let here = network.host("here", "jdoe").await;
    let (base, seed) = (network.dir.path().join("repos"), network.dir.path().join("seed"));
    fs::create_dir_all(base.join("acme")).unwrap();
    fs::create_dir(&seed).unwrap();
    git(&seed, &["init", "-q", "-b", "main"]);
    for file in ["shared.txt", "other.txt"] {
        fs::write(seed.join(file), "one\n").unwrap();
    }
    commit(&seed, "first");
    git(network.dir.path(), &["clone", "-q", "--bare", "seed", "repos/acme/widgets.git"]);
    let host = Host::start(&network, &base);
    let url = format!("{}/acme/widgets.git", host.url);
    wait::until("the host answers", || async {
        Command::new("git").args(["ls-remote", &url]).output().unwrap().status.success().then_some(())
    })
    .await;
    let github = GitHub::of(&network, "acme/widgets").await;
    let keep = ["--repo", &url, "--on-idle", "keep_alive"];
    here.ctl_json(None, &[&["spawn", "alice", "echo two >> shared.txt"][..], &keep].concat()).await;
    here.until_phase("/u/jdoe/alice", "idle").await;
    here.ctl_json(None, &[&["spawn", "bob", "echo two >> third.txt"][..], &keep].concat()).await;
    here.until_phase("/u/jdoe/bob", "idle").await;

    // Somebody pushes for real, and the host says what git says of it.
    let theirs = network.dir.path().join("theirs");
    git(network.dir.path(), &["clone", "-q", &url, "theirs"]);
    let before = git(&theirs, &["rev-parse", "HEAD"]);
    for file in ["shared.txt", "other.txt"] {
        fs::write(theirs.join(file), "three\n").unwrap();
    }
    commit(&theirs, "theirs");
    git(&theirs, &["push", "-q", "origin", "HEAD"]);
    let after = git(&theirs, &["rev-parse", "HEAD"]);
    let changed = git(&theirs, &["diff-tree", "-r", "--name-only", "--no-commit-id", "HEAD"]);
    let mut push = example("push", 1);
    push["ref"] = json!("refs/heads/main");
    (push["before"], push["after"]) = (json!(before), json!(after));
    push["repository"]["full_name"] = json!("acme/widgets");
    push["commits"][0]["id"] = json!(after);
    push["commits"][0]["modified"] = changed.lines().collect();
    (push["commits"][0]["added"], push["commits"][0]["removed"]) = (json!([]), json!([]));
    assert_eq!(github.deliver("push", &push).await, "accepted");

    let told = wait::until("alice hears of the push", || async {
        let listed = here.ctl_json(None, &["event", "ls", "/u/jdoe/alice"]).await;
        listed["events"].as_array().unwrap().first().cloned()
    })
    .await;
    assert_eq!((&told["kind"], &told["origin"]), (&json!("file_changed"), &json!("github:verified")));
    let about = &told["attributes"];
    assert_eq!(
        (&about["count"], &about["branch"], &about["repo"]),
        (&json!("1"), &json!("main"), &json!("acme/widgets"))
    );
    assert_eq!((&about["base_sha"], &about["head_sha"]), (&json!(before), &json!(after)));
    let text = told["text"].as_str().unwrap();
    assert!(text.contains("\n- shared.txt") && !text.contains("other.txt"), "{text}");
    let bobs = here.ctl_json(None, &["event", "ls", "/u/jdoe/bob"]).await;
    assert_eq!(bobs["events"], json!([]), "who has changed another file is told nothing");
    drop(host.process);
}

#[tokio::test]
async fn a_source_is_tried_from_the_command_line_the_way_its_sender_comes() {
    let network = Network::start().await;
    let node = network.node("here", "jdoe").await;
    let mut alice = session(&node, "alice").await;
    works_on(&node, "/u/jdoe/alice", "acme/shop", "topic").await;
    let token = network.dir.path().join("server/admin.token");
    let (server, token) = (network.server_url.as_str(), token.to_str().unwrap());
    let ctl = async |args: &[&str]| {
        let as_admin = ["--server", server, "--token-file", token];
        node.ctl(None, &[args, &as_admin, &["--workspace", "acme", "--json"]].concat()).await
    };
    let parsed = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
    for kind in ["github", "gitlab", "generic"] {
        let made = ctl(&["webhook", "add", kind, "--kind", kind, "--repo", "acme/*", "--actor", "*"]).await;
        let url = parsed(&made.stdout)["url"].as_str().unwrap().to_owned();
        let tried = parsed(&ctl(&["webhook", "test", kind]).await.stdout);
        assert_eq!(
            (&tried["status"], &tried["outcome"], &tried["agents"]),
            (&json!(202), &json!("accepted"), &json!(0)),
            "{kind}"
        );
        assert_eq!(tried["url"], json!(url));
        let tried = parsed(&ctl(&["webhook", "test", kind, "--repo", "acme/shop", "--branch", "topic"]).await.stdout);
        assert_eq!(tried["agents"], 1, "{kind}: {tried}");
        let push = alice.push().await;
        assert!(push["meta"]["branch"] == "topic" && push["meta"]["untrusted"] == "true", "{push}");
        let log = parsed(&ctl(&["webhook", "log", kind]).await.stdout);
        assert_eq!(log["deliveries"].as_array().unwrap().len(), 2, "{log}");
    }
    // What the source does not let through says so.
    let dropped = parsed(&ctl(&["webhook", "test", "github", "--repo", "other/shop"]).await.stdout);
    assert_eq!(dropped["outcome"], "dropped");
    let unknown = ctl(&["webhook", "test", "nothing"]).await;
    assert_eq!(parsed(&unknown.stderr)["error"]["reason"], "WEBHOOK_NOT_FOUND");
    let odd = ctl(&["webhook", "test", "github", "--repo", "shop"]).await;
    assert!(String::from_utf8_lossy(&odd.stderr).contains("owner/name"), "{odd:?}");
}

fn commit(dir: &Path, text: &str) {
    git(dir, &["add", "."]);
    git(dir, &["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", text]);
}
