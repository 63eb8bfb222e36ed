//! One live session per agent; unread messages reach it by push, by notice and by inbox.

use std::process::Stdio;

use murmur_tests::{
    network::{Network, Options},
    process::binary,
    talk::{BOB, alice_and_bob},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    process::Command,
};

#[tokio::test]
async fn what_arrived_while_nobody_listened_is_pushed_at_the_start() {
    let network = Network::start().await;
    let node = network.node("here", "jdoe").await;
    let bob = node.shim("bob").await;
    bob.ok("register", json!({})).await;
    bob.close().await;
    let alice = node.shim("alice").await;
    alice.ok("send", json!({"to": "bob", "text": "first"})).await;
    alice.ok("send", json!({"to": "bob", "text": "second"})).await;

    let mut bob = node.shim("bob").await;
    for text in ["first", "second"] {
        let push = bob.push().await;
        assert!(push["content"].as_str().unwrap().contains(text), "{push}");
    }
}

#[tokio::test]
async fn a_dropped_push_shows_up_on_the_next_tool_result_and_in_the_inbox_once() {
    let network = Network::start().await;
    let node = network.node("here", "jdoe").await;
    let mut bob = node.shim("bob").await;
    bob.ok("register", json!({})).await;
    let alice = node.shim("alice").await;
    alice.ok("send", json!({"to": "bob", "text": "look here"})).await;
    // The push is taken off the wire and shown to nobody, as a client does whose channels are switched off.
    bob.push().await;

    let result = bob.call("peers", json!({})).await;
    assert!(result.text.contains("1 unread"), "{}", result.text);
    assert!(result.structured["notice"].as_str().unwrap().contains("1 unread"), "{}", result.structured);
    let inbox = bob.ok("inbox", json!({})).await;
    assert_eq!(inbox["messages"][0]["text"], "look here");
    assert_eq!(inbox["messages"][0]["redelivered"], true);
    assert_eq!(bob.ok("inbox", json!({})).await["messages"], json!([]));
}

#[tokio::test]
async fn what_an_answer_shows_that_reached_nobody_is_unread() {
    let network = Network::start().await;
    let node = network.node("here", "jdoe").await;
    let bob = node.shim("bob").await;
    bob.ok("register", json!({})).await;
    bob.close().await;
    let alice = node.shim("alice").await;
    alice.ok("send", json!({"to": "bob", "text": "look here"})).await;

    let mut lost = Command::new(binary("murmur-mcp"))
        .args(["--agent", "bob", "--socket"])
        .arg(&node.socket)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = lost.stdin.take().unwrap();
    let mut output = BufReader::new(lost.stdout.take().unwrap());
    let hello = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "0"}}});
    input.write_all(format!("{hello}\n").as_bytes()).await.unwrap();
    output.read_line(&mut String::new()).await.unwrap();
    // From here on nobody reads.
    drop(output);
    let call = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "inbox", "arguments": {}}});
    input.write_all(format!("{call}\n").as_bytes()).await.unwrap();
    drop(input);
    lost.wait().await.unwrap();

    let bob = node.shim("bob").await;
    let inbox = bob.ok("inbox", json!({"peek": true})).await;
    assert_eq!((&inbox["messages"][0]["text"], &inbox["unread"]), (&json!("look here"), &json!(1)), "{inbox}");
    let inbox = bob.ok("inbox", json!({})).await;
    assert_eq!((&inbox["messages"][0]["text"], &inbox["unread"]), (&json!("look here"), &json!(0)), "{inbox}");
    assert_eq!(bob.ok("inbox", json!({})).await["messages"], json!([]));
}

#[tokio::test]
async fn a_second_session_is_refused_by_name_or_takes_over() {
    let network = Network::start().await;
    let node = network.node("here", "jdoe").await;
    let first = node.shim("bob").await;
    first.ok("register", json!({})).await;

    let second = node.shim("bob").await;
    let refused = second.call("register", json!({})).await;
    assert!(refused.is_error && refused.text.contains("bob"), "{}", refused.text);

    second.ok("register", json!({"takeover": true})).await;
    murmur_tests::wait::until("the first session is told", || async {
        first.call("version", json!({})).await.text.contains("took over").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_refused_register_changes_nothing_of_the_agent() {
    let network = Network::start().await;
    let node = network.node("here", "jdoe").await;
    let first = node.shim("bob").await;
    first.ok("register", json!({"description": "the first", "group": "one"})).await;
    let second = node.shim("bob").await;
    let refused = second.call("register", json!({"description": "the second", "group": "two"})).await;
    assert!(refused.is_error && refused.text.contains("SESSION_TAKEN"), "{}", refused.text);
    let alice = node.shim("alice").await;
    let peers = alice.ok("peers", json!({})).await;
    let bob = peers["peers"].as_array().unwrap().iter().find(|peer| peer["slug"] == "/w/acme/u/jdoe/bob").unwrap();
    assert_eq!((&bob["description"], &bob["group"]), (&json!("the first"), &json!("one")), "{bob}");
}

#[tokio::test]
async fn a_session_that_is_not_attached_ignores_no_workspace() {
    let network = Network::start().await;
    let node = network.node("here", "jdoe").await;
    let first = node.shim("bob").await;
    first.ok("register", json!({})).await;
    // It speaks as the agent, and never learns its slug.
    let second = node.shim("bob").await;
    for (tool, arguments) in [
        ("spawn", json!({"slug": "worker", "description": "work", "workspace": "other"})),
        ("kill", json!({"slug": "self", "workspace": "other"})),
        ("task_create", json!({"subject": "it", "workspace": "other"})),
        ("status", json!({"workspace": "other"})),
        ("ls", json!({"workspace": "other"})),
    ] {
        let refused = second.call(tool, arguments).await;
        assert!(refused.is_error && refused.text.contains("`workspace`"), "{tool}: {}", refused.text);
    }
    second.ok("ls", json!({"workspace": "acme"})).await;
}

#[tokio::test]
async fn a_session_brings_an_agent_from_another_host_with_its_mail_when_it_says_so() {
    let network = Network::start().await;
    let (here, there) = (network.node("here", "jdoe").await, network.node("there", "jdoe").await);
    let bob = here.shim("bob").await;
    bob.ok("register", json!({})).await;
    bob.close().await;
    here.shim("alice").await.ok("send", json!({"to": "bob", "text": "follow me"})).await;

    let mut guest = there.shim("guest").await;
    let refused = guest.call("register", json!({"name": "bob"})).await;
    assert!(refused.is_error && refused.text.contains("bob"), "{}", refused.text);
    let wrong = guest.call("register", json!({"name": "bob", "move": "yes"})).await;
    assert!(wrong.is_error && wrong.text.contains("move"), "{}", wrong.text);
    let moved = guest.ok("register", json!({"name": "bob", "move": true})).await;
    assert_eq!(moved["slug"], "/w/acme/u/jdoe/bob");
    let push = guest.push().await;
    assert!(push["content"].as_str().unwrap().contains("follow me"), "{push}");
}

#[tokio::test]
async fn a_killed_shim_leaves_no_ghost_and_its_agent_keeps_its_mail() {
    let network = Network::start().await;
    let node = network.node("here", "jdoe").await;
    let alice = node.shim("alice").await;
    let bob = node.shim("bob").await;
    bob.ok("register", json!({})).await;
    until_online(&alice, "bob", true).await;
    drop(bob);
    until_online(&alice, "bob", false).await;

    let sent = alice.ok("send", json!({"to": "bob", "text": "for later"})).await;
    assert_eq!(sent["recipient_online"], false);
    let mut bob = node.shim("bob").await;
    assert!(bob.push().await["content"].as_str().unwrap().contains("for later"));
}

/// It makes no call, for much longer than a silent node would keep its place.
#[tokio::test]
async fn a_session_that_only_receives_stays_and_is_not_taken_for_a_dead_one() {
    const LEASE_S: i64 = 1;
    let env = [("MURMUR_SERVER_HEARTBEAT_MS", "200"), ("MURMUR_SERVER_LEASE_MS", "1000")];
    let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let network = Network::start_with(Options { env, ..Options::default() }).await;
    let node = network.node("here", "jdoe").await;
    let alice = node.shim("alice").await;
    let mut bob = node.shim("bob").await;
    bob.ok("register", json!({})).await;
    for round in 0..3 {
        let began = last_seen(&network).await;
        murmur_tests::wait::until("several leases are over", || async {
            (last_seen(&network).await >= began + 2 * LEASE_S).then_some(())
        })
        .await;
        alice.ok("send", json!({"to": "bob", "text": format!("round {round}")})).await;
        let push = bob.push().await;
        assert!(push["content"].as_str().unwrap().contains(&format!("round {round}")), "{push}");
        until_online(&alice, "bob", true).await;
    }
}

/// When the control plane last heard of the only node, Unix seconds.
async fn last_seen(network: &Network) -> i64 {
    murmur_tests::wait::until("the node is listed", || async {
        let request = murmur_proto::v1::ListNodesRequest::default();
        let nodes = network.admin().await.nodes.list_nodes(request).await.ok()?.into_inner().nodes;
        Some(nodes.first()?.last_seen_time?.seconds)
    })
    .await
}

async fn until_online(shim: &murmur_tests::shim::Shim, name: &str, online: bool) {
    let slug = format!("/w/acme/u/jdoe/{name}");
    murmur_tests::wait::until("the peer's presence is known", || async {
        let peers = shim.ok("peers", json!({})).await;
        let peer = peers["peers"].as_array().unwrap().iter().find(|peer| peer["slug"] == slug.as_str())?.clone();
        (peer["online"] == online).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_script_that_pipes_its_calls_sees_every_answer() {
    let (_network, here, _there) = alice_and_bob(Options::default()).await;
    let call = |id: u32, tool: &str, arguments: Value| json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": tool, "arguments": arguments}});
    let client = json!({"name": "script", "version": "1"});
    let initialize = json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client});
    let script = [
        json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": initialize}),
        json!({"jsonrpc": "2.0", "method": "notifications/initialized"}),
        call(2, "send", json!({"to": BOB, "text": "piped"})),
        // Nobody answers it: this one is still under way when input has long ended.
        call(3, "request", json!({"to": BOB, "text": "anybody?", "timeout_ms": 1500})),
    ];
    let mut shim = Command::new(binary("murmur-mcp"));
    shim.arg("--agent").arg("alice").arg("--socket").arg(&here.socket).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut shim = shim.kill_on_drop(true).spawn().unwrap();
    let lines = script.map(|line| format!("{line}\n")).concat();
    shim.stdin.take().unwrap().write_all(lines.as_bytes()).await.unwrap();
    let output = shim.wait_with_output().await.unwrap();
    assert!(output.status.success());
    let answers = String::from_utf8(output.stdout).unwrap();
    let answers: Vec<Value> = answers.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for id in 1..=3 {
        assert!(answers.iter().any(|answer| answer["id"] == id), "no answer to {id}: {answers:?}");
    }
    here.unattended().await;
}
