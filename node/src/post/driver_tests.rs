use murmur_core::outbox::State;

use super::*;
use crate::post::{
    Draft,
    testing::{TestNode, World},
};

/// A message that waits, and a driver that knows nothing of it but that the page with it is being read.
async fn reading(node: &TestNode) -> (Driver, Lane, Stepped) {
    node.post.bus.set_test_connected(false);
    let draft = Draft { to: "bob".to_owned(), body: "waits".into(), ..Draft::default() };
    let sent = node.post.send(&node.agent(0), draft).await.unwrap();
    let rows = node.post.store.read(move |tx| delivery::of_message(tx, sent.msg_id)).await.unwrap();
    let row = rows.into_iter().next().unwrap();
    let lane = Lane::of(&row);
    let mut driver = Driver::new(Arc::clone(&node.post));
    driver.lanes.entry(lane).or_default().rest = Rest::Reading { behind: page::START, left: None };
    (driver, lane, Stepped::new(row, Vec::new()))
}

fn ended(open: &Stepped) -> Stepped {
    let mut row = open.row.clone();
    row.delivery.state = State::Cancelled;
    Stepped::new(row, Vec::new())
}

#[tokio::test]
async fn what_is_heard_of_after_the_end_was_before_it() {
    let (a, _b) = World::new().pair().await;
    let (mut driver, lane, open) = reading(&a).await;
    driver.lanes.remove(&lane);
    let late = Stepped::new(open.row.clone(), vec![Effect::Publish]);
    driver.handle(Work::Stepped(open.clone()));
    driver.handle(Work::Stepped(ended(&open)));
    driver.handle(Work::Stepped(late.clone()));
    driver.handle(Work::Direct(late));
    assert!(driver.entries.is_empty() && driver.lanes.is_empty(), "it has ended");
    // It may be begun again, and an end of before does not end that.
    let before = ended(&open);
    driver.handle(Work::Stepped(Stepped::new(open.row.clone(), Vec::new())));
    driver.handle(Work::Stepped(before));
    assert!(driver.entries.contains_key(&open.key()));
}

#[tokio::test]
async fn what_a_late_step_asks_for_is_done_while_nothing_else_is() {
    let (a, _b) = World::new().pair().await;
    let (mut driver, lane, open) = reading(&a).await;
    driver.lanes.remove(&lane);
    driver.lanes.entry(lane).or_default().busy = true;
    driver.handle(Work::Stepped(open.clone()));
    let (asks, later) = (Stepped::new(open.row.clone(), vec![Effect::Publish]), Stepped::new(open.row.clone(), vec![]));
    driver.handle(Work::Stepped(later));
    driver.handle(Work::Stepped(asks));
    assert_eq!(driver.entries[&open.key()].need, Some(Need::Publish));
}

#[tokio::test]
async fn what_the_broker_took_after_its_next_try_was_due_is_looked_after() {
    let (a, _b) = World::new().pair().await;
    let (mut driver, lane, open) = reading(&a).await;
    let (key, now_ms) = (open.key(), a.post.clock.now_ms());
    driver.lanes.remove(&lane);
    // Somebody works on what is before it.
    driver.lanes.entry(lane).or_default().busy = true;
    driver.handle(Work::Stepped(Stepped::new(open.row.clone(), vec![Effect::Publish])));
    let mut stored = open.row;
    stored.delivery.state =
        State::Stored { seal_attempt: 0, republish_count: 0, since_ms: now_ms, next_at_ms: now_ms, backoff_prev_ms: 0 };
    driver.handle(Work::Stepped(Stepped::new(stored, vec![Effect::ScheduleAt { at_ms: now_ms }])));
    assert_eq!(driver.waits_for_room(key), None, "its own time counts");
}

#[tokio::test]
async fn what_ends_while_its_page_is_read_does_not_come_back_with_it() {
    let (a, _b) = World::new().pair().await;
    let (mut driver, lane, open) = reading(&a).await;
    driver.handle(Work::Stepped(ended(&open)));
    let end = (open.row.sequence, open.row.msg_id);
    driver.handle(Work::Page(Page { lane, steps: vec![open], end, is_last: true }));
    assert!(driver.entries.is_empty() && driver.lanes.is_empty(), "nothing waits in the lane");
}

#[tokio::test]
async fn what_comes_while_a_page_is_read_is_read_with_the_next_one() {
    let (a, _b) = World::new().pair().await;
    let (mut driver, lane, open) = reading(&a).await;
    let place = (open.row.sequence, open.row.msg_id);
    driver.handle(Work::Stepped(open.clone()));
    // The page may have it as it was before.
    driver.handle(Work::Page(Page { lane, steps: vec![open], end: place, is_last: true }));
    assert!(driver.entries.is_empty());
    let Rest::Reading { behind, left: None } = driver.lanes[&lane].rest else { panic!("the next page is read") };
    assert!(behind < place);
}
