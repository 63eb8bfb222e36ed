//! Turns of agents that nodes run: orders to come for work, crashes, and what a kill leaves alone.

use murmur_core::reason::Reason;
use murmur_proto::v1::{self, order::Item};
use tonic::{Response, Status};

use crate::{
    agents::{Runner, Speaking, ready, report, spec},
    queue::add,
    tasks::{create, list},
    world::{Owner, World, reason},
};

async fn claim(world: &World, runner: &Runner, order: &v1::Order) -> Result<v1::ClaimTurnResponse, Status> {
    let request =
        v1::ClaimTurnRequest { agent_id: order.agent_id.clone(), incarnation: order.incarnation, single: false };
    runner.node.client(world).runtime.claim_turn(request).await.map(Response::into_inner)
}

async fn complete(world: &World, runner: &Runner, order: &v1::Order, turn_id: &str) -> Result<(), Status> {
    let (agent_id, incarnation) = (order.agent_id.clone(), order.incarnation);
    let request = v1::CompleteTurnRequest { agent_id, incarnation, turn_id: turn_id.into() };
    runner.node.client(world).runtime.complete_turn(request).await.map(drop)
}

/// An agent `x` that runs, its node, and whoever may write to it.
async fn running(world: &World) -> (Owner, Runner, Speaking, v1::Order) {
    let (owner, mut runner, user) = ready(world).await;
    user.spawn("x").await.unwrap();
    let order = runner.run(world).await;
    (owner, runner, user, order)
}

#[tokio::test]
async fn work_that_comes_after_a_claim_is_told_again_although_the_order_is_not_reported_as_done() {
    let world = World::start().await;
    let (_owner, mut runner, user, order) = running(&world).await;
    user.queue_add("x").await.unwrap();
    let first = runner.order().await;
    assert!(matches!(first.item, Some(Item::Drain(_))));
    let turn = claim(&world, &runner, &order).await.unwrap();
    complete(&world, &runner, &order, &turn.turn_id).await.unwrap();
    assert_eq!(claim(&world, &runner, &order).await.unwrap().turn_id, "");
    user.queue_add("x").await.unwrap();
    let second = runner.order().await;
    assert!(matches!(second.item, Some(Item::Drain(_))));
    assert!(second.order_id > first.order_id);
}

#[tokio::test]
async fn what_a_process_did_not_take_before_it_slept_wakes_it_and_comes_again_marked() {
    let world = World::start().await;
    let (_owner, runner, user, order) = running(&world).await;
    let mut runner = runner;
    user.queue_add("x").await.unwrap();
    let lost = claim(&world, &runner, &order).await.unwrap();
    assert!(!lost.follow_ups[0].redelivered);
    let asleep = [v1::Phase::Idle, v1::Phase::Sleeping].map(|phase| report(&order, phase));
    runner.tell(&world, asleep.into()).await.unwrap();
    let woken = user.status("x").await.unwrap();
    assert_eq!((woken.phase(), woken.incarnation, woken.queued), (v1::Phase::Starting, 2, 1));
    assert_eq!(reason(claim(&world, &runner, &order).await), Reason::IncarnationStale);
    assert_eq!(reason(complete(&world, &runner, &order, &lost.turn_id).await), Reason::IncarnationStale);
    let again = v1::Order { incarnation: 2, ..order };
    let turn = claim(&world, &runner, &again).await.unwrap();
    assert_eq!(turn.follow_ups.len(), 1);
    assert!(turn.follow_ups[0].redelivered);
    complete(&world, &runner, &again, &turn.turn_id).await.unwrap();
    assert_eq!(user.status("x").await.unwrap().queued, 0);
}

#[tokio::test]
async fn a_kill_fences_checklist_and_queue_and_a_resurrected_agent_finds_both() {
    let world = World::start().await;
    let (owner, mut runner, user, order) = running(&world).await;
    let person = world.person(&owner, "jdoe").await;
    create(&person, "x", "before").await.unwrap();
    for text in ["one", "two"] {
        add(&person, "x", text).await.unwrap();
    }
    let turn = claim(&world, &runner, &order).await.unwrap();
    user.kill("x").await.unwrap();
    for (fenced, why) in [(false, Reason::AgentDestroying), (true, Reason::AgentEnded)] {
        if fenced {
            runner.tell(&world, vec![report(&order, v1::Phase::Canceled)]).await.unwrap();
        }
        assert_eq!(reason(create(&person, "x", "too late").await), why);
        let change = v1::UpdateTaskRequest {
            slug: "x".into(),
            task_id: "1".into(),
            status: Some(v1::TaskStatus::Completed.into()),
            ..v1::UpdateTaskRequest::default()
        };
        assert_eq!(reason(person.clone().tasks.update_task(change).await), why);
        assert_eq!(reason(add(&person, "x", "too late").await), why);
        let clear = v1::ClearQueueRequest { slug: "x".into() };
        assert_eq!(reason(person.clone().queue.clear_queue(clear).await), why);
        assert_eq!(reason(claim(&world, &runner, &order).await), why);
        assert_eq!(reason(complete(&world, &runner, &order, &turn.turn_id).await), why);
        assert_eq!(list(&person, "x", false).await.unwrap().len(), 1);
    }

    let request = v1::SpawnAgentRequest { slug: "x".into(), spec: Some(spec()), resurrect: true, ..Default::default() };
    user.spawn_with(request).await.unwrap();
    assert_eq!(list(&person, "x", true).await.unwrap()[0].subject, "before");
    let again = v1::Order { incarnation: 2, ..order };
    let turn = claim(&world, &runner, &again).await.unwrap();
    let texts: Vec<_> = turn.follow_ups.iter().map(|entry| (entry.description.as_str(), entry.redelivered)).collect();
    assert_eq!(texts, [("one", true), ("two", true), ("do it", false)]);
}

#[tokio::test]
async fn a_turn_takes_as_much_as_the_agents_strategy_says() {
    let world = World::start().await;
    let (owner, mut runner, user) = ready(&world).await;
    let person = world.person(&owner, "jdoe").await;
    for (slug, strategy, taken) in [
        ("auto", v1::DequeueStrategy::Auto, 5),
        ("all", v1::DequeueStrategy::All, 7),
        ("one", v1::DequeueStrategy::One, 1),
        ("five", v1::DequeueStrategy::Five, 5),
        ("default", v1::DequeueStrategy::Unspecified, 5),
    ] {
        let spec =
            v1::AgentSpec { dequeue_strategy: strategy.into(), tasks: vec!["first".into(), "second".into()], ..spec() };
        let request = v1::SpawnAgentRequest { slug: slug.into(), spec: Some(spec), ..Default::default() };
        user.spawn_with(request).await.unwrap();
        // What came with the spawn is its checklist.
        let items = list(&person, slug, true).await.unwrap();
        assert_eq!(items.iter().map(|item| item.subject.as_str()).collect::<Vec<_>>(), ["first", "second"]);
        let order = runner.run(&world).await;
        for number in 0..7 {
            add(&person, slug, &number.to_string()).await.unwrap();
        }
        assert!(matches!(runner.order().await.item, Some(Item::Drain(_))));
        assert_eq!(claim(&world, &runner, &order).await.unwrap().follow_ups.len(), taken, "{slug}");
    }
}
