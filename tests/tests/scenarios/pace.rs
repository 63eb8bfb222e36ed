//! Too much at once: a slow reader, a flooder, and two agents that answer each other for ever. Each stalls itself and nobody else.

use std::fs;

use murmur_proto::{
    client::NodeClient,
    node::v1::{DeliveryState, GetDeliveryRequest, ListInboxRequest, Message, RegisterRequest, SendRequest},
};
use murmur_tests::{
    network::{Network, Node, Options},
    shim::Shim,
    wait,
};
use serde_json::json;

use crate::metrics::counted;

const RATE: &str = "MURMUR_NODE_PAIR_RATE_PER_MINUTE";
const BURST: &str = "MURMUR_NODE_PAIR_BURST";
/// How often a node found a pair over its rate.
const TRIPS: &str = "murmur_node_pair_rate_trips_total";

#[tokio::test]
async fn a_full_inbox_pushes_back_on_its_senders_and_nobody_else_feels_it() {
    let env = [
        ("MURMUR_NODE_INBOX_UNREAD_MAX", "10"),
        ("MURMUR_NODE_INBOX_FULL_RETRY_MS", "200"),
        ("MURMUR_NODE_NACK_MS", "[50, 200]"),
        (RATE, "1000000"),
        (BURST, "1000000"),
    ];
    let (_network, here, there) = start(&env).await;
    let body = "x".repeat(100_000);
    let sent = 60_usize;
    let before = resident_kib(&there);
    for number in 0..sent {
        send(&here, "alice", "bob", &format!("{number} {body}")).await;
    }
    wait::until("alice sees that bob's inbox is full", || async {
        let request = murmur_proto::node::v1::ListOutboxRequest { agent: "alice".into(), ..Default::default() };
        let open = here.client().await.outbox.list_outbox(request).await.ok()?.into_inner().messages;
        let refused = open
            .iter()
            .filter(|message| message.delivery.as_ref().is_some_and(|delivery| delivery.code == "INBOX_FULL"));
        (refused.count() > 0).then_some(())
    })
    .await;
    assert!(unread(&there, "bob").await <= 10, "an inbox holds what it may and no more");
    let grown = resident_kib(&there).saturating_sub(before);
    assert!(grown < 40 * 1024, "what waits is on disk at its sender, not in memory here: {grown} KiB more");

    // Others who live there hear from alice, and bob's own words leave, as if nothing was.
    let to_carol = send(&here, "alice", "carol", "how is it over there?").await;
    until_delivered(&here, "alice", &to_carol).await;
    let to_alice = send(&there, "bob", "alice", "busy").await;
    until_delivered(&there, "bob", &to_alice).await;

    // Bob reads at last, a few at a time, and gets every single one.
    let mut numbers: Vec<usize> = Vec::new();
    while numbers.len() < sent {
        let page = wait::until("there is more to read", || async {
            let page = read(&mut there.client().await, "bob", 5).await;
            (!page.is_empty()).then_some(page)
        })
        .await;
        for message in page {
            let text = String::from_utf8(message.body.to_vec()).unwrap();
            numbers.push(text.split(' ').next().unwrap().parse().unwrap());
        }
        // What overtook another on a later try was let in before it was full.
        assert!(unread(&there, "bob").await <= 20);
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (0..sent).collect::<Vec<_>>(), "each once");
}

#[tokio::test]
async fn two_agents_that_answer_each_other_for_ever_are_stopped_and_told_and_so_is_their_owner() {
    let (_network, here, there) = start(&[(RATE, "6"), (BURST, "5")]).await;
    let (mut alice, mut bob) = (here.shim("alice").await, there.shim("bob").await);
    alice.ok("register", json!({})).await;
    bob.ok("register", json!({})).await;
    alice.ok("send", json!({"to": "bob", "text": "no, you first"})).await;
    let mut rounds = 0;
    let refusal = loop {
        assert!(rounds < 20, "nothing stops them");
        rounds += 1;
        if let Some(refusal) = answer(&mut bob).await {
            break refusal;
        }
        if let Some(refusal) = answer(&mut alice).await {
            break refusal;
        }
    };
    assert!(refusal.contains("answer each other"), "{refusal}");
    let carol = there.shim("carol").await;
    carol.ok("send", json!({"to": "alice", "text": "may I?"})).await;
    assert_eq!(alice.push().await["meta"]["from"], "/w/acme/u/jdoe/carol", "nobody else is stopped");

    let mut told = Vec::new();
    for node in [&here, &there] {
        told.extend(node.status().await.unwrap().findings.into_iter().map(|finding| finding.what));
    }
    let told = told.join("\n");
    assert!(told.contains("/w/acme/u/jdoe/alice") && told.contains("/w/acme/u/jdoe/bob"), "{told}");
    let mut tripped = 0;
    for node in [&here, &there] {
        tripped += counted(node, TRIPS).await.unwrap();
    }
    assert!(tripped > 0, "the metrics count it");
}

#[tokio::test]
async fn a_flooder_is_held_and_shown_at_its_own_pace_in_order_and_others_pass_it_by() {
    let (_network, mut here, there) = start(&[(RATE, "120"), (BURST, "3")]).await;
    // Its own node lets it flood.
    here.process.kill_9();
    here.process.set_env(RATE, Some("1000000"));
    here.process.set_env(BURST, Some("1000000"));
    here.process.start();
    here.ready().await;
    let mut sent = Vec::new();
    for number in 0..9 {
        sent.push(send(&here, "alice", "bob", &number.to_string()).await);
    }
    for message in &sent {
        until_delivered(&here, "alice", message).await;
    }
    assert!(counted(&there, TRIPS).await.unwrap() > 0, "what is too fast is held");
    let to_bob = send(&there, "carol", "bob", "quick question").await;
    until_delivered(&there, "carol", &to_bob).await;

    let mut texts: Vec<_> = read(&mut there.client().await, "bob", 100).await.iter().map(text).collect();
    assert!(texts.contains(&"quick question".to_owned()), "carol waits for nobody: {texts:?}");
    while texts.len() < 10 {
        let more = wait::until("more is shown", || async {
            let more = read(&mut there.client().await, "bob", 100).await;
            (!more.is_empty()).then_some(more)
        })
        .await;
        texts.extend(more.iter().map(text));
    }
    let of_alice: Vec<_> = texts.iter().filter(|text| *text != "quick question").cloned().collect();
    assert_eq!(of_alice, (0..9).map(|number| number.to_string()).collect::<Vec<_>>(), "in order, each once");
}

#[tokio::test]
async fn what_is_held_survives_a_killed_node_and_keeps_its_order() {
    let (_network, mut here, mut there) = start(&[(RATE, "120"), (BURST, "2")]).await;
    here.process.kill_9();
    here.process.set_env(RATE, Some("1000000"));
    here.process.set_env(BURST, Some("1000000"));
    here.process.start();
    here.ready().await;
    let mut sent = Vec::new();
    for number in 0..8 {
        sent.push(send(&here, "alice", "bob", &number.to_string()).await);
    }
    for message in &sent {
        until_delivered(&here, "alice", message).await;
    }
    there.process.kill_9();
    there.process.start();
    there.ready().await;
    wait::until("everything is shown", || async { (unread(&there, "bob").await == 8).then_some(()) }).await;
    let texts: Vec<_> = read(&mut there.client().await, "bob", 100).await.iter().map(text).collect();
    assert_eq!(texts, (0..8).map(|number| number.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_message_that_will_never_come_is_waited_for_and_then_told_as_a_gap() {
    let (mut network, here, there) = start(&[("MURMUR_NODE_GAP_WAIT_MS", "500")]).await;
    send(&here, "alice", "bob", "first").await;
    wait::until("the first one is there", || async { (unread(&there, "bob").await == 1).then_some(()) }).await;
    network.broker.kill_9();
    here.cut_off().await;
    let lost = send(&here, "alice", "bob", "taken back").await;
    let request = murmur_proto::node::v1::CancelMessageRequest { msg_id: lost, ..Default::default() };
    here.client().await.outbox.cancel_message(request).await.unwrap();
    send(&here, "alice", "bob", "third").await;
    send(&here, "alice", "bob", "fourth").await;
    network.broker.start();
    wait::until("all that will come has come", || async { (unread(&there, "bob").await == 3).then_some(()) }).await;
    let shown: Vec<_> =
        read(&mut there.client().await, "bob", 10).await.iter().map(|message| (text(message), message.gap)).collect();
    let expected = [("first", false), ("third", true), ("fourth", false)];
    assert_eq!(shown, expected.map(|(text, gap)| (text.to_owned(), gap)));
}

/// Takes the next push and answers it; the error's text when that is refused.
async fn answer(shim: &mut Shim) -> Option<String> {
    let push = shim.push().await;
    let result = shim.call("send", json!({"to": push["meta"]["from"], "text": "no, you first"})).await;
    result.is_error.then_some(result.text)
}

/// Two nodes: alice on the first, bob and carol on the second, all known to each other.
async fn start(env: &[(&str, &str)]) -> (Network, Node, Node) {
    let env = env.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let network = Network::start_with(Options { env, ..Options::default() }).await;
    let (here, there) = (network.node("here", "jdoe").await, network.node("there", "jdoe").await);
    for (node, agent) in [(&here, "alice"), (&there, "bob"), (&there, "carol")] {
        let request = RegisterRequest { agent: agent.into(), ..Default::default() };
        node.client().await.sessions.register(request).await.unwrap();
    }
    for (node, agent) in [(&here, "bob"), (&here, "carol"), (&there, "alice")] {
        node.knows(&format!("/w/acme/u/jdoe/{agent}")).await;
    }
    (network, here, there)
}

async fn send(node: &Node, from: &str, to: &str, text: &str) -> String {
    let body = text.to_owned().into();
    let request = SendRequest { agent: from.into(), to: to.into(), body, ..Default::default() };
    node.client().await.messages.send(request).await.unwrap().into_inner().msg_id
}

async fn until_delivered(node: &Node, from: &str, msg_id: &str) {
    wait::until("it is delivered", || async {
        let request = GetDeliveryRequest { agent: from.into(), msg_id: msg_id.to_owned() };
        let state = node.client().await.messages.get_delivery(request).await.ok()?.into_inner().deliveries[0].state();
        matches!(state, DeliveryState::Delivered | DeliveryState::Read).then_some(())
    })
    .await;
}

async fn unread(node: &Node, agent: &str) -> u64 {
    let request = ListInboxRequest { agent: agent.into(), limit: 1, peek: true, ..Default::default() };
    node.client().await.messages.list_inbox(request).await.unwrap().into_inner().unread
}

/// The next unread messages, now read.
async fn read(client: &mut NodeClient, agent: &str, limit: u32) -> Vec<Message> {
    let request = ListInboxRequest { agent: agent.into(), limit, ..Default::default() };
    client.messages.list_inbox(request).await.unwrap().into_inner().messages
}

fn text(message: &Message) -> String {
    String::from_utf8(message.body.to_vec()).unwrap()
}

fn resident_kib(node: &Node) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", node.process.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
