//! Taking back, giving up, beginning again, and following all of that.

use std::sync::Arc;

use murmur_core::{
    code::Code,
    id::{AgentId, MessageId},
    outbox::{Event, StateName},
};
use murmur_crypto::{
    ack::{AckBody, AckFrame, AckItem, AckStatus},
    inner::InnerMessage as Inner,
};

use super::super::{
    Draft, Frame, Post, PostConfig, QueryError, Sent, Whose,
    testing::{TestNode, World, carry, introduce, node_id, route},
    transition::Key,
};
use crate::{
    bus::Verdict,
    clock::Clock,
    directory::{Batch, Change},
    store::{Tx, dead_letter, outbox},
};

const DAY_MS: u64 = 24 * 3600 * 1000;

async fn send(node: &TestNode, body: &str) -> Sent {
    let draft = Draft { to: "bob".to_owned(), body: body.to_owned().into(), ..Draft::default() };
    node.post.send(&node.agent(0), draft).await.unwrap()
}

/// Waits until the delivery of alice's message is in a state, by following it.
async fn until(post: &Arc<Post>, alice: AgentId, msg_id: MessageId, state: StateName) {
    let mut followed = post.follow(alice, msg_id, None).await.unwrap();
    while let Some(views) = followed.next().await.unwrap() {
        if views[0].state == state {
            return;
        }
    }
    panic!("it ended otherwise");
}

fn gone(agent: AgentId) -> Batch {
    Batch { changes: vec![Change::Removed(agent)], whole: false, resume_token: None }
}

#[tokio::test]
async fn a_follower_hears_the_state_and_every_end_and_then_no_more() {
    let (a, b) = World::new().pair().await;
    let (alice, sent) = (a.agent(0).agent_id, send(&a, "hello").await);
    assert!(matches!(
        a.post.follow(alice, MessageId::from_bytes([1; 16]), None).await.map(|_| ()),
        Err(QueryError::MessageNotFound { .. })
    ));
    let mut to_delivered = a.post.follow(alice, sent.msg_id, Some(StateName::Delivered)).await.unwrap();
    let mut to_the_end = a.post.follow(alice, sent.msg_id, None).await.unwrap();
    let first = to_the_end.next().await.unwrap().unwrap()[0].state;
    assert!(first.is_open(), "{first}");
    let following = async {
        let mut last = None;
        while let Some(views) = to_delivered.next().await.unwrap() {
            last = Some(views[0].state);
        }
        last
    };
    assert_eq!(carry(&[&a, &b], following).await, Some(StateName::Delivered));
    let cursor = b.post.inbox(&b.agent(0), Default::default()).await.unwrap().messages[0].cursor;
    assert!(cursor > 0);
    carry(&[&a, &b], async { while to_the_end.next().await.unwrap().is_some() {} }).await;
    assert_eq!(a.post.delivery(alice, sent.msg_id).await.unwrap()[0].state, StateName::Read);
}

#[tokio::test]
async fn what_was_taken_back_and_arrived_all_the_same_says_so() {
    let (a, b) = World::new().pair().await;
    let (alice, sent) = (a.agent(0).agent_id, send(&a, "too late").await);
    let frame = a.published().await;
    let cancelled = a.post.cancel(Whose::Agent(alice), sent.msg_id).await.unwrap();
    assert!(cancelled[0].may_arrive);
    assert_eq!(a.post.delivery(alice, sent.msg_id).await.unwrap()[0].state, StateName::Cancelled);
    let other = Whose::Agent(AgentId::from_bytes([7; 16]));
    assert!(matches!(a.post.cancel(other, sent.msg_id).await, Err(QueryError::MessageNotFound { .. })));
    b.take(&frame).await;
    a.take(&b.published().await).await;
    assert_eq!(a.post.delivery(alice, sent.msg_id).await.unwrap()[0].state, StateName::Delivered);
    let state = match a.post.cancel(Whose::Interactive, sent.msg_id).await {
        Err(QueryError::Ended { state, .. }) => state,
        other => panic!("{other:?}"),
    };
    assert_eq!(state, StateName::Delivered);
}

#[tokio::test]
async fn mail_that_waits_for_keys_dies_when_the_control_plane_says_that_nobody_is_left_and_not_before() {
    let (a, b) = World::new().pair().await;
    let (alice, bob) = (a.agent(0).agent_id, b.agent(0).agent_id);
    // Bob's keys are not there, so the message waits to be sealed.
    let strip = |change| match change {
        Change::Agent(peer) => {
            Change::Agent(Arc::new(crate::directory::Peer { keys: None, ..crate::directory::Peer::clone(&peer) }))
        }
        other => other,
    };
    let changes = b.peers().into_iter().map(Change::Agent).map(strip).collect();
    a.post.directory.apply(Batch { changes, whole: false, resume_token: None }, a.post.clock.now_ms());
    let sent = send(&a, "anybody?").await;
    until_waiting_for(&a, sent.msg_id, "no keys").await;
    // The copy here says that bob is gone, but nobody confirms it right now.
    a.post.directory.apply(gone(bob), a.post.clock.now_ms());
    a.post.step(Key { msg_id: sent.msg_id, recipient: bob }, Event::Restarted).await;
    until_waiting_for(&a, sent.msg_id, "has ended").await;
    assert!(a.post.delivery(alice, sent.msg_id).await.unwrap()[0].state.is_open());

    a.post.directory.set_live(true);
    until(&a.post, alice, sent.msg_id, StateName::Dead).await;
    assert_eq!(a.post.delivery(alice, sent.msg_id).await.unwrap()[0].code.as_deref(), Some("AGENT_GONE"));
    let refused = a.post.redrive(Whose::Agent(alice), sent.msg_id).await;
    assert!(matches!(refused, Err(QueryError::AgentEnded { .. })), "{refused:?}");
    assert_eq!(a.post.stats().await.unwrap().dead_letters, 1, "a refused redrive changes nothing");
}

#[tokio::test]
async fn a_redrive_begins_with_the_first_seal_and_a_refusal_of_an_old_copy_is_stale() {
    let world = World::new();
    let a = world.node(1, &["alice"]).await;
    let config = PostConfig { body_bytes_max: 1, ..PostConfig::default() };
    let b = world.node_with(2, &["bob"], config, Clock::system()).await;
    introduce(&[&a, &b]);
    let (alice, sent) = (a.agent(0).agent_id, send(&a, "too long").await);
    b.take(&a.published().await).await;
    let refusal = b.published().await;
    a.take(&refusal).await;
    until(&a.post, alice, sent.msg_id, StateName::Dead).await;

    let redriven = a.post.redrive(Whose::Interactive, sent.msg_id).await.unwrap();
    assert_eq!(redriven[0].msg_id, sent.msg_id);
    let again = a.published().await;
    // The refusal of the first copy comes a second time: it must not kill the second copy.
    a.take(&refusal).await;
    let view = a.post.delivery(alice, sent.msg_id).await.unwrap().remove(0);
    assert!(view.state.is_open(), "{view:?}");
    // Bob's word about that first copy counts all the same.
    let frame = delivered(&b, alice, &refusal);
    assert_eq!(a.post.receive(&frame).await, Verdict::Ack);
    assert_eq!(a.post.delivery(alice, sent.msg_id).await.unwrap()[0].state, StateName::Delivered);
    assert!(!again.bytes.is_empty());
    assert!(matches!(a.post.redrive(Whose::Interactive, sent.msg_id).await, Err(QueryError::NotDead { .. })));
}

#[tokio::test]
async fn after_the_longest_life_a_redrive_is_a_new_message_that_names_the_old_one() {
    let world = World::new();
    let a = world.node(1, &["alice"]).await;
    // What expired never comes, so that the new message shows a gap.
    let config = PostConfig { gap_wait_ms: 1, ..PostConfig::default() };
    let b = world.node_with(2, &["bob"], config, Clock::system()).await;
    introduce(&[&a, &b]);
    let mut arrived = b.post.hub().watch(b.agent(0).agent_id);
    let alice = a.agent(0).agent_id;
    let draft = Draft { to: "bob".to_owned(), body: "old".into(), ttl_seconds: Some(1), ..Draft::default() };
    let sent = a.post.send(&a.agent(0), draft).await.unwrap();
    until(&a.post, alice, sent.msg_id, StateName::Expired).await;
    while !a.is_quiet().await {
        a.published().await;
    }
    let (msg_id, made_ms) = (sent.msg_id, a.post.clock.now_ms() - 8 * DAY_MS);
    let age = move |tx: Tx<'_>| outbox::set_created_for_test(tx, msg_id, made_ms);
    a.post.store.write(age).await.unwrap();

    let redriven = a.post.redrive(Whose::Interactive, msg_id).await.unwrap().remove(0);
    assert_ne!(redriven.msg_id, msg_id);
    assert_eq!(redriven.redrive_of, msg_id);
    let new = redriven.msg_id;
    let row = a.post.store.read(move |tx| outbox::get(tx, new)).await.unwrap().unwrap();
    let inner = Inner::decode(row.inner.clone()).unwrap();
    assert_eq!(
        inner.attrs.iter().map(|attr| (attr.key.as_str(), attr.value.clone())).collect::<Vec<_>>(),
        [("redrive-of", msg_id.to_string())]
    );
    let post = a.post.clone();
    carry(&[&a, &b], until(&post, alice, new, StateName::Delivered)).await;
    while b.post.unread(b.agent(0).agent_id).await.unwrap() == 0 {
        arrived.changed().await.unwrap();
    }
    assert_eq!(a.post.stats().await.unwrap().dead_letters, 0);
    assert_eq!(
        a.post.delivery(alice, msg_id).await.unwrap()[0].state,
        StateName::Expired,
        "the old one stays as it ended"
    );
}

#[tokio::test]
async fn dead_letters_are_kept_longer_than_other_messages() {
    let (a, _b) = World::new().pair().await;
    let alice = a.agent(0).agent_id;
    let draft = Draft { to: "bob".to_owned(), body: "x".into(), ttl_seconds: Some(1), ..Draft::default() };
    let sent = a.post.send(&a.agent(0), draft).await.unwrap();
    until(&a.post, alice, sent.msg_id, StateName::Expired).await;
    let prune = |before_ms| move |tx: Tx<'_>| outbox::prune(tx, before_ms, 10);
    assert_eq!(a.post.store.write(prune(u64::MAX)).await.unwrap(), 0);
    a.post.store.write(|tx: Tx<'_>| dead_letter::prune(tx, u64::MAX)).await.unwrap();
    assert_eq!(a.post.store.write(prune(u64::MAX)).await.unwrap(), 1);
}

async fn until_waiting_for(node: &TestNode, msg_id: MessageId, what: &str) {
    loop {
        let shown = node.post.sent_message(Whose::Interactive, msg_id).await.unwrap();
        if shown[0].waits_for.contains(what) {
            return;
        }
        tokio::task::yield_now().await;
    }
}

/// A receipt of bob's node for the copy that a refusal of it names.
fn delivered(bob: &TestNode, alice: AgentId, refusal: &Frame) -> Frame {
    let named = AckFrame::decode(refusal.bytes.clone()).unwrap().claimed().items[0].clone();
    assert!(matches!(named.status, AckStatus::Failed { code: Code::PolicyDenied, .. }));
    let keyring = bob.post.keys.keyring(bob.agent(0).agent_id).unwrap();
    let signer = keyring.signer();
    let body = AckBody {
        acker_agent_id: signer.agent_id,
        acker_cert_fp: signer.cert_fp,
        sender_agent_id: alice,
        at_ms: bob.post.clock.now_ms(),
        items: vec![AckItem { status: AckStatus::Delivered, ..named }],
        credits: Vec::new(),
    };
    let bytes = body.sign(&signer.key, Some(&signer.chain)).unwrap();
    let subject = route(1).subject(murmur_core::subject::Destination::Ack, node_id(2));
    Frame { subject, bytes, deliveries: 1, stream_seq: 9 }
}
