//! Messages, requests and replies as agents see them.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use bytes::Bytes;
use murmur_core::{id::MessageId, outbox::StateName};

use super::super::{
    Draft, InboxQuery, LocalAgent, Post, PostConfig, SendError,
    testing::{TestNode, World, carry, introduce},
};
use crate::clock::Clock;

fn draft(to: &str, body: &str) -> Draft {
    Draft { to: to.to_owned(), body: Bytes::copy_from_slice(body.as_bytes()), ..Draft::default() }
}

async fn inbox(post: &Arc<Post>, agent: &LocalAgent) -> Vec<String> {
    let page = post.inbox(agent, InboxQuery::default()).await.unwrap();
    page.messages.iter().map(|message| String::from_utf8(message.body.to_vec()).unwrap()).collect()
}

/// Waits until the delivery of a message came to a state.
async fn until(post: &Arc<Post>, agent: &LocalAgent, msg_id: MessageId, state: StateName) {
    let wake = post.hub().wait_for(msg_id);
    let mut wake = wake;
    loop {
        wake.borrow_and_update();
        if post.delivery(agent.agent_id, msg_id).await.unwrap()[0].state == state {
            break;
        }
        wake.changed().await.unwrap();
    }
    post.hub().stop_waiting(msg_id, agent.agent_id);
}

#[tokio::test]
async fn a_message_arrives_is_acknowledged_and_its_reading_is_told() {
    let world = World::new();
    let (a, b) = world.pair().await;
    let (alice, bob) = (a.agent(0), b.agent(0));
    let sent = a.post.send(&alice, draft("bob", "hello")).await.unwrap();
    assert_eq!(sent.to, bob.slug);
    let post = a.post.clone();
    carry(&[&a, &b], until(&post, &alice, sent.msg_id, StateName::Delivered)).await;
    assert_eq!(b.post.unread(bob.agent_id).await.unwrap(), 1);
    assert_eq!(inbox(&b.post, &bob).await, ["hello"]);
    assert_eq!(b.post.unread(bob.agent_id).await.unwrap(), 0);
    carry(&[&a, &b], until(&post, &alice, sent.msg_id, StateName::Read)).await;
    let view = post.delivery(alice.agent_id, sent.msg_id).await.unwrap().remove(0);
    assert!(view.delivered_ms.is_some() && view.read_ms.is_some() && view.publish_tries == 1 && !view.stale_prekey);
}

#[tokio::test]
async fn when_the_broker_has_a_message_the_next_one_is_prepared() {
    let (a, b) = World::new().pair().await;
    let peer = a.post.directory.verified(b.agent(0).agent_id, a.post.clock.now_ms()).unwrap();
    a.post.send(&a.agent(0), draft("bob", "hello")).await.unwrap();
    while !a.post.ahead.is_ready(peer.prekey.public) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn agents_of_one_node_take_the_same_way() {
    let world = World::new();
    let node = world.node(1, &["alice", "bob"]).await;
    introduce(&[&node]);
    let (alice, bob) = (node.agent(0), node.agent(1));
    let sent = node.post.send(&alice, draft("bob", "next door")).await.unwrap();
    let post = node.post.clone();
    carry(&[&node], until(&post, &alice, sent.msg_id, StateName::Delivered)).await;
    assert_eq!(inbox(&post, &bob).await, ["next door"]);
}

#[tokio::test]
async fn messages_of_a_pair_arrive_in_order() {
    let world = World::new();
    let (a, b) = world.pair().await;
    let (alice, bob) = (a.agent(0), b.agent(0));
    let mut last = None;
    for n in 0..20 {
        last = Some(a.post.send(&alice, draft("bob", &n.to_string())).await.unwrap());
    }
    let post = a.post.clone();
    carry(&[&a, &b], until(&post, &alice, last.unwrap().msg_id, StateName::Delivered)).await;
    assert_eq!(inbox(&b.post, &bob).await, (0..20).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_reply_completes_its_request_and_is_not_pushed() {
    let world = World::new();
    let (a, b) = world.pair().await;
    let (alice, bob) = (a.agent(0), b.agent(0));
    let (sent, pending) = a.post.request(&alice, draft("bob", "how much?"), 0).await.unwrap();
    let (asker, answerer) = (a.post.clone(), b.post.clone());
    let asked = sent.msg_id;
    let outcome = carry(&[&a, &b], async {
        let mut arrived = answerer.hub().watch(bob.agent_id);
        while inbox(&answerer, &bob).await.is_empty() {
            arrived.changed().await.unwrap();
        }
        let reply = Draft { in_reply_to: Some(asked), ..draft("", "42") };
        answerer.send(&bob, reply).await.unwrap();
        pending.wait().await.unwrap()
    })
    .await;
    let reply = outcome.reply.unwrap();
    assert_eq!((&reply.body[..], reply.in_reply_to), (&b"42"[..], Some(asked)));
    assert!(!outcome.timed_out && outcome.failure.is_none());
    assert_eq!(asker.unread(alice.agent_id).await.unwrap(), 0, "it was marked as read");
    assert!(asker.pushable(alice.agent_id, 0, 10).await.unwrap().0.is_empty());
}

/// Every gRPC client takes 4 MiB in one answer by itself, and some take no more.
#[tokio::test]
async fn a_page_of_long_messages_ends_where_an_answer_would_be_too_long() {
    let (a, b) = World::new().pair().await;
    let (alice, bob) = (a.agent(0), b.agent(0));
    let long = "x".repeat(190_000);
    for _ in 0..20 {
        a.post.send(&alice, draft("bob", &long)).await.unwrap();
        b.take(&a.published().await).await;
    }
    let first = b.post.inbox(&bob, InboxQuery::default()).await.unwrap();
    assert!(!first.messages.is_empty() && first.messages.len() * long.len() < 4 * 1024 * 1024);
    assert_eq!(
        (first.next_after, first.unread),
        (first.messages.last().unwrap().cursor, 20 - first.messages.len() as u64)
    );
    let second = b.post.inbox(&bob, InboxQuery::default()).await.unwrap();
    assert_eq!((first.messages.len() + second.messages.len(), second.next_after, second.unread), (20, 0, 0));
}

/// Whoever waited for a reply is gone before its mark is on disk.
#[tokio::test]
async fn a_reply_that_is_being_marked_as_read_is_not_pushed() {
    let (a, b) = World::new().pair().await;
    let (alice, bob) = (a.agent(0), b.agent(0));
    // A session without any message so far reads the store.
    let _session = a.post.hub().watch(alice.agent_id);
    let (sent, pending) = a.post.request(&alice, draft("bob", "how much?"), 0).await.unwrap();
    b.take(&a.published().await).await;
    let answered = b.post.send(&bob, Draft { in_reply_to: Some(sent.msg_id), ..draft("", "42") }).await.unwrap();
    carry(&[&a, &b], until(&b.post, &bob, answered.msg_id, StateName::Delivered)).await;
    let query = InboxQuery { peek: true, ..InboxQuery::default() };
    let cursor = a.post.inbox(&alice, query).await.unwrap().messages[0].cursor;
    a.post.hub().marking(alice.agent_id, cursor);
    a.post.hub().read(alice.agent_id, &[cursor]);
    drop(pending);
    assert!(a.post.pushable(alice.agent_id, 0, 10).await.unwrap().0.is_empty(), "somebody has it");
    // The mark was lost.
    a.post.hub().marked(alice.agent_id, cursor);
    assert_eq!(a.post.pushable(alice.agent_id, 0, 10).await.unwrap().0.len(), 1);
}

#[tokio::test]
async fn who_answers_a_message_has_read_it() {
    let (a, b) = World::new().pair().await;
    let (alice, bob) = (a.agent(0), b.agent(0));
    let sent = a.post.send(&alice, draft("bob", "seen?")).await.unwrap();
    let frame = a.published().await;
    b.take(&frame).await;
    let refused = Draft { in_reply_to: Some(sent.msg_id), ..draft("nobody", "yes") };
    b.post.send(&bob, refused).await.unwrap_err();
    assert_eq!(b.post.unread(bob.agent_id).await.unwrap(), 1, "nothing was answered");
    b.post.send(&bob, Draft { in_reply_to: Some(sent.msg_id), ..draft("", "yes") }).await.unwrap();
    assert_eq!(b.post.unread(bob.agent_id).await.unwrap(), 0);
    carry(&[&a, &b], until(&a.post, &alice, sent.msg_id, StateName::Read)).await;
}

#[tokio::test]
async fn an_answer_goes_to_whoever_asked_and_to_nobody_else() {
    let world = World::new();
    let (a, b) = (world.node(1, &["alice", "carol"]).await, world.node(2, &["bob"]).await);
    introduce(&[&a, &b]);
    let bob = b.agent(0);
    let (sent, _pending) = a.post.request(&a.agent(0), draft("bob", "well?"), 0).await.unwrap();
    b.take(&a.published().await).await;
    let answer = |to| Draft { in_reply_to: Some(sent.msg_id), ..draft(to, "42") };
    let refused = b.post.send(&bob, answer("carol")).await;
    assert!(matches!(refused, Err(SendError::Field { field: "to", .. })), "{refused:?}");
    assert_eq!(b.post.unread(bob.agent_id).await.unwrap(), 1, "nothing was answered");
    b.post.send(&bob, answer("alice")).await.unwrap();
}

#[tokio::test]
async fn a_waiter_that_leaves_gives_the_reply_free() {
    let world = World::new();
    let (a, b) = world.pair().await;
    let (alice, bob) = (a.agent(0), b.agent(0));
    let (sent, pending) = a.post.request(&alice, draft("bob", "well?"), 0).await.unwrap();
    let frame = a.published().await;
    b.take(&frame).await;
    let answered = b.post.send(&bob, Draft { in_reply_to: Some(sent.msg_id), ..draft("", "late") }).await.unwrap();
    let replier = b.post.clone();
    carry(&[&a, &b], until(&replier, &bob, answered.msg_id, StateName::Delivered)).await;
    assert!(a.post.pushable(alice.agent_id, 0, 10).await.unwrap().0.is_empty(), "somebody waits for it");
    let mut wake = a.post.hub().watch(alice.agent_id);
    wake.borrow_and_update();
    drop(pending);
    assert!(wake.has_changed().unwrap());
    // Even for a session whose position is behind it already.
    let pushed = a.post.pushable(alice.agent_id, 1_000, 10).await.unwrap().0;
    assert_eq!(pushed.len(), 1);
    assert!(!pushed[0].redelivered);
    assert!(a.post.pushable(alice.agent_id, 1_000, 10).await.unwrap().0.is_empty());
    assert!(a.post.pushable(alice.agent_id, 0, 10).await.unwrap().0[0].redelivered);
}

#[tokio::test]
async fn the_time_being_over_is_a_result_and_a_later_wait_finds_the_reply() {
    let world = World::new();
    let (a, b) = world.pair().await;
    let (alice, bob) = (a.agent(0), b.agent(0));
    let (sent, pending) = a.post.request(&alice, draft("bob", "quick!"), 1).await.unwrap();
    let outcome = pending.wait().await.unwrap();
    assert!(outcome.timed_out && outcome.reply.is_none());
    let frame = a.published().await;
    b.take(&frame).await;
    b.post.send(&bob, Draft { in_reply_to: Some(sent.msg_id), ..draft("", "here") }).await.unwrap();
    let again = a.post.await_reply(&alice, sent.msg_id, 0).await.unwrap();
    let outcome = carry(&[&a, &b], again.wait()).await.unwrap();
    assert_eq!(&outcome.reply.unwrap().body[..], b"here");
    assert!(b.post.await_reply(&bob, sent.msg_id, 0).await.is_err(), "only the one who asked may wait");
}

#[tokio::test]
async fn the_same_key_is_the_same_message_and_other_content_a_conflict() {
    let world = World::new();
    let (a, _b) = world.pair().await;
    let alice = a.agent(0);
    let keyed = |body| Draft { idempotency_key: Some("k".to_owned()), ..draft("bob", body) };
    let first = a.post.send(&alice, keyed("x")).await.unwrap();
    assert_eq!(a.post.send(&alice, keyed("x")).await.unwrap().msg_id, first.msg_id);
    assert!(matches!(a.post.send(&alice, keyed("y")).await, Err(SendError::IdempotencyConflict { .. })));
}

#[tokio::test]
async fn bad_drafts_are_refused_by_name() {
    let world = World::new();
    let (a, _b) = world.pair().await;
    let (post, alice) = (&a.post, a.agent(0));
    let big = Draft { body: vec![0; 196_609].into(), ..draft("bob", "") };
    assert!(matches!(post.send(&alice, big).await, Err(SendError::BodyTooLarge { .. })));
    assert!(matches!(post.send(&alice, draft("alice", "")).await, Err(SendError::SelfMessage)));
    assert!(matches!(post.send(&alice, draft("nobody", "")).await, Err(SendError::Resolve(_))));
    assert!(matches!(post.send(&alice, draft("", "")).await, Err(SendError::Field { field: "to", .. })));
    let ttl = Draft { ttl_seconds: Some(0), ..draft("bob", "") };
    assert!(matches!(post.send(&alice, ttl).await, Err(SendError::Field { field: "ttl_seconds", .. })));
    let reply = Draft { in_reply_to: Some(MessageId::from_bytes([1; 16])), ..draft("", "") };
    assert!(matches!(post.send(&alice, reply).await, Err(SendError::MessageNotFound { .. })));
}

#[tokio::test]
async fn a_pair_has_a_rate_and_a_bound_on_open_requests() {
    let world = World::new();
    // So slow that what is used up does not come back while the test runs.
    let (per_minute, burst) = (NonZeroU32::MIN, NonZeroU32::MIN.saturating_add(29));
    let config = PostConfig { pair_per_minute: per_minute, pair_burst: burst, ..PostConfig::default() };
    let a = world.node_with(1, &["alice"], config, Clock::system()).await;
    let b = world.node(2, &["bob"]).await;
    introduce(&[&a, &b]);
    let alice = a.agent(0);
    let mut waiting = Vec::new();
    for n in 0..16 {
        waiting.push(a.post.request(&alice, draft("bob", &n.to_string()), 0).await.unwrap());
    }
    let one_more = a.post.request(&alice, draft("bob", "17"), 0).await;
    assert!(matches!(one_more, Err(SendError::RequestsOpenTooMany { .. })));
    let mut refused = None;
    for _ in 0..30 {
        refused = a.post.send(&alice, draft("bob", "again")).await.err().or(refused);
    }
    assert!(matches!(refused, Some(SendError::RateLimited { retry_after_ms: 1.., .. })));
}

#[tokio::test]
async fn followers_see_both_directions_and_mark_nothing() {
    let world = World::new();
    let (a, b) = world.pair().await;
    let (alice, bob) = (a.agent(0), b.agent(0));
    let (backlog, mut live) = b.post.tail(&bob, 10).await.unwrap();
    assert!(backlog.is_empty());
    a.post.send(&alice, draft("bob", "seen")).await.unwrap();
    let frame = a.published().await;
    b.take(&frame).await;
    assert_eq!(&live.recv().await.unwrap().message.body[..], b"seen");
    b.post.send(&bob, draft("alice", "sent")).await.unwrap();
    assert_eq!(&live.recv().await.unwrap().message.body[..], b"sent");
    let (backlog, _) = b.post.tail(&bob, 10).await.unwrap();
    assert_eq!(backlog.iter().map(|item| item.message.body.clone()).collect::<Vec<_>>(), ["seen", "sent"]);
    assert_eq!(b.post.unread(bob.agent_id).await.unwrap(), 1);
}

#[tokio::test]
async fn a_full_inbox_makes_its_sender_wait() {
    let world = World::new();
    let a = world.node(1, &["alice"]).await;
    let config = PostConfig { inbox_unread_max: 1, ..PostConfig::default() };
    let b: TestNode = world.node_with(2, &["bob"], config, Clock::system()).await;
    introduce(&[&a, &b]);
    let alice = a.agent(0);
    for _ in 0..2 {
        a.post.send(&alice, draft("bob", "x")).await.unwrap();
        let frame = a.published().await;
        b.take(&frame).await;
    }
    assert_eq!(b.post.unread(b.agent(0).agent_id).await.unwrap(), 1);
    let acks = b.published().await;
    a.take(&acks).await;
    if !b.is_quiet().await {
        let acks = b.published().await;
        a.take(&acks).await;
    }
    assert_eq!(a.post.stats().await.unwrap().delivered, 1);
}
