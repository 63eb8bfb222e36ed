//! One process is a node: a second one is fenced and says so, and presence tells who is there (PROTOCOL §5.9, DESIGN §8.2).

use std::process::Command;

use murmur_core::reason::Reason;
use murmur_proto::{
    node::v1::RegisterRequest,
    status::RpcError,
    v1::{ListNodesRequest, Presence},
};
use murmur_tests::{
    network::{Network, Node, Options},
    process::binary,
    talk::{ALICE, BOB, alice_and_bob, send, texts, until_empty, until_texts},
    wait,
};
use nix::sys::signal::Signal;

#[tokio::test]
async fn a_copied_node_is_fenced_says_so_and_takes_over_when_told_to() {
    let (network, sender, mut first) = pair(&[("MURMUR_NODE_GAP_WAIT_MS", "300")]).await;
    first.process.terminate().await;
    let mut copy = network.copy(&first, "copy");
    first.process.start();
    first.ready().await;
    copy.process.start();
    copy.finds("another process").await;
    assert!(!copy.status().await.unwrap().broker_connected, "it has left the broker");
    send(&sender, "alice", BOB, "one").await;
    until_texts(&first, "bob", &["one"]).await;
    assert_eq!(texts(&copy, "bob").await.unwrap(), [""; 0], "the copy took what was not its own");
    refused(&copy).await;

    let told = Command::new(binary("murmurctl")).args(["node", "takeover", "--socket"]).arg(&copy.socket).output();
    let told = told.unwrap();
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    copy.ready().await;
    first.finds("another process").await;
    refused(&first).await;
    send(&sender, "alice", BOB, "two").await;
    until_texts(&copy, "bob", &["two"]).await;
    assert_eq!(texts(&first, "bob").await.unwrap(), ["one"]);

    // Once the copy is gone, the first has its place again, without anybody's help.
    copy.process.kill_9();
    first.ready().await;
    send(&sender, "alice", BOB, "three").await;
    until_texts(&first, "bob", &["one", "three"]).await;
    until_empty(&sender).await;
}

#[tokio::test]
async fn a_stopped_process_wakes_up_fenced_and_takes_nothing() {
    let (network, sender, mut first) = pair(&SHORT).await;
    first.process.terminate().await;
    let mut second = network.copy(&first, "second");
    first.process.start();
    first.ready().await;
    send(&sender, "alice", BOB, "before").await;
    until_texts(&first, "bob", &["before"]).await;
    until_empty(&sender).await;
    // Else the copy, whose store does not know the message, would be given it as well.
    network.until_acknowledged(&first).await;

    first.process.signal(Signal::SIGSTOP);
    present(&network, "there", Presence::Offline).await;
    // The broker still has the stopped process's pull request, and answers it.
    send(&sender, "alice", BOB, "meanwhile").await;
    wait::until("the broker has it", || async { (sender.status().await?.outbox["stored"] == 1).then_some(()) }).await;
    second.process.start();
    second.ready().await;
    until_texts(&second, "bob", &["meanwhile"]).await;
    until_empty(&sender).await;

    first.process.signal(Signal::SIGCONT);
    first.finds("another process").await;
    send(&sender, "alice", BOB, "after").await;
    until_texts(&second, "bob", &["meanwhile", "after"]).await;
    assert_eq!(texts(&first, "bob").await.unwrap(), ["before"], "the zombie took from the broker");
    refused(&first).await;

    // What it promised stands, and goes out when it has its place again.
    send(&first, "bob", ALICE, "promised").await;
    second.process.terminate().await;
    first.ready().await;
    until_texts(&sender, "alice", &["promised"]).await;
    send(&sender, "alice", BOB, "again").await;
    until_texts(&first, "bob", &["before", "again"]).await;
    until_empty(&first).await;
}

#[tokio::test]
async fn a_process_that_was_only_stopped_goes_on() {
    let (network, sender, first) = pair(&SHORT).await;
    first.process.signal(Signal::SIGSTOP);
    present(&network, "there", Presence::Offline).await;
    send(&sender, "alice", BOB, "meanwhile").await;
    first.process.signal(Signal::SIGCONT);
    present(&network, "there", Presence::Online).await;
    send(&sender, "alice", BOB, "after").await;
    until_texts(&first, "bob", &["meanwhile", "after"]).await;
    until_empty(&sender).await;
}

#[tokio::test]
async fn a_killed_node_and_one_that_leaves_are_gone_at_once() {
    // No lease of this network ends within a test.
    let (network, _sender, mut first) =
        pair(&[("MURMUR_SERVER_HEARTBEAT_MS", "600000"), ("MURMUR_SERVER_LEASE_MS", "1200000")]).await;
    present(&network, "there", Presence::Online).await;
    first.process.kill_9();
    present(&network, "there", Presence::Offline).await;
    first.process.start();
    present(&network, "there", Presence::Online).await;
    first.process.terminate().await;
    present(&network, "there", Presence::Offline).await;
}

#[tokio::test]
async fn a_silent_node_is_gone_when_its_lease_ends() {
    let (network, _sender, first) = pair(&SHORT).await;
    first.process.signal(Signal::SIGSTOP);
    present(&network, "there", Presence::Offline).await;
    first.process.signal(Signal::SIGCONT);
    present(&network, "there", Presence::Online).await;
}

/// Leases that end within a test, and not because a machine is busy; and no long wait for what a copy of a node has never seen.
const SHORT: [(&str, &str); 3] =
    [("MURMUR_SERVER_HEARTBEAT_MS", "300"), ("MURMUR_SERVER_LEASE_MS", "6000"), ("MURMUR_NODE_GAP_WAIT_MS", "300")];

/// A node with alice, and one with bob that the tests are about.
async fn pair(env: &[(&str, &str)]) -> (Network, Node, Node) {
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    alice_and_bob(Options { env, ..Options::default() }).await
}

/// What the control plane shows of a node.
async fn present(network: &Network, name: &str, presence: Presence) {
    wait::until("the presence is shown", || async {
        let nodes = network.admin().await.nodes.list_nodes(ListNodesRequest::default()).await.ok()?.into_inner().nodes;
        nodes.iter().any(|node| node.name == name && node.presence() == presence).then_some(())
    })
    .await;
}

/// A fenced process cannot speak for the node.
async fn refused(node: &Node) {
    let request = RegisterRequest { agent: "mallory".into(), ..Default::default() };
    let status = node.client().await.sessions.register(request).await.unwrap_err();
    assert_eq!(RpcError::from(&status).reason, Some(Reason::NodeFenced), "{status}");
}
