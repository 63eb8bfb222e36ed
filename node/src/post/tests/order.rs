//! In which order, and at which pace, what was received is shown.

use std::num::NonZeroU32;

use murmur_core::code::Code;
use murmur_crypto::ack::{AckFrame, AckStatus};

use super::super::{
    Draft, Frame, InboxQuery, PostConfig,
    testing::{TestNode, World, introduce},
};
use crate::clock::Clock;

/// Bob's node with this configuration, alice's node, and the frames of messages that she sent him.
async fn sent(config: PostConfig, bodies: &[&str]) -> (TestNode, TestNode, Vec<Frame>) {
    let world = World::new();
    let a = world.node(1, &["alice"]).await;
    let b = world.node_with(2, &["bob"], config, Clock::system()).await;
    introduce(&[&a, &b]);
    let mut frames = Vec::new();
    for body in bodies {
        let draft = Draft { to: "bob".to_owned(), body: (*body).to_owned().into(), ..Draft::default() };
        a.post.send(&a.agent(0), draft).await.unwrap();
        frames.push(a.published().await);
    }
    (a, b, frames)
}

/// What bob reads: each text, and whether it shows a gap.
async fn read(b: &TestNode) -> Vec<(String, bool)> {
    let page = b.post.inbox(&b.agent(0), InboxQuery::default()).await.unwrap();
    let shown = |message: crate::post::InboxMessage| (String::from_utf8(message.body.to_vec()).unwrap(), message.gap);
    page.messages.into_iter().map(shown).collect()
}

/// Waits until bob has so many unread messages.
async fn until_unread(b: &TestNode, count: u64) {
    let bob = b.agent(0).agent_id;
    let mut changed = b.post.hub().watch(bob);
    loop {
        changed.borrow_and_update();
        if b.post.unread(bob).await.unwrap() >= count {
            return;
        }
        changed.changed().await.unwrap();
    }
}

fn told(frame: &Frame) -> AckStatus {
    AckFrame::decode(frame.bytes.clone()).unwrap().claimed().items[0].status.clone()
}

fn some(value: u32) -> NonZeroU32 {
    NonZeroU32::new(value).unwrap()
}

#[tokio::test]
async fn what_overtook_another_is_acknowledged_at_once_and_shown_behind_it() {
    let (_a, b, frames) = sent(PostConfig::default(), &["1", "2", "3"]).await;
    b.take(&frames[2]).await;
    assert!(matches!(told(&b.published().await), AckStatus::Delivered), "storing and acknowledging never wait");
    b.take(&frames[1]).await;
    assert!(read(&b).await.is_empty());
    assert_eq!(b.post.stats().await.unwrap().held, 2);
    // The same copy once more changes nothing.
    b.take(&frames[2]).await;
    b.take(&frames[0]).await;
    let shown = read(&b).await;
    assert_eq!(shown, ["1", "2", "3"].map(|text| (text.to_owned(), false)));
    let stats = b.post.stats().await.unwrap();
    assert_eq!((stats.held, stats.received, stats.duplicates), (0, 3, 1));
    b.take(&frames[1]).await;
    assert!(read(&b).await.is_empty(), "known, shown or held");
}

#[tokio::test]
async fn a_session_is_shown_the_same_order() {
    let (_a, b, frames) = sent(PostConfig::default(), &["1", "2", "3"]).await;
    let bob = b.agent(0).agent_id;
    let mut changed = b.post.hub().watch(bob);
    for at in [1, 2, 0] {
        b.take(&frames[at]).await;
    }
    let (mut texts, mut after) = (Vec::new(), 0);
    while texts.len() < 3 {
        changed.borrow_and_update();
        let (found, until) = b.post.pushable(bob, after, 10).await.unwrap();
        after = until;
        texts.extend(found.into_iter().map(|message| String::from_utf8(message.body.to_vec()).unwrap()));
        if texts.len() < 3 {
            changed.changed().await.unwrap();
        }
    }
    assert_eq!(texts, ["1", "2", "3"]);
}

#[tokio::test]
async fn what_does_not_come_in_time_is_told_as_a_gap_and_shown_late() {
    let (_a, b, frames) = sent(PostConfig { gap_wait_ms: 1, ..PostConfig::default() }, &["1", "2", "3"]).await;
    b.take(&frames[1]).await;
    until_unread(&b, 1).await;
    assert_eq!(read(&b).await, [("2".to_owned(), true)]);
    b.take(&frames[0]).await;
    b.take(&frames[2]).await;
    assert_eq!(read(&b).await, [("1".to_owned(), false), ("3".to_owned(), false)]);
}

#[tokio::test]
async fn what_was_refused_for_good_is_waited_for_by_nobody() {
    let config = PostConfig { body_bytes_max: 4, ..PostConfig::default() };
    let (_a, b, frames) = sent(config, &["1", "much too long", "3"]).await;
    b.take(&frames[0]).await;
    b.take(&frames[2]).await;
    assert_eq!(read(&b).await, [("1".to_owned(), false)]);
    b.take(&frames[1]).await;
    assert_eq!(read(&b).await, [("3".to_owned(), false)]);
}

#[tokio::test]
async fn a_pair_that_is_too_fast_is_shown_at_its_pace_in_order() {
    let config = PostConfig { pair_per_minute: some(6_000), pair_burst: some(2), ..PostConfig::default() };
    let (_a, b, frames) = sent(config, &["1", "2", "3", "4", "5", "6"]).await;
    for frame in &frames {
        b.take(frame).await;
    }
    // A node does what follows its commits in one task, in their order; here a release and the test are two, and a release that knew of
    // less may have unset the time of the last message.
    b.post.load_held().await.unwrap();
    until_unread(&b, 6).await;
    let texts: Vec<_> = read(&b).await.into_iter().map(|(text, _)| text).collect();
    assert_eq!(texts, ["1", "2", "3", "4", "5", "6"]);
}

#[tokio::test]
async fn a_pair_with_all_its_places_taken_is_refused_until_later_and_told_of() {
    let config =
        PostConfig { pair_per_minute: some(1), pair_burst: some(1), pair_held_max: 1, ..PostConfig::default() };
    let (_a, b, frames) = sent(config, &["1", "2", "3"]).await;
    b.take(&frames[0]).await;
    b.take(&frames[1]).await;
    b.take(&frames[2]).await;
    let mut refused = false;
    while !refused {
        let status = AckFrame::decode(b.published().await.bytes).unwrap();
        refused = status.claimed().items.iter().any(|item| {
            matches!(item.status, AckStatus::Failed { code: Code::RateLimited, retry_after_s: Some(1..), .. })
        });
    }
    assert_eq!(read(&b).await, [("1".to_owned(), false)]);
    let stats = b.post.stats().await.unwrap();
    assert_eq!((stats.held, stats.refused), (1, 1));
    assert_eq!(stats.over_rate, [("/w/acme/u/jdoe/alice".to_owned(), "/w/acme/u/jdoe/bob".to_owned())]);
}
