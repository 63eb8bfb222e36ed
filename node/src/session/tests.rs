use bytes::Bytes;
use murmur_proto::v1;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    events::{Events, Told},
    post::{
        Draft, InboxQuery, Post,
        testing::{TestNode, World, carry, node_identity, store_of},
    },
    store::{Store, StoreOptions},
};

/// Sessions with a directory and a control plane of their own, which is away.
async fn sessions() -> (tempfile::TempDir, Arc<Sessions>) {
    let (home, clock) = (tempfile::tempdir().unwrap(), Clock::system());
    let options = StoreOptions { readers: 1, pages_max: None, now_ms: clock.now_ms() };
    let store = Store::open(&home.path().join("sessions.db"), &options).unwrap();
    let directory = Directory::load(node_identity(1, clock.now_ms()), store).await.unwrap();
    let channel = crate::rpc::control::channel("http://127.0.0.1:1", None).unwrap();
    (
        home,
        Sessions::new(
            directory,
            Control::new(channel, "token", murmur_core::id::Incarnation::from_bytes([1; 16])).unwrap(),
            clock,
        ),
    )
}

/// Sends from the only agent of one node to the only agent of the other, and waits until it is there.
async fn say(from: &TestNode, to: &TestNode, text: &'static str) {
    let (sender, recipient) = (from.agent(0), to.agent(0));
    let draft = Draft { to: recipient.slug.to_string(), body: Bytes::from(text), ..Draft::default() };
    let (sending, receiving) = (from.post.clone(), to.post.clone());
    let arrived = async {
        let mut changed = receiving.hub().watch(recipient.agent_id);
        sending.send(&sender, draft).await.unwrap();
        changed.changed().await.unwrap();
    };
    carry(&[from, to], arrived).await;
}

fn push(session: Session, post: &Arc<Post>) -> (Push, CancellationToken) {
    push_with(session, post, &events(post))
}

/// The logs of the node that has a post.
fn events(post: &Post) -> Arc<Events> {
    Events::new(store_of(post), Clock::system())
}

fn push_with(session: Session, post: &Arc<Post>, events: &Arc<Events>) -> (Push, CancellationToken) {
    let drain = CancellationToken::new();
    let feed = events.feed(session.agent().agent_id, String::new());
    (Push::new(session, post.clone(), feed, drain.clone()), drain)
}

/// Waits until the clock shows another millisecond, by which things are put in order.
fn tick() {
    let now_ms = Clock::system().now_ms();
    while Clock::system().now_ms() == now_ms {
        std::thread::yield_now();
    }
}

async fn happen(events: &Events, agent: AgentId, text: &str) {
    let event = v1::Event {
        agent_id: agent.to_string(),
        event_id: text.to_owned(),
        kind: "notify".to_owned(),
        text: text.to_owned(),
        ..v1::Event::default()
    };
    events.take(vec![event], 1).await.unwrap();
}

async fn next(push: &mut Push) -> (String, bool) {
    match push.next().await.unwrap() {
        Some(Pushed::Message(message)) => (String::from_utf8(message.body.to_vec()).unwrap(), message.redelivered),
        other => panic!("a message was expected, got {other:?}"),
    }
}

#[tokio::test]
async fn a_session_is_shown_what_waits_and_then_what_comes() {
    let (a, b) = World::new().pair().await;
    let (_home, sessions) = sessions().await;
    say(&a, &b, "one").await;
    say(&a, &b, "two").await;
    let (mut push, _drain) = push(sessions.attach(&b.agent(0), "first", false).unwrap(), &b.post);
    assert_eq!(next(&mut push).await, ("one".to_owned(), false));
    assert_eq!(next(&mut push).await, ("two".to_owned(), false));
    say(&a, &b, "three").await;
    assert_eq!(next(&mut push).await, ("three".to_owned(), false));
}

#[tokio::test]
async fn messages_and_events_are_told_in_the_order_in_which_they_came() {
    let (a, b) = World::new().pair().await;
    let (_home, sessions) = sessions().await;
    let (events, bob) = (events(&b.post), b.agent(0));
    say(&a, &b, "one").await;
    tick();
    happen(&events, bob.agent_id, "two").await;
    tick();
    say(&a, &b, "three").await;
    let (mut push, _drain) = push_with(sessions.attach(&bob, "first", false).unwrap(), &b.post, &events);
    let mut told = Vec::new();
    for later in ["", "", "", "four", "five"] {
        match later {
            "" => {}
            "four" => happen(&events, bob.agent_id, later).await,
            _ => say(&a, &b, later).await,
        }
        told.push(match push.next().await.unwrap() {
            Some(Pushed::Message(message)) => String::from_utf8(message.body.to_vec()).unwrap(),
            Some(Pushed::Told(Told::Event(told))) => told.event.text,
            other => panic!("a message or an event was expected, got {other:?}"),
        });
    }
    assert_eq!(told, ["one", "two", "three", "four", "five"]);
}

#[tokio::test]
async fn what_was_shown_and_not_read_is_shown_to_the_next_session_as_a_repeat() {
    let (a, b) = World::new().pair().await;
    let (_home, sessions) = sessions().await;
    say(&a, &b, "read").await;
    b.post.inbox(&b.agent(0), InboxQuery::default()).await.unwrap();
    say(&a, &b, "shown").await;
    let (mut first, _drain) = push(sessions.attach(&b.agent(0), "first", false).unwrap(), &b.post);
    assert_eq!(next(&mut first).await, ("shown".to_owned(), false));
    drop(first);
    let (mut second, _drain) = push(sessions.attach(&b.agent(0), "second", false).unwrap(), &b.post);
    assert_eq!(next(&mut second).await, ("shown".to_owned(), true));
}

#[tokio::test]
async fn a_second_session_is_refused_or_takes_over_and_the_first_is_told() {
    let b = World::new().node(2, &["bob"]).await;
    let (_home, sessions) = sessions().await;
    let bob = b.agent(0);
    let (mut first, _drain) = push(sessions.attach(&bob, "first", false).unwrap(), &b.post);
    let refused = sessions.attach(&bob, "second", false).err().unwrap();
    assert_eq!(refused.client, "first");

    let second = sessions.attach(&bob, "second", true).unwrap();
    match first.next().await.unwrap() {
        Some(Pushed::Closed(Closed::Replaced(replaced))) => assert_eq!(replaced.by_client, "second"),
        other => panic!("the first session must be told, got {other:?}"),
    }
    assert_eq!(first.next().await.unwrap(), None);
    drop(first);
    assert!(sessions.has(bob.agent_id), "the end of the first is not the end of the second");
    drop(second);
    assert!(!sessions.has(bob.agent_id));
    assert!(sessions.attach(&bob, "third", false).is_ok());
}

#[tokio::test]
async fn a_session_ends_with_its_agent() {
    let b = World::new().node(2, &["bob"]).await;
    let (_home, sessions) = sessions().await;
    let bob = b.agent(0);
    let (mut push, _drain) = push(sessions.attach(&bob, "first", false).unwrap(), &b.post);
    sessions.end(bob.agent_id);
    assert!(!sessions.has(bob.agent_id));
    assert_eq!(push.next().await.unwrap(), Some(Pushed::Closed(Closed::Ended)));
    assert_eq!(push.next().await.unwrap(), None);
    sessions.end(bob.agent_id);
    let _next = sessions.attach(&bob, "next", false).unwrap();
    drop(push);
    assert!(sessions.has(bob.agent_id), "the end of the old stream is not the end of the new session");
}

#[tokio::test]
async fn a_session_is_told_that_the_node_goes_down() {
    let b = World::new().node(2, &["bob"]).await;
    let (_home, sessions) = sessions().await;
    let (mut push, drain) = push(sessions.attach(&b.agent(0), "first", false).unwrap(), &b.post);
    drain.cancel();
    assert_eq!(push.next().await.unwrap(), Some(Pushed::Draining));
    assert_eq!(push.next().await.unwrap(), None);
}
