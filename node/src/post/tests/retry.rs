//! What goes wrong on the way, and how it still ends well or visibly.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use murmur_core::{
    code::Code,
    id::{AgentId, MessageId, NodeId},
    outbox::{Config, Event, PublishAnswer, Row, StateName},
    retry::{Backoff, RepublishSchedule},
};
use murmur_crypto::{
    ack::{AckFrame, AckStatus},
    envelope::Envelope,
};

use super::super::{
    Draft, Frame, Post, PostConfig, Sent,
    driver::Lane,
    moved::give_back_to_senders,
    testing::{TestNode, World, carry, introduce, route},
    transition::Key,
};
use crate::{
    clock::Clock,
    directory::{Batch, Change, Peer},
    store::{
        ack, copy,
        delivery::{self, DeliveryRow},
        outbox::{self, OutboxRow},
    },
};

async fn send(node: &TestNode) -> Sent {
    let draft = Draft { to: "bob".to_owned(), body: "hello".into(), ..Draft::default() };
    node.post.send(&node.agent(0), draft).await.unwrap()
}

/// A node's agents as they are before they publish keys.
fn without_keys(node: &TestNode) -> Vec<Change> {
    let strip = |peer: Arc<Peer>| Change::Agent(Arc::new(Peer { keys: None, ..(*peer).clone() }));
    node.peers().into_iter().map(strip).collect()
}

fn digest(frame: &Frame) -> [u8; 32] {
    *Envelope::decode(frame.bytes.clone()).unwrap().env_digest().as_bytes()
}

/// A node of these agents with an outbox of its own, and one of bob's.
async fn pair(names: &[&str], outbox: Config) -> (TestNode, TestNode) {
    let (world, config) = (World::new(), PostConfig { outbox, ..PostConfig::default() });
    let (a, b) = (world.node_with(1, names, config, Clock::system()).await, world.node(2, &["bob"]).await);
    introduce(&[&a, &b]);
    (a, b)
}

/// Tells a node that its first agent lives on another one.
fn move_elsewhere(node: &TestNode) {
    let peer = Peer { node_id: NodeId::from_bytes([9; 16]), ..(*node.peers()[0]).clone() };
    let batch = Batch { changes: vec![Change::Agent(Arc::new(peer))], whole: false, resume_token: None };
    node.post.directory.apply(batch, node.post.clock.now_ms());
}

/// Waits until a delivery ended, and says how and why.
async fn end(post: &Post, agent: AgentId, msg_id: MessageId) -> (StateName, Option<String>) {
    let mut wake = post.hub().wait_for(msg_id);
    loop {
        wake.borrow_and_update();
        let view = post.delivery(agent, msg_id).await.unwrap().remove(0);
        if !view.state.is_open() {
            return (view.state, view.code);
        }
        wake.changed().await.unwrap();
    }
}

#[tokio::test]
async fn a_lost_key_is_answered_with_a_fresh_one_and_sealed_again() {
    let (a, b) = World::new().pair().await;
    let sent = send(&a).await;
    let first = a.published().await;
    // Bob's node loses its disk: the agent is the same, its keys are not.
    let bob = b.agent(0);
    b.lose_keys(b.post.clock.now_ms() + 1);
    introduce(&[&a, &b]);
    b.take(&first).await;
    assert_eq!(b.post.unread(bob.agent_id).await.unwrap(), 0);
    let answer = b.published().await;
    let told = AckFrame::decode(answer.bytes.clone()).unwrap().claimed().items[0].status.clone();
    assert!(matches!(told, AckStatus::Failed { code: Code::KeyUnknown, fresh_prekey: Some(_), .. }));
    a.take(&answer).await;
    let (post, alice) = (a.post.clone(), a.agent(0).agent_id);
    let ended = carry(&[&a, &b], end(&post, alice, sent.msg_id)).await;
    assert_eq!(ended.0, StateName::Delivered);
    assert_eq!(b.post.unread(bob.agent_id).await.unwrap(), 1);
}

#[tokio::test]
async fn a_refusal_that_is_said_again_does_not_bring_back_its_prekey() {
    let (a, b) = World::new().pair().await;
    let now_ms = b.post.clock.now_ms();
    let sent = send(&a).await;
    let mut refusals = Vec::new();
    for lost in 1..=2 {
        let copy = a.published().await;
        b.lose_keys(now_ms + lost);
        b.take(&copy).await;
        let refusal = b.published().await;
        a.take(&refusal).await;
        refusals.push(refusal);
    }
    let last = a.published().await;
    let recipient = b.agent(0).agent_id;
    let asked_for =
        || a.post.store.read(move |tx| Ok(delivery::get(tx, sent.msg_id, recipient)?.unwrap().fresh_prekey));
    let fresh = asked_for().await.unwrap();
    for refusal in &refusals {
        a.take(refusal).await;
    }
    assert_eq!(asked_for().await.unwrap(), fresh);
    b.take(&last).await;
    a.take(&b.published().await).await;
    assert_eq!(end(&a.post, a.agent(0).agent_id, sent.msg_id).await.0, StateName::Delivered);
}

#[tokio::test]
async fn silence_is_not_met_with_a_new_seal_for_the_prekey_that_was_asked_for() {
    let republish = RepublishSchedule { first_ms: vec![], then_ms: 1 };
    let (a, b) = pair(&["alice"], Config { republish, ..Config::default() }).await;
    let now_ms = b.post.clock.now_ms();
    let (sent, recipient) = (send(&a).await, b.agent(0).agent_id);
    let first = a.published().await;
    b.lose_keys(now_ms + 1);
    b.take(&first).await;
    a.take(&b.published().await).await;
    // What the directory has now is another one again.
    b.lose_keys(now_ms + 2);
    introduce(&[&a, &b]);
    loop {
        a.published().await;
        let row = a.post.store.read(move |tx| delivery::get(tx, sent.msg_id, recipient)).await.unwrap().unwrap();
        let machine = Row::from(row.delivery.state);
        assert!(machine.seal_attempt <= 1, "sealed again for the same prekey: {machine:?}");
        if machine.republish_count > 3 && machine.seal_attempt == 1 {
            return;
        }
    }
}

#[tokio::test]
async fn an_agent_that_moves_gives_back_what_arrived_in_two_copies_whichever_its_sender_heard_of() {
    for is_first_heard in [true, false] {
        let republish = RepublishSchedule { first_ms: vec![], then_ms: 1 };
        let (a, b) = pair(&["alice"], Config { republish, ..Config::default() }).await;
        let bob = b.agent(0).agent_id;
        let sent = send(&a).await;
        let first = a.published().await;
        b.take(&first).await;
        let receipt_of_first = b.published().await;
        // The key of the first copy is gone, so silence is met with another seal.
        b.lose_keys(b.post.clock.now_ms() + 1);
        introduce(&[&a, &b]);
        let second = loop {
            let copy = a.published().await;
            if digest(&copy) != digest(&first) {
                break copy;
            }
        };
        b.take(&second).await;
        let receipt_of_second = b.published().await;
        a.take(if is_first_heard { &receipt_of_first } else { &receipt_of_second }).await;
        let state = async || a.post.delivery(a.agent(0).agent_id, sent.msg_id).await.unwrap().remove(0);
        assert_eq!(state().await.state, StateName::Delivered);
        move_elsewhere(&b);
        give_back_to_senders(Arc::clone(&b.post), bob).await;
        while state().await.code.as_deref() != Some(Code::AgentMoved.name()) {
            a.take(&b.published().await).await;
        }
        // Should the broker lose that, it is said again just so.
        let until_ms = b.post.clock.now_ms() + 1;
        let again = b.post.store.read(move |tx| ack::of_inbox(tx, (0, until_ms), None, 9)).await.unwrap();
        let mut again: Vec<_> = again.into_iter().map(|(_, row)| (row.code, row.env_digest)).collect();
        let mut both = [&first, &second].map(|copy| (Code::AgentMoved.number(), digest(copy)));
        again.sort_unstable();
        both.sort_unstable();
        assert_eq!(again, both);
    }
}

#[tokio::test]
async fn a_copy_that_the_broker_took_after_all_is_known_and_the_next_is_tidied() {
    let nack = Backoff { base_ms: 1, cap_ms: 1 };
    let (a, b) = pair(&["alice"], Config { nack, ..Config::default() }).await;
    let is_first = AtomicBool::new(true);
    a.post.bus.set_test_broker(Box::new(move |_| match is_first.swap(false, Ordering::Relaxed) {
        true => (true, PublishAnswer::LaneFull),
        false => (true, PublishAnswer::Stored { duplicate: false }),
    }));
    let sent = send(&a).await;
    let (first, second) = (a.published().await, a.published().await);
    assert_ne!(digest(&first), digest(&second));
    b.take(&first).await;
    let receipt = b.published().await;
    a.take(&receipt).await;
    let (post, alice, recipient) = (a.post.clone(), a.agent(0).agent_id, b.agent(0).agent_id);
    assert_eq!(end(&post, alice, sent.msg_id).await.0, StateName::Delivered);
    let copies = post.store.read(move |tx| {
        let row = delivery::get(tx, sent.msg_id, recipient)?.unwrap();
        Ok([copy::get(tx, &row, &digest(&first))?, copy::get(tx, &row, &digest(&second))?])
    });
    let [arrived, other] = copies.await.unwrap();
    assert_eq!(arrived, None);
    let other = other.unwrap();
    assert_eq!((other.seal_attempt, other.env_bytes), (0, None));
}

#[tokio::test]
async fn what_the_broker_had_no_room_for_is_tried_when_its_recipient_takes_something() {
    let nack = Backoff { base_ms: 3_600_000, cap_ms: 3_600_000 };
    let (a, b) = pair(&["alice", "carol"], Config { nack, ..Config::default() }).await;
    let is_full = Arc::new(AtomicBool::new(false));
    let full = Arc::clone(&is_full);
    a.post.bus.set_test_broker(Box::new(move |_| match full.load(Ordering::SeqCst) {
        true => (false, PublishAnswer::LaneFull),
        false => (true, PublishAnswer::Stored { duplicate: false }),
    }));
    send(&a).await;
    let first = a.published().await;
    is_full.store(true, Ordering::SeqCst);
    let draft = Draft { to: "bob".to_owned(), body: "and I".into(), ..Draft::default() };
    let carol = a.agent(1);
    let sent = a.post.send(&carol, draft).await.unwrap();
    let mut changed = a.post.hub().follow(sent.msg_id);
    while a.post.delivery(carol.agent_id, sent.msg_id).await.unwrap()[0].code.is_none() {
        changed.changed().await.unwrap();
    }
    is_full.store(false, Ordering::SeqCst);
    b.take(&first).await;
    a.take(&b.published().await).await;
    let second = a.published().await;
    b.take(&second).await;
    assert_eq!(b.post.unread(b.agent(0).agent_id).await.unwrap(), 2);
}

#[tokio::test]
async fn a_message_is_followed_up_when_its_caller_goes_away_behind_the_commit() {
    let world = World::new();
    let (a, b) = (world.node(1, &["alice"]).await, world.node(2, &["bob"]).await);
    introduce(&[&a, &b]);
    a.post.directory.apply(Batch { changes: without_keys(&b), ..Batch::default() }, 1);
    let (go, wait) = std::sync::mpsc::channel();
    let blocking = a.post.store.queue(move |_| wait.recv().map_err(|_| crate::store::StoreError::Closed));
    let lane = Lane { sender: a.agent(0).agent_id, recipient: b.agent(0).agent_id };
    let (post, alice) = (a.post.clone(), a.agent(0));
    let call = tokio::spawn(async move {
        let draft = Draft { to: "bob".to_owned(), body: "hello".into(), ..Draft::default() };
        post.send(&alice, draft).await
    });
    // On the long way it is announced just before its commit is queued.
    while !a.post.gate.is_waiting(lane) {
        tokio::task::yield_now().await;
    }
    tokio::task::yield_now().await;
    call.abort();
    assert!(call.await.is_err_and(|error| error.is_cancelled()), "its caller went away");
    go.send(()).unwrap();
    let blocked: Result<(), crate::store::StoreError> = blocking.await;
    blocked.unwrap();
    introduce(&[&a, &b]);
    let frame = a.published().await;
    b.take(&frame).await;
    assert_eq!(b.post.unread(b.agent(0).agent_id).await.unwrap(), 1);
}

#[tokio::test]
async fn a_permanent_refusal_ends_as_dead_with_its_reason() {
    let world = World::new();
    let a = world.node(1, &["alice"]).await;
    let config = PostConfig { body_bytes_max: 1, ..PostConfig::default() };
    let b = world.node_with(2, &["bob"], config, Clock::system()).await;
    introduce(&[&a, &b]);
    let (sent, pending) = {
        let draft = Draft { to: "bob".to_owned(), body: "too long".into(), ..Draft::default() };
        a.post.request(&a.agent(0), draft, 0).await.unwrap()
    };
    let (post, alice) = (a.post.clone(), a.agent(0).agent_id);
    let ended = carry(&[&a, &b], end(&post, alice, sent.msg_id)).await;
    assert_eq!(ended, (StateName::Dead, Some("POLICY_DENIED".to_owned())));
    let outcome = pending.wait().await.unwrap();
    assert_eq!((outcome.failure.as_deref(), outcome.timed_out), (Some("POLICY_DENIED"), false));
    assert_eq!(post.stats().await.unwrap().dead, 1);
}

#[tokio::test]
async fn a_late_word_of_the_broker_does_not_resurrect() {
    let (a, b) = World::new().pair().await;
    let sent = send(&a).await;
    let (post, alice) = (a.post.clone(), a.agent(0).agent_id);
    carry(&[&a, &b], end(&post, alice, sent.msg_id)).await;
    let key = Key { msg_id: sent.msg_id, recipient: b.agent(0).agent_id };
    let answer = PublishAnswer::Stored { duplicate: false };
    post.step(key, Event::PublishAnswered { seal_attempt: 0, answer }).await;
    assert_eq!(post.delivery(alice, sent.msg_id).await.unwrap()[0].state, StateName::Delivered);
}

#[tokio::test]
async fn mail_waits_for_keys_and_leaves_when_the_directory_has_them() {
    let world = World::new();
    let (a, b) = (world.node(1, &["alice"]).await, world.node(2, &["bob"]).await);
    let peers: Vec<_> = a.peers().into_iter().chain(b.peers()).collect();
    let keyless = [&a, &b].into_iter().flat_map(without_keys).collect();
    let batch = Batch { changes: keyless, whole: true, resume_token: None };
    a.post.directory.apply(batch, 1);
    b.post.directory.apply(Batch { whole: true, ..Batch::default() }, 1);
    send(&a).await;
    let changes = peers.iter().cloned().map(Change::Agent).collect();
    a.post.directory.apply(Batch { changes, whole: true, resume_token: None }, 2);
    let frame = a.published().await;
    b.take(&frame).await;
    assert_eq!(b.post.unread(b.agent(0).agent_id).await.unwrap(), 1);
}

#[tokio::test]
async fn what_the_broker_did_not_take_leaves_when_it_is_back() {
    let (a, b) = World::new().pair().await;
    a.post.bus.set_test_connected(false);
    for _ in 0..3 {
        send(&a).await;
    }
    let mut connected = a.post.bus.connected();
    assert!(!*connected.borrow_and_update());
    a.post.bus.set_test_connected(true);
    for _ in 0..3 {
        let frame = a.published().await;
        b.take(&frame).await;
    }
    let sequences: Vec<u64> =
        b.post.pushable(b.agent(0).agent_id, 0, 10).await.unwrap().0.iter().map(|message| message.sequence).collect();
    assert_eq!(sequences, [1, 2, 3]);
}

#[tokio::test]
async fn silence_is_met_with_the_same_copy_again() {
    let republish = RepublishSchedule { first_ms: vec![], then_ms: 1 };
    let (a, b) = pair(&["alice"], Config { republish, ..Config::default() }).await;
    let sent = send(&a).await;
    let (first, second) = (a.published().await, a.published().await);
    assert_eq!(digest(&first), digest(&second));
    assert_eq!(
        first.subject,
        route(2).subject(murmur_core::subject::Destination::Agent(b.agent(0).agent_id), a.post.identity.node_id)
    );
    let (post, alice) = (a.post.clone(), a.agent(0).agent_id);
    let ended = carry(&[&a, &b], end(&post, alice, sent.msg_id)).await;
    assert_eq!(ended.0, StateName::Delivered);
}

#[tokio::test]
async fn a_message_that_nobody_takes_expires() {
    let world = World::new();
    let (a, b) = (world.node(1, &["alice"]).await, world.node(2, &["bob"]).await);
    introduce(&[&a, &b]);
    let draft = Draft { to: "bob".to_owned(), body: "now".into(), ttl_seconds: Some(1), ..Draft::default() };
    let sent = a.post.send(&a.agent(0), draft).await.unwrap();
    let ended = end(&a.post, a.agent(0).agent_id, sent.msg_id).await;
    assert_eq!(ended.0, StateName::Expired);
}

#[tokio::test]
async fn a_message_that_cannot_be_sealed_ends_and_holds_up_no_other() {
    let world = World::new();
    let (a, b) = (world.node(1, &["alice"]).await, world.node(2, &["bob"]).await);
    introduce(&[&a, &b]);
    a.post.directory.apply(Batch { changes: without_keys(&b), ..Batch::default() }, 1);
    let (post, alice, bob) = (a.post.clone(), a.agent(0).agent_id, b.agent(0).agent_id);
    let first = send(&a).await;
    let large = MessageId::from_bytes([9; 16]);
    post.store
        .write(move |tx| {
            let row = outbox::get(tx, first.msg_id)?.unwrap();
            let sequence = outbox::next_sequence(tx, alice, row.conversation_id)?;
            let inner = vec![0; 2 * 1024 * 1024].into();
            outbox::insert(tx, &OutboxRow { msg_id: large, sequence, inner, ..row }, None, &[0; 32])?;
            let delivery = delivery::get(tx, first.msg_id, bob)?.unwrap();
            delivery::insert(tx, &DeliveryRow { msg_id: large, sequence, ..delivery })
        })
        .await
        .unwrap();
    post.step(Key { msg_id: large, recipient: bob }, Event::Restarted).await;
    let last = send(&a).await;
    introduce(&[&a, &b]);
    let ended = carry(&[&a, &b], end(&post, alice, last.msg_id)).await;
    assert_eq!(ended.0, StateName::Delivered);
    assert_eq!(end(&post, alice, first.msg_id).await.0, StateName::Delivered);
    assert_eq!(end(&post, alice, large).await, (StateName::Dead, Some("TOO_LARGE".to_owned())));
}
