//! Parents that start, watch and end children on two nodes: one in bash over `murmurctl`, one in Python over gRPC, one over MCP.

use std::{fs, path::PathBuf, process::Command};

use murmur_tests::{
    network::{Network, Node},
    talk::register,
    wait,
};
use serde_json::{Value, json};

/// What a parent in bash does: everything that a person would type, with the exit codes that the guide promises.
const PARENT: &str = r#"
set -euo pipefail
for n in 1 2 3; do
  node=here; if [ $n = 2 ]; then node=there; fi
  murmurctl spawn "child-$n" "result-$n" --backend echo --node $node --task look --task report
done
for n in 1 2 3; do murmurctl task set 2 --blocked-by 1 --for "child-$n" >/dev/null; done
if murmurctl task set 2 --status completed --for child-1 2>blocked; then echo "not blocked"; exit 9; fi
cat blocked
murmurctl task set 1 --status completed --for child-1 >/dev/null
murmurctl task set 2 --status completed --for child-1 >/dev/null
murmurctl wait child-1 child-2 child-3 --timeout 1m --response
if murmurctl status child-4 2>missing; then exit 9; else echo "missing is $?"; fi
if murmurctl spawn child-1 again --backend echo 2>live; then exit 9; else echo "live is $?"; fi
if murmurctl wait child-1 --phase destroying --timeout 1s 2>late; then exit 9; else echo "late is $?"; fi
murmurctl ls
"#;

#[tokio::test]
async fn a_parent_in_bash_starts_three_children_on_two_nodes_and_the_whole_tree_is_killed() {
    let network = Network::start().await;
    let (here, there) = (network.host("here", "jdoe").await, network.host("there", "jdoe").await);
    let spawned = here.ctl_json(None, &["spawn", "lead", PARENT, "--node", "here", "--on-idle", "keep_alive"]).await;
    assert_eq!(spawned["slug"], "/w/acme/u/jdoe/lead");
    let waited = here.ctl(None, &["wait", "lead", "--response", "--timeout", "1m"]).await;
    let said = String::from_utf8_lossy(&waited.stdout).into_owned();
    assert!(waited.status.success(), "{said}{}", String::from_utf8_lossy(&waited.stderr));
    for line in ["heard: result-1", "heard: result-2", "heard: result-3", "missing is 3", "live is 1", "late is 6"] {
        assert!(said.lines().any(|said| said == line), "`{line}` is missing in: {said}");
    }
    assert!(said.contains("item 2") && said.contains("waits for 1"), "a refusal lists the blockers: {said}");
    let tree: Vec<_> = said.lines().filter(|line| line.contains("child-")).collect();
    assert!(tree.iter().any(|line| line.starts_with("└─ child-3")), "{said}");

    // Everybody is seen from the other node, each on its own.
    let listed = there.ctl_json(None, &["ls", "--parent", "lead"]).await;
    let nodes: Vec<_> = rows(&listed).iter().map(|agent| agent["node"].clone()).collect();
    assert_eq!(nodes, ["here", "there", "here"]);
    let tasks = there.ctl_json(None, &["task", "ls", "--for", "lead/child-1"]).await;
    assert_eq!(tasks["tasks"][1]["status"], "completed", "{tasks}");
    assert_eq!(tasks["tasks"][1]["blocked_by"], json!(["1"]));

    let killed = there.ctl_json(None, &["kill", "lead", "--reason", "enough"]).await;
    let order: Vec<_> = killed["killed"].as_array().unwrap().iter().map(|slug| slug.as_str().unwrap()).collect();
    assert_eq!((order.len(), order[3]), (4, "/w/acme/u/jdoe/lead"), "leaves first: {killed}");
    assert_eq!(there.ctl_json(None, &["kill", "lead"]).await["killed"], json!([]), "a repeat ends nothing");
    for slug in ["lead", "lead/child-1", "lead/child-2", "lead/child-3"] {
        here.until_phase(&format!("/u/jdoe/{slug}"), "canceled").await;
    }
    for node in [&here, &there] {
        wait::until("nothing of the agents is left", || async { node.agent_processes().is_empty().then_some(()) })
            .await;
    }
    assert_eq!(rows(&here.ctl_json(None, &["ls"]).await).len(), 0);
    assert_eq!(rows(&here.ctl_json(None, &["ls", "--all"]).await).len(), 4);
}

#[tokio::test]
async fn a_parent_in_python_drives_three_children_over_grpc() {
    let network = Network::start().await;
    let here = network.host("here", "jdoe").await;
    register(&here, "lead").await;
    let output = python(
        &here,
        &["--agent", "lead", "--backend", "echo", "--timeout", "60", "{} is fine", "alpha", "beta", "gamma"],
    )
    .await;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    for name in ["alpha", "beta", "gamma"] {
        let line = said.lines().find(|line| line.starts_with(&format!("/w/acme/u/jdoe/lead/{name} PHASE_")));
        assert!(line.is_some_and(|line| line.ends_with(&format!("heard: {name} is fine"))), "{said}");
        assert!(said.contains(&format!("killed /w/acme/u/jdoe/lead/{name}")), "{said}");
        let tasks = here.ctl_json(None, &["task", "ls", "--for", &format!("/u/jdoe/lead/{name}")]).await;
        assert_eq!(tasks["tasks"][1]["blocked_by"], json!(["1"]));
    }

    let refused = python(&here, &["--agent", "lead", "{}", "UPPER CASE", "???"]).await;
    assert_eq!(refused.status.code(), Some(1), "one line that names nothing refuses all");
    assert_eq!(rows(&here.ctl_json(None, &["ls", "--parent", "lead"]).await).len(), 0);
}

#[tokio::test]
async fn a_parent_over_mcp_starts_waits_reads_gives_more_work_and_kills() {
    let network = Network::start().await;
    let (here, there) = (network.host("here", "jdoe").await, network.host("there", "jdoe").await);
    let lead = here.shim_with("lead", &[("MURMUR_PROFILE", "all")]).await;
    for (name, node) in [("one", "here"), ("two", "there"), ("three", "here")] {
        let spawn = json!({
            "slug": name, "description": name, "backend": "echo", "node": node, "tasks": ["look", "report"], "on_idle": "keep_alive",
        });
        let spawned = lead.ok("spawn", spawn).await;
        assert_eq!(spawned["slug"], format!("/w/acme/u/jdoe/lead/{name}"), "{spawned}");
        assert_eq!(spawned["phase"], "starting");
        lead.ok("task_update", json!({"slug": name, "task_id": "2", "add_blocked_by": ["1"]})).await;
    }
    for name in ["one", "two", "three"] {
        let waited = lead.ok("wait", json!({"slug": name, "timeout_s": 60})).await;
        assert_eq!((&waited["matched"], &waited["timed_out"]), (&json!(true), &json!(false)), "{waited}");
        let status = lead.ok("status", json!({"slug": name, "timeline": ["phase"]})).await;
        assert_eq!(status["output"]["response"].as_str().map(str::trim), Some(&*format!("heard: {name}")), "{status}");
        assert_eq!(status["timeline"][0]["phase"], "starting", "{status}");
        assert_eq!(status["agentId"], json!({"workspace": "acme", "account": "jdoe", "agent": ["lead", name]}));
    }
    let blocked = lead.call("task_update", json!({"slug": "one", "task_id": "2", "status": "in_progress"})).await;
    assert!(blocked.is_error && blocked.text.starts_with("TASK_BLOCKED: "), "{}", blocked.text);
    assert!(blocked.text.contains("blockers: 1"), "{}", blocked.text);
    let cycle = lead.call("task_update", json!({"slug": "one", "task_id": "1", "add_blocked_by": ["2"]})).await;
    assert!(cycle.is_error && cycle.text.starts_with("TASK_CYCLE: "), "{}", cycle.text);

    let live = lead.call("spawn", json!({"slug": "one", "description": "again"})).await;
    assert!(live.is_error && live.text.starts_with("AGENT_LIVE: ") && live.text.contains("queue_add"), "{}", live.text);
    lead.ok("queue_add", json!({"slug": "one", "description": "and more"})).await;
    wait::until("the follow-up is answered", || async {
        let status = lead.ok("status", json!({"slug": "one"})).await;
        status["output"]["response"].as_str()?.contains("and more").then_some(())
    })
    .await;

    let listed = lead.ok("ls", json!({"parent": "self"})).await;
    assert_eq!(listed["agents"].as_array().map(Vec::len), Some(3), "{listed}");
    for name in ["one", "two", "three"] {
        let killed = lead.ok("kill", json!({"slug": name})).await;
        assert_eq!(killed["killed"], json!([format!("/w/acme/u/jdoe/lead/{name}")]));
        let ended = lead.ok("wait", json!({"slug": name, "phase": "CANCELED", "timeout_s": 60})).await;
        assert_eq!((&ended["phase"], &ended["matched"]), (&json!("canceled"), &json!(true)));
    }
    assert!(lead.call("queue_add", json!({"slug": "one", "description": "too late"})).await.text.contains("resurrect"));
    for node in [&here, &there] {
        wait::until("nothing of the agents is left", || async { node.agent_processes().is_empty().then_some(()) })
            .await;
    }
}

#[tokio::test]
async fn an_agent_is_started_for_each_line_of_a_file_all_or_none() {
    let network = Network::start().await;
    let here = network.host("here", "jdoe").await;
    let file = network.dir.path().join("each");
    fs::write(&file, "src/a.rs\n\nSrc A.rs\nb\n").unwrap();
    let each = file.to_str().unwrap();
    let args = ["spawn", "fix-{}", "look at {}", "--backend", "echo", "--each", each];
    let spawned = here.ctl_json(None, &args).await;
    let slugs = ["fix-src-a-rs", "fix-src-a-rs-2", "fix-b"].map(|name| format!("/w/acme/u/jdoe/{name}"));
    assert_eq!((&spawned["slugs"], &spawned["count"]), (&json!(slugs), &json!(3)));
    let waited = here.ctl(None, &["wait", &slugs[0], &slugs[1], &slugs[2], "--response", "--timeout", "1m"]).await;
    let said = String::from_utf8_lossy(&waited.stdout).into_owned();
    let heard: Vec<_> = said.lines().filter(|line| !line.is_empty()).collect();
    assert_eq!(heard, ["heard: look at src/a.rs", "heard: look at Src A.rs", "heard: look at b"]);
    fs::write(&file, "c\nb\n").unwrap();
    let args = ["spawn", "fix-{}", "look at {}", "--backend", "nothing-runs-this", "--each", each];
    assert!(!here.ctl(None, &args).await.status.success());
    assert_eq!(here.ctl(None, &["status", "fix-c"]).await.status.code(), Some(3), "none of them was started");
}

fn rows(listed: &Value) -> Vec<Value> {
    listed["agents"].as_array().unwrap().clone()
}

/// Runs the script of the guide on a node's socket.
async fn python(node: &Node, arguments: &[&str]) -> std::process::Output {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut command = Command::new("sh");
    command.arg(root.join("deploy/tool.sh")).arg("python").arg(root.join("docs/guide/python/agents.py"));
    command.args(arguments).env("MURMUR_NODE_SOCKET", &node.socket).env_remove("MURMUR_AGENT_TOKEN_FILE");
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}
