//! A private network in one command, and the tools around it.

use std::process::Command;

use murmur_tests::{home::Home, process::binary};

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
