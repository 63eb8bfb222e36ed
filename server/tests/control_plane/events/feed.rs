//! What nodes are told.

use murmur_core::reason::Reason;
use murmur_proto::v1::{self, Phase};

use super::{event, fed, feed, publish};
use crate::{
    agents::ready,
    world::{World, reason},
};

#[tokio::test]
async fn a_node_hears_of_its_agents_and_goes_on_from_what_it_stored() {
    let world = World::start().await;
    let (owner, runner, _) = ready(&world).await;
    let person = world.person(&owner, "jdoe").await;
    let other = crate::agents::Runner::start(&world, &owner, 2, crate::agents::facts(0)).await;
    runner.node.agent(&world, "alice").await;
    other.node.agent(&world, "bob").await;
    publish(&person, event("/u/jdoe/alice", "", "one")).await.unwrap();
    publish(&person, event("/u/jdoe/bob", "", "not here")).await.unwrap();
    let (mut stream, told) = feed(&world, &runner, 0).await;
    let [(position, one)] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!((one.text.as_str(), one.seq, one.kind.as_str()), ("one", 1, "notify"));
    publish(&person, event("/u/jdoe/alice", "", "two")).await.unwrap();
    let (second, two) = fed(&mut stream).await;
    assert_eq!((two.text.as_str(), two.seq), ("two", 2));
    assert!(second > *position);
    drop(stream);
    publish(&person, event("/u/jdoe/alice", "", "three")).await.unwrap();
    let world = world.restart().await;
    let (_stream, told) = feed(&world, &runner, *position).await;
    let texts: Vec<_> = told.iter().map(|(_, event)| event.text.as_str()).collect();
    assert_eq!(texts, ["two", "three"]);
}

#[tokio::test]
async fn a_newer_stream_takes_the_place_and_a_stranger_has_none() {
    let world = World::start().await;
    let (owner, runner, _) = ready(&world).await;
    let (mut first, _) = feed(&world, &runner, 0).await;
    let (_second, _) = feed(&world, &runner, 0).await;
    assert_eq!(reason(first.message().await), Reason::SessionReplaced);
    let person = world.person(&owner, "jdoe").await;
    let refused = person.events.clone().watch_node_events(v1::WatchNodeEventsRequest::default()).await;
    assert_eq!(reason(refused.map(|_| ())), Reason::ScopeMissing);
}

#[tokio::test]
async fn what_came_before_an_agent_had_a_node_is_told_to_the_node_that_it_gets() {
    let world = World::start().await;
    let owner = world.workspace("acme").await;
    let mut runner = crate::agents::Runner::start(&world, &owner, 1, crate::agents::facts(0)).await;
    let person = world.person(&owner, "jdoe").await;
    let user = crate::agents::Speaking::user(&world, &runner.node);
    user.spawn("/u/jdoe/waits").await.unwrap();
    publish(&person, event("/u/jdoe/waits", "", "early")).await.unwrap();
    // Its node's order moves on meanwhile.
    runner.node.agent(&world, "alice").await;
    publish(&person, event("/u/jdoe/alice", "", "later")).await.unwrap();
    let (mut stream, told) = feed(&world, &runner, 0).await;
    assert_eq!(told.len(), 1);
    runner.node.client(&world).runtime.report_node(crate::agents::facts(5)).await.unwrap();
    runner.run(&world).await;
    let (position, early) = fed(&mut stream).await;
    assert_eq!(early.text, "early");
    assert!(position > told[0].0);
}

#[tokio::test]
async fn what_is_superseded_or_fleeting_is_not_told_late() {
    let world = World::start().await;
    let (_, mut runner, user) = ready(&world).await;
    runner.node.agent(&world, "boss").await;
    user.spawn("/u/jdoe/boss/child").await.unwrap();
    let order = runner.run(&world).await;
    let progress = |label: &str| v1::UpdateAgentStatusRequest {
        slug: "/u/jdoe/boss/child".into(),
        progress: Some(v1::Progress { label: label.into(), ..Default::default() }),
        ..Default::default()
    };
    user.update(progress("reading")).await.unwrap();
    let (mut stream, told) = feed(&world, &runner, 0).await;
    let phases: Vec<_> = told.iter().map(|(_, event)| event.attributes["phase"].as_str()).collect();
    assert_eq!(phases, ["running"], "one, the newest, and no progress");
    user.update(progress("writing")).await.unwrap();
    let (_, now) = fed(&mut stream).await;
    assert_eq!((now.kind.as_str(), now.attributes["label"].as_str()), ("progress", "writing"));
    runner.became(&world, &order, Phase::TaskComplete).await;
    let (_, done) = fed(&mut stream).await;
    assert_eq!(done.attributes["phase"], "task-complete");
}

/// The slug of whose failure an event tells, and in whose name it comes.
fn failure(event: &v1::Event) -> (&str, &str) {
    assert_eq!((event.kind.as_str(), event.attributes["phase"].as_str()), ("child_lifecycle", "failed"), "{event:?}");
    (event.attributes["child"].rsplit_once("jdoe/").unwrap().1, event.slug.rsplit_once("jdoe/").unwrap().1)
}

#[tokio::test]
async fn an_end_that_no_node_saw_is_told_once_to_each_node_of_the_account() {
    let world = World::start().await;
    let (owner, mut runner, user) = ready(&world).await;
    let other = crate::agents::Runner::start(&world, &owner, 2, crate::agents::facts(0)).await;
    let stranger = world.node(&owner, "eve", 3).await;
    let stranger = crate::sessions::Open::welcome(&world, &stranger, crate::sessions::hello(3)).await;
    other.node.agent(&world, "boss").await;
    for slug in ["/u/jdoe/lone", "/u/jdoe/boss/child"] {
        user.spawn(slug).await.unwrap();
        runner.run(&world).await;
    }
    let never = v1::AgentSpec {
        labels: vec!["gpu".into()],
        budget: Some(v1::Budget {
            timeout: Some(prost_types::Duration { seconds: 30, nanos: 0 }),
            ..v1::Budget::default()
        }),
        ..crate::agents::spec()
    };
    let never = v1::SpawnAgentRequest { slug: "/u/jdoe/never".into(), spec: Some(never), ..Default::default() };
    user.spawn_with(never).await.unwrap();
    let (mut stream, before) = feed(&world, &other, 0).await;
    let begun = before.last().unwrap().0;
    world.clock.advance(30_000);
    let (_, event) = fed(&mut stream).await;
    assert_eq!(failure(&event), ("never", "never"));
    assert!(event.attributes["reason"].starts_with("budget"), "{event:?}");

    crate::agents::lose(&world, &owner, &mut runner).await;
    world.clock.advance(90_000);
    let mut lost = [fed(&mut stream).await.1, fed(&mut stream).await.1];
    lost.sort_by(|one, other| one.slug.cmp(&other.slug));
    // One from the parent's log, which stands on this node, and one for the node's people.
    assert_eq!(lost.each_ref().map(failure), [("boss/child", "boss"), ("lone", "lone")]);
    assert!(lost.iter().all(|event| event.attributes["reason"].starts_with("node_lost")), "{lost:?}");
    drop((stream, stranger));

    // Rows, not words: told to whoever was away, and to nobody again who has stored them.
    let world = world.restart().await;
    let (_stream, told) = feed(&world, &other, begun).await;
    assert_eq!(told.len(), 3, "each once: {told:?}");
    let (_stream, nothing) = feed(&world, &other, told[2].0).await;
    assert_eq!(nothing, []);
    let (_stream, own) = feed(&world, &runner, 0).await;
    let mut own: Vec<_> = own.iter().map(|(_, event)| failure(event)).collect();
    own.sort_unstable();
    assert_eq!(own, [("boss/child", "boss/child"), ("lone", "lone"), ("never", "never")]);
    let log = super::log(&world.person(&owner, "jdoe").await, "/u/jdoe/lone", true).await;
    assert_eq!(log, [], "no agent's log holds them");
}
