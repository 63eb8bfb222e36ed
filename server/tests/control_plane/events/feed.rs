//! What nodes are told.

use murmur_core::reason::Reason;
use murmur_proto::v1::Phase;

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
    let refused = person.events.clone().watch_node_events(murmur_proto::v1::WatchNodeEventsRequest::default()).await;
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
    let progress = |label: &str| murmur_proto::v1::UpdateAgentStatusRequest {
        slug: "/u/jdoe/boss/child".into(),
        progress: Some(murmur_proto::v1::Progress { label: label.into(), ..Default::default() }),
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
