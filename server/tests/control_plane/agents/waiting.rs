//! Waiting for a phase.

use std::time::Duration;

use murmur_core::reason::Reason;
use murmur_proto::v1;

use super::{Speaking, ready, report};
use crate::world::{World, field, next, reason};

#[tokio::test]
async fn a_phase_that_holds_is_answered_at_once_and_another_when_it_comes() {
    let world = World::start().await;
    let (_owner, mut runner, user) = ready(&world).await;
    user.spawn("x").await.unwrap();
    let order = runner.run(&world).await;
    let held = next(&mut user.wait("x", &[v1::Phase::Running], 600).await.unwrap()).await;
    assert!(held.matched && !held.timed_out);

    let mut wait = user.wait("x", &[], 600).await.unwrap();
    let output = Some(v1::AgentOutput { response: "42".into(), ..v1::AgentOutput::default() });
    let done = v1::AgentReport { output, ..report(&order, v1::Phase::TaskComplete) };
    runner.tell(&world, vec![done]).await.unwrap();
    let answer = next(&mut wait).await;
    assert!(answer.matched && !answer.timed_out);
    let agent = answer.agent.unwrap();
    assert_eq!((agent.phase(), agent.output.unwrap().response.as_str()), (v1::Phase::TaskComplete, "42"));
    assert!(wait.message().await.unwrap().is_none(), "the answer is the only item");
}

#[tokio::test]
async fn a_phase_that_was_left_again_at_once_is_not_missed() {
    let world = World::start().await;
    let (_owner, mut runner, user) = ready(&world).await;
    user.spawn("x").await.unwrap();
    let order = runner.run(&world).await;
    let mut wait = user.wait("x", &[v1::Phase::TaskComplete], 600).await.unwrap();
    // All of it in one transaction: nobody ever reads the agent as task-complete.
    let phases = [v1::Phase::TaskComplete, v1::Phase::Idle].map(|phase| report(&order, phase));
    runner.tell(&world, phases.into()).await.unwrap();
    let answer = next(&mut wait).await;
    assert!(answer.matched);
    assert_eq!(answer.agent.unwrap().phase(), v1::Phase::Idle);
}

#[tokio::test]
async fn a_wait_never_answers_before_the_phase() {
    let world = World::start().await;
    let (_owner, mut runner, user) = ready(&world).await;
    user.spawn("x").await.unwrap();
    let order = runner.run(&world).await;
    let mut wait = user.wait("x", &[v1::Phase::Idle], 600).await.unwrap();
    for phase in [v1::Phase::TaskComplete, v1::Phase::Running, v1::Phase::ChecksPending] {
        runner.tell(&world, vec![report(&order, phase)]).await.unwrap();
        assert!(futures::FutureExt::now_or_never(wait.message()).is_none(), "{phase:?}");
    }
    runner.tell(&world, vec![report(&order, v1::Phase::Idle)]).await.unwrap();
    assert!(next(&mut wait).await.matched);
}

#[tokio::test]
async fn an_agent_with_work_before_it_is_not_done_whatever_its_phase_says() {
    let world = World::start().await;
    let (_owner, mut runner, user) = ready(&world).await;
    user.spawn("x").await.unwrap();
    let order = runner.run(&world).await;
    runner.tell(&world, vec![report(&order, v1::Phase::TaskComplete)]).await.unwrap();
    user.queue_add("x").await.unwrap();
    let mut waits = Vec::new();
    for phases in [&[][..], &[v1::Phase::TaskComplete]] {
        waits.push(user.wait("x", phases, 600).await.unwrap());
    }
    let mut none_answers = |at: &str| {
        for wait in &mut waits {
            assert!(futures::FutureExt::now_or_never(wait.message()).is_none(), "{at}");
        }
    };
    none_answers("it waits in the queue");
    let mut client = runner.node.client(&world).runtime;
    let (agent_id, incarnation) = (order.agent_id.clone(), order.incarnation);
    let claim = v1::ClaimTurnRequest { agent_id: agent_id.clone(), incarnation, single: false };
    let turn_id = client.claim_turn(claim).await.unwrap().into_inner().turn_id;
    none_answers("a turn has it");
    client.complete_turn(v1::CompleteTurnRequest { agent_id, incarnation, turn_id }).await.unwrap();
    none_answers("the runtime took it, and nobody heard that it runs");
    runner.tell(&world, vec![report(&order, v1::Phase::Running)]).await.unwrap();
    none_answers("it runs");
    runner.tell(&world, vec![report(&order, v1::Phase::TaskComplete)]).await.unwrap();
    for mut wait in waits {
        assert!(next(&mut wait).await.matched);
    }
}

#[tokio::test]
async fn the_end_of_a_turn_with_more_to_do_behind_it_is_no_answer_however_it_is_heard() {
    let world = World::start().await;
    let (_owner, mut runner, user) = ready(&world).await;
    user.spawn("x").await.unwrap();
    let order = runner.run(&world).await;
    user.queue_add("x").await.unwrap();
    let mut wait = user.wait("x", &[], 600).await.unwrap();
    let mut client = runner.node.client(&world).runtime;
    let (agent_id, incarnation) = (order.agent_id.clone(), order.incarnation);
    let claim = v1::ClaimTurnRequest { agent_id: agent_id.clone(), incarnation, single: false };
    let turn_id = client.claim_turn(claim).await.unwrap().into_inner().turn_id;
    client.complete_turn(v1::CompleteTurnRequest { agent_id, incarnation, turn_id }).await.unwrap();
    // The end of the first turn and the beginning of the next in one look.
    let phases = [v1::Phase::TaskComplete, v1::Phase::Running].map(|phase| report(&order, phase));
    runner.tell(&world, phases.into()).await.unwrap();
    assert!(futures::FutureExt::now_or_never(wait.message()).is_none());
    runner.tell(&world, vec![report(&order, v1::Phase::TaskComplete)]).await.unwrap();
    let answer = next(&mut wait).await;
    assert_eq!((answer.matched, answer.agent.unwrap().phase()), (true, v1::Phase::TaskComplete));
}

#[tokio::test]
async fn a_turn_that_is_answered_twice_is_over_when_it_is_over() {
    let world = World::start().await;
    let (_owner, mut runner, user) = ready(&world).await;
    user.spawn("x").await.unwrap();
    let order = runner.run(&world).await;
    user.queue_add("x").await.unwrap();
    let mut wait = user.wait("x", &[], 600).await.unwrap();
    let mut client = runner.node.client(&world).runtime;
    let (agent_id, incarnation) = (order.agent_id.clone(), order.incarnation);
    let claim = v1::ClaimTurnRequest { agent_id: agent_id.clone(), incarnation, single: false };
    let turn_id = client.claim_turn(claim.clone()).await.unwrap().into_inner().turn_id;
    let phases = [v1::Phase::TaskComplete, v1::Phase::Running, v1::Phase::TaskComplete];
    runner.tell(&world, phases.map(|phase| report(&order, phase)).into()).await.unwrap();
    // The node looks for more before its word that the prompt was taken has come.
    assert_eq!(client.claim_turn(claim).await.unwrap().into_inner().turn_id, turn_id);
    assert!(futures::FutureExt::now_or_never(wait.message()).is_none());
    client.complete_turn(v1::CompleteTurnRequest { agent_id, incarnation, turn_id }).await.unwrap();
    assert!(next(&mut wait).await.matched);
}

#[tokio::test]
async fn a_timeout_is_an_answer_and_so_is_another_end() {
    let world = World::start().await;
    let (_owner, mut runner, user) = ready(&world).await;
    user.spawn("x").await.unwrap();
    let order = runner.run(&world).await;
    let mut wait = user.wait("x", &[v1::Phase::Idle], 5).await.unwrap();
    world.clock.advance(5_000);
    let answer = next(&mut wait).await;
    assert!(answer.timed_out && !answer.matched);
    assert_eq!(answer.agent.unwrap().phase(), v1::Phase::Running);

    let mut wait = user.wait("x", &[v1::Phase::Idle], 600).await.unwrap();
    runner.tell(&world, vec![report(&order, v1::Phase::Failed)]).await.unwrap();
    let answer = next(&mut wait).await;
    assert!(!answer.timed_out && !answer.matched, "it will never be idle");
    assert_eq!(answer.agent.unwrap().phase(), v1::Phase::Failed);
}

#[tokio::test]
async fn a_wait_for_itself_or_for_nobody_is_refused() {
    let world = World::start().await;
    let (_owner, mut runner, user) = ready(&world).await;
    let x = user.spawn("x").await.unwrap();
    runner.run(&world).await;
    let x = Speaking::agent(&world, &runner.node, &x.agent_id);
    assert_eq!(field(x.wait("self", &[], 1).await), "slug");
    assert_eq!(reason(x.wait("nobody", &[], 1).await), Reason::AgentNotFound);
    let mut long = user.wait("x", &[v1::Phase::Idle], 3601).await.unwrap();
    assert_eq!(field(long.message().await), "timeout");
    assert_eq!(field(user.wait("x", &[v1::Phase::Unspecified], 1).await), "phases");
}

#[tokio::test]
async fn a_slug_used_again_does_not_redirect_a_wait() {
    let world = World::start().await;
    let (_owner, mut runner, user) = ready(&world).await;
    let first = user.spawn("x").await.unwrap();
    let order = runner.run(&world).await;
    let mut wait = user.wait("x", &[v1::Phase::Running, v1::Phase::Completed], 600).await.unwrap();
    assert!(next(&mut wait).await.matched);
    let mut wait = user.wait("x", &[v1::Phase::Idle, v1::Phase::Completed], 600).await.unwrap();
    runner.tell(&world, vec![report(&order, v1::Phase::Completed)]).await.unwrap();
    let again = v1::SpawnAgentRequest {
        slug: "x".into(),
        spec: Some(super::spec()),
        force_new: true,
        ..v1::SpawnAgentRequest::default()
    };
    user.spawn_with(again).await.unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(30), next(&mut wait)).await.unwrap();
    assert_eq!(answer.agent.unwrap().agent_id, first.agent_id);
}

#[tokio::test]
async fn a_time_that_is_none_is_refused() {
    let world = World::start().await;
    let (_owner, mut runner, user) = ready(&world).await;
    user.spawn("x").await.unwrap();
    runner.run(&world).await;
    for seconds in [i64::MIN, i64::MIN + 1, -1] {
        assert_eq!(field(user.wait("x", &[], seconds).await), "timeout", "{seconds}");
    }
}
