//! An agent that moves to another node takes with it what waits for it, whoever is away meanwhile.

use murmur_proto::node::v1::{DeliveryState, RegisterRequest};
use murmur_tests::{
    network::Node,
    store,
    talk::{ALICE, BOB, inbox, register, send, until_empty, until_texts},
    wait,
};

use crate::pair::{Accepted, Pair, nothing_waits, read, texts};

#[tokio::test]
async fn what_waits_at_the_broker_for_a_node_that_is_gone_for_good_follows_the_agent() {
    let mut pair = Pair::start(&[]).await;
    pair.there.process.kill_9();
    let accepted = some(&pair, "stored").await;
    for message in &accepted {
        pair.until(message, DeliveryState::Stored).await;
    }
    let yonder = pair.network.node("yonder", "jdoe").await;
    move_bob(&yonder).await;
    followed(&pair, &yonder, &accepted).await;
    // What the broker still has for the old node changes nothing when that comes back.
    pair.there.process.start();
    pair.there.ready().await;
    wait::until("the old node knows", || async { is_gone_from(&pair.there).await.then_some(()) }).await;
    let after = send(&pair.here, "alice", "bob", "after").await;
    pair.until(&Accepted { msg_id: after.msg_id, text: "after".to_owned() }, DeliveryState::Delivered).await;
    assert_eq!(texts(&inbox(&yonder, "bob").await.unwrap()).len(), accepted.len() + 1);
    wait::until("nobody is left with anything to read there", || async {
        (store::number(&pair.there, "SELECT count(*) FROM inbox WHERE read_ms IS NULL") == 0).then_some(())
    })
    .await;
    nothing_waits(&pair.there).await;
    assert_eq!(store::rows(&pair.there, "quarantine"), 0);
}

#[tokio::test]
async fn what_nobody_read_at_the_old_node_follows_the_agent_and_what_was_read_does_not() {
    let pair = Pair::start(&[]).await;
    let before = some(&pair, "read").await;
    for message in &before {
        pair.until(message, DeliveryState::Delivered).await;
    }
    assert_eq!(read(&pair.there, "bob").await.len(), before.len());
    for message in &before {
        pair.until(message, DeliveryState::Read).await;
    }
    let unread = some(&pair, "unread").await;
    for message in &unread {
        pair.until(message, DeliveryState::Delivered).await;
    }
    let yonder = pair.network.node("yonder", "jdoe").await;
    move_bob(&yonder).await;
    followed(&pair, &yonder, &unread).await;
    for message in &before {
        pair.until(message, DeliveryState::Read).await;
    }
    assert!(is_gone_from(&pair.there).await);
}

/// The sender was away while the agent moved, and comes back when nobody can tell it where to: the old node says that it has left, and
/// the message waits, with that as its reason, until the control plane is back.
#[tokio::test]
async fn a_sender_that_cannot_hear_of_the_move_waits_and_gives_nothing_up() {
    let mut pair = Pair::start(&[]).await;
    acquainted(&pair).await;
    pair.here.process.kill_9();
    let yonder = pair.network.node("yonder", "jdoe").await;
    move_bob(&yonder).await;
    wait::until("the old node knows", || async { is_gone_from(&pair.there).await.then_some(()) }).await;
    pair.network.server.kill_9();
    pair.here.process.start();
    wait::until("the sender serves", || pair.here.status()).await;
    let accepted = some(&pair, "to the old place").await;
    wait::until("the old node has refused what came to it first", || async {
        (pair.delivery(&accepted[0]).await?.code == "AGENT_MOVED").then_some(())
    })
    .await;
    for message in &accepted {
        // What is behind it waits with it; what was accepted after the refusal is sealed and goes nowhere.
        wait::until(&format!("{} is not with the broker", message.text), || async {
            let state = pair.delivery(message).await?.state;
            [DeliveryState::Queued as i32, DeliveryState::Sealed as i32].contains(&state).then_some(())
        })
        .await;
    }
    pair.network.server.start();
    followed(&pair, &yonder, &accepted).await;
}

/// Nobody at the old place is left who could send it back.
#[tokio::test]
async fn what_was_sealed_for_a_node_that_is_gone_for_good_goes_to_the_new_one() {
    let mut pair = Pair::start(&[]).await;
    acquainted(&pair).await;
    pair.there.process.kill_9();
    let yonder = pair.network.node("yonder", "jdoe").await;
    pair.network.broker.kill_9();
    let accepted = some(&pair, "sealed").await;
    for message in &accepted {
        pair.until(message, DeliveryState::Sealed).await;
    }
    move_bob(&yonder).await;
    pair.network.broker.start();
    followed(&pair, &yonder, &accepted).await;
}

/// The old node hears of it last: until then it takes what is sent to it, and gives it back afterwards.
#[tokio::test]
async fn an_old_node_that_cannot_hear_of_the_move_gives_back_what_it_took_meanwhile() {
    let mut pair = Pair::start(&[]).await;
    acquainted(&pair).await;
    pair.there.process.kill_9();
    let yonder = pair.network.node("yonder", "jdoe").await;
    let before = some(&pair, "stored before").await;
    for message in &before {
        pair.until(message, DeliveryState::Stored).await;
    }
    pair.here.process.kill_9();
    move_bob(&yonder).await;
    pair.network.server.kill_9();
    pair.there.process.start();
    wait::until("the old node has taken them", || async {
        (store::rows(&pair.there, "inbox") == 1 + before.len() as u64).then_some(())
    })
    .await;
    pair.network.server.start();
    pair.here.process.start();
    followed(&pair, &yonder, &before).await;
    nothing_waits(&pair.there).await;
}

#[tokio::test]
async fn what_an_agent_sent_before_it_moved_still_arrives_and_it_can_move_back() {
    let mut pair = Pair::start(&[]).await;
    pair.here.process.kill_9();
    send(&pair.there, "bob", ALICE, "before").await;
    let yonder = pair.network.node("yonder", "jdoe").await;
    move_bob(&yonder).await;
    pair.here.process.start();
    until_texts(&pair.here, "alice", &["before"]).await;
    until_empty(&pair.there).await;
    send(&yonder, "bob", ALICE, "from the new place").await;
    until_empty(&yonder).await;
    wait::until("both are here", || async { (inbox(&pair.here, "alice").await?.len() == 2).then_some(()) }).await;

    move_bob(&pair.there).await;
    wait::until("the new node knows", || async { is_gone_from(&yonder).await.then_some(()) }).await;
    let back = some(&pair, "back").await;
    followed(&pair, &pair.there, &back).await;
    send(&pair.there, "bob", ALICE, "back again").await;
    wait::until("it arrives", || async { (inbox(&pair.here, "alice").await?.len() == 3).then_some(()) }).await;
    assert_eq!(store::rows(&pair.here, "quarantine"), 0);
}

/// Without being asked to move, an agent stays where it is; and the name of one that a node runs is never taken.
#[tokio::test]
async fn a_name_that_another_node_holds_is_refused_unless_it_is_to_move() {
    let pair = Pair::start(&[]).await;
    let request = RegisterRequest { agent: "bob".into(), ..Default::default() };
    let refused = pair.here.client().await.sessions.register(request).await.unwrap_err();
    assert!(refused.message().contains("taken"), "{refused:?}");
    register(&pair.there, "bob").await;
    let message = some(&pair, "stays").await;
    for message in &message {
        pair.until(message, DeliveryState::Delivered).await;
    }
}

/// Both nodes have the other agent's keys on their disks: one that is killed before can neither seal nor verify without the control plane.
async fn acquainted(pair: &Pair) {
    let hello = pair.send("hello").await;
    pair.until(&hello, DeliveryState::Delivered).await;
    read(&pair.there, "bob").await;
    pair.until(&hello, DeliveryState::Read).await;
}

async fn some(pair: &Pair, what: &str) -> Vec<Accepted> {
    let mut accepted = Vec::new();
    for number in 0..4 {
        accepted.push(pair.send(&format!("{what} {number}")).await);
    }
    accepted
}

async fn move_bob(to: &Node) {
    let request = RegisterRequest { agent: "bob".into(), move_here: true, ..Default::default() };
    let moved = to.client().await.sessions.register(request).await.unwrap().into_inner();
    assert!(moved.slug == BOB && !moved.created, "it is the same agent: {moved:?}");
}

async fn is_gone_from(node: &Node) -> bool {
    let status = node.status().await;
    status.is_some_and(|status| status.agents == 0)
}

/// Everything is in bob's inbox at this node, once and unread, and alice comes to know that it was read there.
async fn followed(pair: &Pair, to: &Node, accepted: &[Accepted]) {
    let wanted: Vec<&str> = accepted.iter().map(|message| message.text.as_str()).collect();
    wait::until("everything has followed", || async {
        let rows = inbox(to, "bob").await?;
        let arrived = texts(&rows);
        (wanted.iter().all(|text| arrived.contains(text))).then_some(())
    })
    .await;
    let shown = read(to, "bob").await;
    assert_eq!(texts(&shown), wanted, "once each, in the order of sending");
    for message in accepted {
        pair.until(message, DeliveryState::Read).await;
    }
    nothing_waits(&pair.here).await;
    for table in ["dead_letter", "quarantine"] {
        assert_eq!(store::rows(&pair.here, table), 0, "{table}");
    }
}
