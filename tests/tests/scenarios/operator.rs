//! A private network in one command, and the tools around it.

use std::{
    fs,
    process::{Command, Stdio},
};

use murmur_tests::{home::Home, process::binary};

use crate::cli::interrupted;

#[test]
fn up_twice_send_read_and_down_twice() {
    let home = Home::new();
    let printed = home.ok(&["up"]);
    assert!(printed.contains("claude mcp add murmur"), "{printed}");
    let before = home.json(&["status"]);
    home.ok(&["up"]);
    assert_eq!(pids(&before), pids(&home.json(&["status"])), "a second `up` starts nothing anew");

    home.ok(&["register", "--agent", "bob"]);
    let sent = home.json(&["send", "bob", "hello from the shell", "--agent", "alice"]);
    assert_eq!(sent["to"].as_str().map(|to| to.ends_with("/bob")), Some(true), "{sent}");
    let waited = home.run(&["message", sent["msg_id"].as_str().unwrap(), "--agent", "alice", "--json"]);
    assert!(waited.status.success());
    murmur_tests_wait(|| {
        let inbox = home.json(&["inbox", "--agent", "bob", "--peek"]);
        inbox.to_string().contains("hello from the shell")
    });
    let unknown = home.run(&["send", "nobody", "hello?"]);
    assert_eq!(unknown.status.code(), Some(3), "{}", String::from_utf8_lossy(&unknown.stderr));

    home.ok(&["doctor"]);
    home.ok(&["down"]);
    home.ok(&["down"]);
    let gone = home.run(&["peers"]);
    assert_eq!(gone.status.code(), Some(5), "{}", String::from_utf8_lossy(&gone.stderr));
    assert!(String::from_utf8_lossy(&gone.stderr).contains("murmurctl up"));
}

#[test]
fn the_demo_shows_every_step_and_leaves_nothing_behind() {
    let output = Command::new(binary("murmurctl")).arg("demo").env_remove("XDG_RUNTIME_DIR").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    for step in ["round trip", "safety number", "ciphertext"] {
        assert!(text.to_lowercase().contains(step), "the demo shows no {step}:\n{text}");
    }
}

#[tokio::test]
async fn a_demo_that_is_interrupted_says_so_by_its_exit_code() {
    let mut demo = Command::new(binary("murmurctl"));
    demo.args(["demo", "--json"]).env_remove("XDG_RUNTIME_DIR").stdout(Stdio::null()).stderr(Stdio::piped());
    let interrupted = interrupted(demo.spawn().unwrap()).await;
    assert_eq!(interrupted.status.code(), Some(130));
    assert!(String::from_utf8_lossy(&interrupted.stderr).contains("\"INTERRUPTED\""), "{interrupted:?}");
}

#[test]
fn a_network_that_was_moved_goes_on_where_it_is_with_its_nodes_settings() {
    let (before, home) = (Home::new(), Home::new());
    fs::write(before.path().join("node.toml"), "metrics_listen = '127.0.0.1:0'\n").unwrap();
    before.ok(&["up"]);
    assert!(before.path().join("node/metrics.addr").exists(), "the node has its settings from node.toml");
    before.ok(&["register", "--agent", "bob"]);
    before.ok(&["down"]);
    fs::rename(before.path(), home.path()).unwrap();

    let up = home.run(&["up"]);
    let said = String::from_utf8_lossy(&up.stderr).into_owned();
    let old = fs::canonicalize(before.path().parent().unwrap()).unwrap().join(before.path().file_name().unwrap());
    assert!(up.status.success() && said.contains(&format!("was of {}/broker", old.display())), "{said}");
    let config = fs::read_to_string(home.path().join("broker/nats-server.conf")).unwrap();
    assert!(!config.contains(old.to_str().unwrap()), "{config}");
    home.ok(&["send", "bob", "still here", "--agent", "alice", "--wait", "delivered"]);
    assert!(!before.path().exists(), "nothing was made where it was");
    assert!(!String::from_utf8(home.run(&["up"]).stderr).unwrap().contains("was of"), "it is corrected once");
}

fn pids(status: &serde_json::Value) -> Vec<u64> {
    let mut found = Vec::new();
    collect_pids(status, &mut found);
    assert!(found.len() >= 3, "broker, control plane and node have pids: {status}");
    found
}

fn collect_pids(value: &serde_json::Value, found: &mut Vec<u64>) {
    match value {
        serde_json::Value::Object(map) => {
            found.extend(map.get("pid").and_then(serde_json::Value::as_u64));
            map.values().for_each(|inner| collect_pids(inner, found));
        }
        serde_json::Value::Array(items) => items.iter().for_each(|inner| collect_pids(inner, found)),
        _ => {}
    }
}

fn murmur_tests_wait(mut condition: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + murmur_tests::wait::PATIENCE;
    while !condition() {
        assert!(std::time::Instant::now() < deadline, "the message never arrived");
    }
}
