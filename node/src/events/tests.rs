use murmur_core::limits::EVENTS_KEPT_MAX;

use super::*;
use crate::store::StoreOptions;

const A: AgentId = AgentId::from_bytes([1; 16]);
const B: AgentId = AgentId::from_bytes([2; 16]);

fn events() -> (tempfile::TempDir, Arc<Events>) {
    let home = tempfile::tempdir().unwrap();
    let events = reopened(&home);
    (home, events)
}

fn reopened(home: &tempfile::TempDir) -> Arc<Events> {
    let clock = Clock::system();
    let options = StoreOptions { readers: 1, pages_max: None, now_ms: clock.now_ms() };
    Events::new(Store::open(&home.path().join("store.db"), &options).unwrap(), clock)
}

fn event(agent: AgentId, id: &str, kind: &str, attributes: &[(&str, &str)]) -> v1::Event {
    v1::Event {
        event_id: id.to_owned(),
        agent_id: agent.to_string(),
        kind: kind.to_owned(),
        time: Some(timestamp(Clock::system().now_ms())),
        text: id.to_owned(),
        attributes: attributes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        ..v1::Event::default()
    }
}

fn notify(agent: AgentId, id: &str) -> v1::Event {
    event(agent, id, "notify", &[])
}

/// Everything that a feed has to tell by now.
async fn drained(feed: &mut Feed) -> Vec<Told> {
    let mut told = Vec::new();
    loop {
        feed.fill().await.unwrap();
        match feed.pop() {
            Some(next) => told.push(next),
            None => return told,
        }
    }
}

/// Texts, with `*` for what was told as a replay and the number of what is only counted.
fn shown(told: &[Told]) -> Vec<String> {
    told.iter()
        .map(|told| match told {
            Told::Event(event) => format!("{}{}", event.event.text, if event.replay { "*" } else { "" }),
            Told::Summary(summary) => format!("+{}", summary.more),
            Told::Answer(answer) => format!("{}={}", answer.request_id, answer.allow),
        })
        .collect()
}

#[tokio::test]
async fn a_session_is_told_what_waits_and_then_what_comes_and_nothing_of_others() {
    let (_home, events) = events();
    events.take(vec![notify(A, "one"), notify(B, "other"), notify(A, "two")], 3).await.unwrap();
    let mut feed = events.feed(A, String::new());
    assert_eq!(shown(&drained(&mut feed).await), ["one*", "two*"]);
    events.take(vec![notify(A, "three"), notify(A, "two")], 5).await.unwrap();
    feed.changed().await;
    assert_eq!(shown(&drained(&mut feed).await), ["three"]);
}

#[tokio::test]
async fn what_was_not_acknowledged_is_told_again_over_a_restart_and_what_was_is_not() {
    let (home, events) = events();
    events.take((1..=4).map(|number| notify(A, &format!("e{number}"))).collect(), 9).await.unwrap();
    let mut feed = events.feed(A, String::new());
    let told = drained(&mut feed).await;
    let Told::Event(second) = &told[1] else { panic!("an event was expected") };
    events.acknowledge(A, second.cursor, Vec::new(), Vec::new()).await.unwrap();
    drop((feed, events));

    let events = reopened(&home);
    assert_eq!(events.store.read(table::position).await.unwrap(), 9);
    assert_eq!(shown(&drained(&mut events.feed(A, String::new())).await), ["e3*", "e4*"]);
    // The control plane tells again what this node did not say that it has.
    events.take((1..=4).map(|number| notify(A, &format!("e{number}"))).collect(), 9).await.unwrap();
    assert_eq!(shown(&drained(&mut events.feed(A, String::new())).await), ["e3*", "e4*"]);
    assert_eq!(events.unread(A).await.unwrap(), 4, "told is not read");
}

#[tokio::test]
async fn a_long_replay_is_fifty_and_one_line() {
    let (_home, events) = events();
    events.take((0..60).map(|number| notify(A, &format!("e{number}"))).collect(), 60).await.unwrap();
    let mut feed = events.feed(A, String::new());
    let told = drained(&mut feed).await;
    assert_eq!((told.len(), shown(&told)[0].as_str(), shown(&told)[50].as_str()), (51, "e0*", "+10"));
    let Told::Summary(summary) = told[50] else { panic!("a summary was expected") };
    events.acknowledge(A, summary.cursor, Vec::new(), Vec::new()).await.unwrap();
    assert!(drained(&mut events.feed(A, String::new())).await.is_empty());
    assert_eq!(events.list(A, ListQuery::default()).await.unwrap().events.len(), 60, "they can still be read");
}

#[tokio::test]
async fn what_was_dropped_unseen_is_said() {
    let (_home, events) = events();
    let count = usize::try_from(EVENTS_KEPT_MAX).unwrap() + 3;
    events.take((0..count).map(|number| notify(A, &format!("e{number}"))).collect(), 1).await.unwrap();
    let told = drained(&mut events.feed(A, String::new())).await;
    let Some(Told::Summary(summary)) = told.last() else { panic!("a summary was expected") };
    assert_eq!((summary.lost, summary.more), (3, EVENTS_KEPT_MAX - 50));
    assert_eq!(events.list(A, ListQuery { peek: true, ..ListQuery::default() }).await.unwrap().lost, 3);
    events.acknowledge(A, summary.cursor, Vec::new(), Vec::new()).await.unwrap();
    assert_eq!(events.list(A, ListQuery::default()).await.unwrap().lost, 0);
}

#[tokio::test]
async fn of_a_moment_only_the_latest_is_told_and_nothing_later() {
    let (_home, events) = events();
    let progress = |id: &str, child: &str| event(A, id, "progress", &[("child", child)]);
    let mut feed = events.feed(A, String::new());
    feed.fill().await.unwrap();
    events.take(vec![progress("p1", "x"), progress("p2", "y"), progress("p3", "x"), notify(A, "n")], 4).await.unwrap();
    assert_eq!(shown(&drained(&mut feed).await), ["p2", "p3", "n"]);
    assert_eq!(shown(&drained(&mut events.feed(A, String::new())).await), ["n*"]);
}

#[tokio::test]
async fn a_newer_result_takes_the_place_of_the_one_before_it() {
    let (_home, events) = events();
    let ci = |id: &str, sha: &str| event(A, id, "ci_result", &[("repo", "o/r"), ("check", "test"), ("sha", sha)]);
    events.take(vec![ci("old", "1"), ci("other", "2"), ci("new", "1")], 3).await.unwrap();
    assert_eq!(shown(&drained(&mut events.feed(A, String::new())).await), ["other*", "new*"]);
    let all = events.list(A, ListQuery { all: true, ..ListQuery::default() }).await.unwrap();
    assert_eq!(all.events.iter().map(|event| event.event.superseded).collect::<Vec<_>>(), [true, false, false]);
}

#[tokio::test]
async fn old_news_say_that_they_are() {
    let (_home, events) = events();
    let before = |minutes: u64| Some(timestamp(Clock::system().now_ms() - minutes * 60_000));
    let old = v1::Event { time: before(31), ..event(A, "old", "ci_result", &[]) };
    let new = v1::Event { time: before(29), ..event(A, "new", "ci_result", &[]) };
    events.take(vec![old, new], 2).await.unwrap();
    let told = events.list(A, ListQuery::default()).await.unwrap().events;
    assert_eq!(told.iter().map(|event| event.event.stale).collect::<Vec<_>>(), [true, false]);
}

#[tokio::test]
async fn what_was_read_is_not_told_and_is_listed_once() {
    let (_home, events) = events();
    events.take(vec![notify(A, "one"), notify(A, "two"), notify(A, "three")], 3).await.unwrap();
    let peeked = events.list(A, ListQuery { peek: true, limit: 2, ..ListQuery::default() }).await.unwrap();
    assert_eq!((peeked.events.len(), peeked.unread), (2, 3));
    let page = events.list(A, ListQuery { after: peeked.next_after, ..ListQuery::default() }).await.unwrap();
    assert_eq!((page.events[0].event.text.as_str(), page.unread), ("three", 2));
    assert_eq!(shown(&drained(&mut events.feed(A, String::new())).await), ["one*", "two*"]);
    assert_eq!(events.list(A, ListQuery::default()).await.unwrap().events.len(), 2);
    assert_eq!(events.list(A, ListQuery::default()).await.unwrap(), EventPage::default());
    assert_eq!(events.list(A, ListQuery { all: true, ..ListQuery::default() }).await.unwrap().events.len(), 3);
}

#[tokio::test]
async fn what_an_agent_has_as_work_is_not_told_as_well() {
    let (_home, events) = events();
    events.take(vec![v1::Event { queued: true, ..notify(A, "work") }, notify(A, "news")], 2).await.unwrap();
    assert_eq!(shown(&drained(&mut events.feed(A, String::new())).await), ["news*"]);
    let all = events.list(A, ListQuery { all: true, ..ListQuery::default() }).await.unwrap();
    assert_eq!(all.events.len(), 2);
}

#[tokio::test]
async fn an_event_that_names_no_agent_stops_no_other() {
    let (_home, events) = events();
    let broken = v1::Event { agent_id: "nobody".to_owned(), ..notify(A, "broken") };
    events.take(vec![broken, notify(A, "whole")], 2).await.unwrap();
    assert_eq!(events.unread(A).await.unwrap(), 1);
}
