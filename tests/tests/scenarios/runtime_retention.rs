//! What stays of an agent after its end: its history for as long as it can be resurrected, and what is saved nowhere else.

use std::{fs, path::Path, process::Command};

use murmur_proto::v1::{self, AgentSpec, Phase, output_chunk::Source};
use murmur_tests::{
    network::{Network, Options},
    spawned::Owner,
    wait,
};

/// Folders are cleared at once.
const QUICK: &str = "[runtime]\nkeep_ms = 1\n[runtime.backends.command]\nprogram = 'bash'\nargs = ['-c', '{prompt}']\nprompt = 'argument'\n";

fn bash(script: &str) -> AgentSpec {
    AgentSpec { description: script.to_owned(), backend: "command".to_owned(), ..AgentSpec::default() }
}

/// A repository with one commit.
fn repository(dir: &Path) -> String {
    let url = dir.join("widgets").display().to_string();
    let git = |args: &[&str]| {
        let all = ["-c", "user.name=t", "-c", "user.email=t@t", "-c", "init.defaultBranch=main"];
        assert!(Command::new("git").args(all).args(args).status().unwrap().success(), "git {args:?}");
    };
    git(&["init", "--quiet", &url]);
    git(&["-C", &url, "commit", "--quiet", "--allow-empty", "-m", "first"]);
    url
}

async fn notes(owner: &Owner, path: &str) -> String {
    let chunks = owner.output(path).await;
    let notes = chunks.iter().filter(|chunk| chunk.source() == Source::Note);
    notes.map(|chunk| String::from_utf8_lossy(&chunk.data).into_owned()).collect()
}

#[tokio::test]
async fn a_folder_is_cleared_but_for_the_history_and_a_resurrected_agent_is_told_so() {
    let network = Network::start().await;
    let node = network.node_configured("here", "jdoe", QUICK).await;
    let owner = node.owner("jdoe").await;
    let agent = owner.spawn("tidy", bash("echo said; echo rest > file")).await;
    owner.is("tidy", Phase::Completed).await;
    let place = node.place(&agent);
    wait::until("its folder is cleared", || async { (!place.join("work/file").exists()).then_some(()) }).await;
    let told = wait::until("it is noted", || async {
        let told = notes(&owner, "tidy").await;
        told.contains("cleared").then_some(told)
    })
    .await;
    assert!(!told.contains("starting"), "its output is gone: {told}");
    assert!(!place.join("token").exists() && !place.join("output").exists());
    let gate = network.dir.path().join("gate");
    nix::unistd::mkfifo(&gate, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let again = v1::SpawnAgentRequest {
        slug: owner.slug("tidy"),
        spec: Some(bash(&format!("wc -l < $MURMUR_HISTORY_FILE; read x < {}", gate.display()))),
        resurrect: true,
        ..v1::SpawnAgentRequest::default()
    };
    let back = owner.spawn_as(again).await;
    assert_eq!((back.agent_id, back.incarnation), (agent.agent_id.clone(), 2));
    // It has what it knew, and is told what it has not.
    owner.is("tidy", Phase::Running).await;
    wait::until("it has read its history", || async {
        let said = owner.output("tidy").await;
        said.iter().any(|chunk| chunk.source() == Source::Stdout && chunk.data.starts_with(b"1")).then_some(())
    })
    .await;
    assert!(notes(&owner, "tidy").await.contains("its history is there"));
    owner.kill("tidy").await;
    owner.is("tidy", Phase::Canceled).await;
    assert_eq!(fs::read_to_string(place.join("history.jsonl")).unwrap().lines().count(), 2);
}

#[tokio::test]
async fn what_nobody_saved_stays_and_is_named() {
    let network = Network::start().await;
    let node = network.node_configured("here", "jdoe", QUICK).await;
    let owner = node.owner("jdoe").await;
    let url = repository(network.dir.path());
    let with_repo = |script: &str| AgentSpec {
        repos: vec![v1::Repo { clone_url: url.clone(), ..v1::Repo::default() }],
        ..bash(script)
    };
    let commits = "git -c user.name=a -c user.email=a@a commit -q --allow-empty -m done";
    let saved = owner.spawn("saves", with_repo(commits)).await;
    let forgot = owner.spawn("forgets", with_repo("echo half > draft")).await;
    let alone = owner.spawn("alone", bash(&format!("git init -q own && cd own && {commits}"))).await;
    for path in ["saves", "forgets", "alone"] {
        owner.is(path, Phase::Completed).await;
    }
    for (path, agent) in [("saves", &saved), ("forgets", &forgot), ("alone", &alone)] {
        let cleared = node.place(agent).join("cleared");
        wait::until(&format!("{path} is cleared"), || async { cleared.exists().then_some(()) }).await;
    }
    // The note is a write of its own.
    for path in ["forgets", "alone"] {
        wait::until(&format!("it is noted what stays of {path}"), || async {
            notes(&owner, path).await.contains("saved nowhere else").then_some(())
        })
        .await;
    }
    assert!(!node.place(&saved).join("work/widgets").exists(), "its commits are in the mirror");
    assert_eq!(fs::read_to_string(node.place(&forgot).join("work/widgets/draft")).unwrap(), "half\n");
    assert!(node.place(&alone).join("work/own/.git").exists(), "nobody else has that commit");
    assert!(notes(&owner, "alone").await.contains("own"));
}

#[tokio::test]
async fn what_the_control_plane_let_go_is_deleted_and_told_of_as_gone() {
    let env = vec![("MURMUR_SERVER_AGENT_KEEP_MS".to_owned(), "500".to_owned())];
    let network = Network::start_with(Options { env, ..Options::default() }).await;
    let mut node = network.node_configured("here", "jdoe", QUICK).await;
    let owner = node.owner("jdoe").await;
    let agent = owner.spawn("brief", bash("echo done")).await;
    let place = node.place(&agent);
    wait::until("it is let go", || async {
        let output = node.ctl(None, &["status", "brief"]).await;
        String::from_utf8_lossy(&output.stderr).contains("was let go on").then_some(())
    })
    .await;
    let refused = node.ctl(None, &["wait", "brief"]).await;
    assert!(!refused.status.success());
    // Asked with the next connection at the latest.
    wait::until("its folder is cleared", || async { place.join("cleared").exists().then_some(()) }).await;
    node.process.kill_9();
    node.process.start();
    node.ready().await;
    wait::until("the rest is deleted", || async { (!place.exists()).then_some(()) }).await;
}
