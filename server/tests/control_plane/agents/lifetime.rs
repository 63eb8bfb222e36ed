//! What happens by itself: lost nodes, used-up budgets, idle agents, sleepers that are woken.

use murmur_core::reason::Reason;
use murmur_proto::v1::{self, watch_agent_status_response::Item};
use tonic::Streaming;

use super::{Speaking, lose, ready, report, spec};
use crate::{
    sessions::{Open, hello},
    world::{World, next, reason},
};

/// Reads a watch until the agent is in a phase.
async fn until(watch: &mut Streaming<v1::WatchAgentStatusResponse>, slug: &str, phase: v1::Phase) -> v1::AgentStatus {
    loop {
        if let Some(Item::Agent(agent)) = next(watch).await.item
            && agent.slug.ends_with(slug)
            && agent.phase() == phase
        {
            return agent;
        }
    }
}

#[tokio::test]
async fn agents_of_a_node_that_stays_away_have_failed_and_no_sooner() {
    let world = World::start().await;
    let (owner, mut runner, user) = ready(&world).await;
    user.spawn("works").await.unwrap();
    let order = runner.run(&world).await;
    user.spawn("starts").await.unwrap();
    user.spawn("idles").await.unwrap();
    runner.order().await;
    let idles = runner.run(&world).await;
    runner.tell(&world, vec![report(&idles, v1::Phase::Idle)]).await.unwrap();
    runner.node.agent(&world, "alice").await;
    lose(&world, &owner, &mut runner).await;
    let mut watch = user.watch().await;
    world.clock.advance(89_999);
    assert_eq!(user.status("works").await.unwrap().phase(), v1::Phase::Running);
    world.clock.advance(1);
    let lost = until(&mut watch, "/works", v1::Phase::Failed).await;
    assert!(lost.reason.starts_with("node_lost"), "{}", lost.reason);
    assert_eq!(user.status("starts").await.unwrap().phase(), v1::Phase::Failed);
    // Nothing of theirs was at work.
    assert_eq!(user.status("idles").await.unwrap().phase(), v1::Phase::Idle);
    assert_eq!(user.status("alice").await.unwrap().phase(), v1::Phase::Idle);

    // What the node says later of that incarnation is dropped, and it is told to end the process.
    let _session = Open::welcome(&world, &runner.node, hello(9)).await;
    assert!(runner.tell(&world, vec![report(&order, v1::Phase::TaskComplete)]).await.unwrap()[0].stale);
    let running = |order: &v1::Order| v1::RunningAgent { agent_id: order.agent_id.clone(), incarnation: 1 };
    let facts = v1::ReportNodeRequest { running: vec![running(&order), running(&idles)], ..super::facts(10) };
    let stop = runner.node.client(&world).runtime.report_node(facts).await.unwrap().into_inner().stop;
    assert_eq!(stop, [running(&order)]);
}

#[tokio::test]
async fn a_node_that_comes_back_in_time_loses_nothing() {
    let world = World::start().await;
    let (owner, mut runner, user) = ready(&world).await;
    user.spawn("works").await.unwrap();
    let order = runner.run(&world).await;
    lose(&world, &owner, &mut runner).await;
    world.clock.advance(80_000);
    let session = Open::welcome(&world, &runner.node, hello(9)).await;
    world.clock.advance(80_000);
    let told = runner.tell(&world, vec![report(&order, v1::Phase::TaskComplete)]).await.unwrap().remove(0);
    assert!(!told.stale && told.refused.is_empty());
    drop(session);
}

#[tokio::test]
async fn timers_survive_a_restart_of_the_control_plane() {
    let world = World::start().await;
    let (_owner, mut runner, user) = ready(&world).await;
    let timed = v1::AgentSpec {
        budget: Some(v1::Budget {
            timeout: Some(prost_types::Duration { seconds: 3600, nanos: 0 }),
            ..v1::Budget::default()
        }),
        ..spec()
    };
    user.spawn("lost").await.unwrap();
    runner.run(&world).await;
    let request = v1::SpawnAgentRequest { slug: "timed".into(), spec: Some(timed), ..Default::default() };
    user.spawn_with(request).await.unwrap();
    let order = runner.run(&world).await;
    runner.tell(&world, vec![report(&order, v1::Phase::Idle)]).await.unwrap();

    let world = world.restart().await;
    let user = Speaking::user(&world, &runner.node);
    let mut watch = user.watch().await;
    world.clock.advance(90_000);
    assert!(until(&mut watch, "/lost", v1::Phase::Failed).await.reason.starts_with("node_lost"));
    // The node is back, so that it is waited for.
    let _session = Open::welcome(&world, &runner.node, hello(9)).await;
    world.clock.advance(3600 * 1000);
    let over = until(&mut watch, "/timed", v1::Phase::Destroying).await;
    assert_eq!(over.reason, "budget: its time is used up");
    runner.listen(&world).await;
    let stop = runner.order().await;
    assert!(matches!(&stop.item, Some(v1::order::Item::Stop(stop)) if stop.end() == v1::Phase::Failed));
    assert_eq!(runner.became(&world, &stop, v1::Phase::Canceled).await.phase(), v1::Phase::Failed);
}

#[tokio::test]
async fn an_end_that_its_node_does_not_tell_of_is_not_waited_for() {
    let world = World::start().await;
    let (_owner, mut runner, user) = ready(&world).await;
    user.spawn("deaf").await.unwrap();
    runner.run(&world).await;
    let mut watch = user.watch().await;
    user.kill("deaf").await.unwrap();
    until(&mut watch, "/deaf", v1::Phase::Destroying).await;
    world.clock.advance(5 * 60_000 - 1);
    assert_eq!(user.status("deaf").await.unwrap().phase(), v1::Phase::Destroying);
    world.clock.advance(1);
    until(&mut watch, "/deaf", v1::Phase::Canceled).await;
}

#[tokio::test]
async fn turns_and_money_run_out() {
    let world = World::start().await;
    let (_owner, mut runner, user) = ready(&world).await;
    let budget = v1::Budget { max_turns: 1, max_cost_micros: 100, ..v1::Budget::default() };
    for slug in ["turns", "money"] {
        let spec = Some(v1::AgentSpec { budget: Some(budget), ..spec() });
        user.spawn_with(v1::SpawnAgentRequest { slug: slug.into(), spec, ..Default::default() }).await.unwrap();
    }
    let (turns, money) = (runner.order().await, runner.order().await);
    let turn = |order: &v1::Order| v1::AgentReport {
        current_description: "next".into(),
        order_ids: vec![order.order_id],
        ..report(order, v1::Phase::Running)
    };
    let told = runner.tell(&world, vec![turn(&turns), report(&turns, v1::Phase::TaskComplete)]).await.unwrap();
    assert_eq!(told[1].phase(), v1::Phase::TaskComplete);
    assert_eq!(runner.tell(&world, vec![turn(&turns)]).await.unwrap()[0].phase(), v1::Phase::Destroying);
    let status = user.status("turns").await.unwrap();
    assert_eq!((status.turns, status.reason.as_str()), (2, "budget: 1 turns are used up"));

    let output = Some(v1::AgentOutput { cost_micros: 101, ..v1::AgentOutput::default() });
    let spent = v1::AgentReport { output, ..turn(&money) };
    assert_eq!(runner.tell(&world, vec![spent]).await.unwrap()[0].phase(), v1::Phase::Destroying);
    for _ in 0..2 {
        assert!(matches!(runner.order().await.item, Some(v1::order::Item::Stop(_))));
    }
}

#[tokio::test]
async fn an_idle_agent_sleeps_ends_or_stays_as_it_was_told() {
    let world = World::start().await;
    let (_owner, mut runner, user) = ready(&world).await;
    for (slug, on_idle) in
        [("sleeps", v1::OnIdle::Sleep), ("ends", v1::OnIdle::Terminate), ("stays", v1::OnIdle::KeepAlive)]
    {
        let spec = Some(v1::AgentSpec { on_idle: on_idle.into(), ..spec() });
        user.spawn_with(v1::SpawnAgentRequest { slug: slug.into(), spec, ..Default::default() }).await.unwrap();
        let order = runner.run(&world).await;
        runner.tell(&world, vec![report(&order, v1::Phase::Idle)]).await.unwrap();
        match on_idle {
            v1::OnIdle::Sleep => {
                let stop = runner.order().await;
                assert!(matches!(&stop.item, Some(v1::order::Item::Stop(stop)) if stop.end() == v1::Phase::Sleeping));
                assert_eq!(runner.became(&world, &stop, v1::Phase::Sleeping).await.phase(), v1::Phase::Sleeping);
            }
            v1::OnIdle::Terminate => {
                let stop = runner.order().await;
                assert!(matches!(&stop.item, Some(v1::order::Item::Stop(stop)) if stop.end() == v1::Phase::Completed));
                assert_eq!(runner.became(&world, &stop, v1::Phase::Completed).await.phase(), v1::Phase::Completed);
            }
            _ => assert_eq!(user.status(slug).await.unwrap().phase(), v1::Phase::Idle),
        }
    }
}

#[tokio::test]
async fn work_wakes_a_sleeper_as_a_new_incarnation_and_drains_whoever_is_awake() {
    let world = World::start().await;
    let (_owner, mut runner, user) = ready(&world).await;
    user.spawn("x").await.unwrap();
    let order = runner.run(&world).await;
    // One order for any number of entries, until the node took it.
    user.queue_add("x").await.unwrap();
    user.queue_add("x").await.unwrap();
    let drain = runner.order().await;
    assert!(matches!(drain.item, Some(v1::order::Item::Drain(_))));
    assert_eq!(user.status("x").await.unwrap().queued, 2);
    let claim = v1::ClaimTurnRequest { agent_id: order.agent_id.clone(), incarnation: 1, single: false };
    let mut client = runner.node.client(&world).runtime;
    let turn = client.claim_turn(claim.clone()).await.unwrap().into_inner();
    let complete =
        v1::CompleteTurnRequest { agent_id: order.agent_id.clone(), incarnation: 1, turn_id: turn.turn_id.clone() };
    client.complete_turn(complete).await.unwrap();
    assert_eq!(turn.follow_ups.len(), 2);
    let asleep = [v1::Phase::Idle, v1::Phase::Sleeping].map(|phase| report(&order, phase));
    runner.tell(&world, asleep.into()).await.unwrap();

    user.queue_add("x").await.unwrap();
    let woken = user.status("x").await.unwrap();
    assert_eq!((woken.phase(), woken.incarnation), (v1::Phase::Starting, 2));
    let start = runner.run(&world).await;
    assert!(matches!(&start.item, Some(v1::order::Item::Start(start)) if start.resume));
    assert_eq!(start.incarnation, 2);
    // The old incarnation has no say any more.
    assert!(runner.tell(&world, vec![report(&order, v1::Phase::Failed)]).await.unwrap()[0].stale);
    assert_eq!(reason(client.claim_turn(claim).await), Reason::IncarnationStale);
}

#[tokio::test]
async fn work_that_comes_while_an_agent_falls_asleep_wakes_it() {
    let world = World::start().await;
    let (_owner, mut runner, user) = ready(&world).await;
    user.spawn("x").await.unwrap();
    let order = runner.run(&world).await;
    runner.tell(&world, vec![report(&order, v1::Phase::Idle)]).await.unwrap();
    user.queue_add("x").await.unwrap();
    // The node had stopped the process before it heard of the work.
    let told = runner.tell(&world, vec![report(&order, v1::Phase::Sleeping)]).await.unwrap().remove(0);
    assert_eq!(told.phase(), v1::Phase::Starting);
    let start = loop {
        let order = runner.order().await;
        if matches!(order.item, Some(v1::order::Item::Start(_))) {
            break order;
        }
    };
    assert_eq!(start.incarnation, 2);
}
