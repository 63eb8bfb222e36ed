//! Certificates and prekeys are renewed while messages are on their way; nothing in flight is lost.

use murmur_core::outbox::StateName;

use super::super::{
    Draft, PostConfig,
    testing::{World, introduce},
};
use crate::{
    bus::Verdict,
    clock::Clock,
    directory::{Batch, Change},
};

const HOUR_MS: i64 = 3_600_000;

#[tokio::test]
async fn a_replay_over_a_restart_is_shown_once() {
    let world = World::new();
    let a = world.node(1, &["alice"]).await;
    let b = world.mortal(2, &["bob"], PostConfig::default(), Clock::system()).await;
    introduce(&[&a, &b]);
    let draft = Draft { to: "bob".to_owned(), body: "once".into(), ..Draft::default() };
    a.post.send(&a.agent(0), draft).await.unwrap();
    let frame = a.published().await;
    let receive = async |node: &crate::post::testing::TestNode| {
        let (post, frame) = (node.post.clone(), frame.clone());
        node.spawn(async move { post.receive(&frame).await }).await.unwrap()
    };
    assert_eq!(receive(&b).await, Verdict::Ack);
    let b = b.killed_and_back().await;
    assert_eq!(receive(&b).await, Verdict::Ack);
    assert_eq!(b.post.unread(b.agent(0).agent_id).await.unwrap(), 1);
    assert_eq!(b.post.stats().await.unwrap().duplicates, 1);
}

/// The certificate that signs is valid when the message was made, although it was issued a day later.
#[tokio::test]
async fn a_message_sealed_after_the_daily_renewal_is_believed() {
    let world = World::new();
    let yesterday = Clock::with_offset(-26 * HOUR_MS);
    let a = world.mortal(1, &["alice"], PostConfig::default(), yesterday).await;
    let b = world.node(2, &["bob"]).await;
    introduce(&[&a]);
    // Bob is known by name only, and his keys come a day later.
    let mut keyless = (*b.peers().remove(0)).clone();
    keyless.keys = None;
    let batch = Batch { changes: vec![Change::Agent(keyless.into())], ..Batch::default() };
    a.post.directory.apply(batch, yesterday.now_ms());
    let draft = Draft { to: "bob".to_owned(), body: "hello".into(), ttl_seconds: Some(172_800), ..Draft::default() };
    let (post, alice) = (a.post.clone(), a.agent(0));
    let sent = a.spawn(async move { post.send(&alice, draft).await.unwrap() }).await.unwrap();

    let a = a.killed_and_back_at(Clock::system()).await;
    introduce(&[&a, &b]);
    let frame = a.published().await;
    b.take(&frame).await;
    assert_eq!(b.post.unread(b.agent(0).agent_id).await.unwrap(), 1, "put away in silence");
    let receipt = b.published().await;
    a.take(&receipt).await;
    let view = a.post.delivery(a.agent(0).agent_id, sent.msg_id).await.unwrap().remove(0);
    assert_eq!(view.state, StateName::Delivered);
}
