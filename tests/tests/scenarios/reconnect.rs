//! Connections that break in every way: nothing is lost, nothing is doubled, and no process has to be restarted.

use std::fs;

use murmur_tests::{
    network::{Node, Options},
    talk::{ALICE, BOB, alice_and_bob, send, until_empty, until_texts},
    wait,
};

#[tokio::test]
async fn a_broker_that_restarts_is_found_again_by_everybody() {
    let (mut network, here, there) = alice_and_bob(Options::default()).await;
    let mut sent = Vec::new();
    for round in 0..3 {
        network.broker.kill_9();
        network.broker.start();
        exchange(&here, &there, &mut sent, round).await;
    }
}

#[tokio::test]
async fn connections_that_are_cut_leave_no_gap_and_no_repeat() {
    let (network, here, there) = alice_and_bob(proxied()).await;
    let proxy = network.proxy.as_ref().unwrap();
    let mut texts = Vec::new();
    for round in 0..5 {
        for number in 0..10 {
            texts.push(format!("{round}-{number}"));
            send(&here, "alice", BOB, texts.last().unwrap()).await;
            if number == 5 {
                // It may be about to connect again after the round before.
                wait::until("a connection is cut", || async { (proxy.cut("murmur-node") > 0).then_some(()) }).await;
            }
        }
    }
    let wanted: Vec<&str> = texts.iter().map(String::as_str).collect();
    until_texts(&there, "bob", &wanted).await;
    until_empty(&here).await;
}

#[tokio::test]
async fn what_was_on_the_way_over_a_cut_connection_is_handed_out_again_at_once() {
    let (network, here, there) = alice_and_bob(proxied()).await;
    let proxy = network.proxy.as_ref().unwrap();
    // The broker sends it, and it never arrives: the broker waits for its acknowledgement.
    let swallowed = format!("murmur-node {}", there.status().await.unwrap().node_id);
    assert_eq!(proxy.swallow(&swallowed), 1);
    send(&here, "alice", BOB, "swallowed").await;
    wait::until("the broker has handed it out", || async {
        (here.status().await?.outbox["stored"] == 1).then_some(())
    })
    .await;
    assert_eq!(proxy.cut(&swallowed), 1);
    until_texts(&there, "bob", &["swallowed"]).await;
    until_empty(&here).await;
    let log = network.server.output();
    assert!(log.contains("handed out again"), "the node did not ask for what was lost on the way: {log}");
}

#[tokio::test]
async fn a_connection_over_which_nothing_arrives_is_given_up() {
    let mut options = proxied();
    options.env.push(("MURMUR_NODE_BROKER_HEARTBEAT_MS".to_owned(), "500".to_owned()));
    let (network, here, there) = alice_and_bob(options).await;
    let proxy = network.proxy.as_ref().unwrap();
    wait::until("both connections are swallowed", || async { (proxy.swallow("murmur-node") >= 2).then_some(()) }).await;
    send(&here, "alice", BOB, "hello").await;
    until_texts(&there, "bob", &["hello"]).await;
    until_empty(&here).await;
}

#[tokio::test]
async fn a_consumer_that_was_deleted_is_told_and_made_again() {
    let (mut network, here, there) = alice_and_bob(Options::default()).await;
    let mut sent = Vec::new();
    exchange(&here, &there, &mut sent, 0).await;
    let consumer = there.consumer().await;
    // While the control plane cannot mend it: the node has to say that it is deaf.
    let broker = network.broker_admin().await;
    network.server.kill_9();
    broker.delete_consumer_from_stream(&consumer, "MM_IN_00").await.unwrap();
    there.finds("nothing is received").await;
    assert!(!there.status().await.unwrap().broker_connected, "health is green on a deaf node");
    network.server.start();
    there.ready().await;
    exchange(&here, &there, &mut sent, 1).await;
}

#[tokio::test]
async fn a_broker_that_lost_its_store_is_filled_again() {
    let (mut network, here, mut there) = alice_and_bob(Options::default()).await;
    there.process.kill_9();
    send(&here, "alice", BOB, "in the store").await;
    wait::until("the broker has it", || async { (here.status().await?.outbox["stored"] == 1).then_some(()) }).await;
    network.broker.kill_9();
    fs::remove_dir_all(network.dir.path().join("broker/store")).unwrap();
    network.broker.start();
    send(&here, "alice", BOB, "afterwards").await;
    there.process.start();
    there.ready().await;
    until_texts(&there, "bob", &["in the store", "afterwards"]).await;
    until_empty(&here).await;
    send(&there, "bob", ALICE, "and back").await;
    until_texts(&here, "alice", &["and back"]).await;
}

#[tokio::test]
async fn a_control_plane_that_restarts_interrupts_nothing() {
    let (mut network, here, there) = alice_and_bob(Options::default()).await;
    let mut sent = Vec::new();
    for round in 0..3 {
        network.server.kill_9();
        exchange(&here, &there, &mut sent, 2 * round).await;
        network.server.start();
        exchange(&here, &there, &mut sent, 2 * round + 1).await;
    }
    here.ready().await;
    there.ready().await;
}

fn proxied() -> Options {
    let env = ["MURMUR_NODE_PAIR_RATE_PER_MINUTE", "MURMUR_NODE_PAIR_BURST"];
    let env = env.map(|name| (name.to_owned(), "100000".to_owned())).into();
    Options { proxy: true, env, ..Options::default() }
}

/// A message there, and one back, and nothing else but what there was before.
async fn exchange(here: &Node, there: &Node, sent: &mut Vec<String>, round: u32) {
    let text = format!("round {round}");
    send(here, "alice", BOB, &text).await;
    send(there, "bob", ALICE, &text).await;
    sent.push(text);
    let wanted: Vec<&str> = sent.iter().map(String::as_str).collect();
    until_texts(there, "bob", &wanted).await;
    until_texts(here, "alice", &wanted).await;
}
