//! Ending: whole subtrees, once, with nobody born meanwhile.

use murmur_core::reason::Reason;
use murmur_proto::{client::ControlClient, v1};

use super::{Speaking, facts, ready, report, spec};
use crate::world::{World, next, reason};

#[tokio::test]
async fn a_kill_ends_the_whole_subtree_leaves_first_and_fences_it() {
    let world = World::start().await;
    let (_owner, mut runner, user) = ready(&world).await;
    let top = user.spawn("top").await.unwrap();
    let top_order = runner.run(&world).await;
    let speaking = Speaking::agent(&world, &runner.node, &top.agent_id);
    speaking.spawn("a").await.unwrap();
    let a_order = runner.run(&world).await;
    speaking.spawn("a/b").await.unwrap();
    let b_order = runner.run(&world).await;
    user.spawn("topper").await.unwrap();
    runner.run(&world).await;

    let killed = user.kill("top").await.unwrap();
    let slug = |path: &str| format!("/w/acme/u/jdoe/{path}");
    assert_eq!(killed.killed, [slug("top/a/b"), slug("top/a"), slug("top")]);
    assert_eq!(killed.pending, 3);
    assert_eq!(user.status("topper").await.unwrap().phase(), v1::Phase::Running);
    // Nothing is begun below it any more, by anybody.
    assert_eq!(reason(speaking.spawn("late").await), Reason::AgentDestroying);
    assert_eq!(reason(user.spawn("top/a/late").await), Reason::AgentDestroying);
    assert_eq!(reason(user.queue_add("top/a").await), Reason::AgentDestroying);
    assert_eq!(reason(runner.node.register(&world, "top/late").await), Reason::AgentDestroying);

    let again = user.kill("top").await.unwrap();
    assert_eq!((again.killed.len(), again.pending), (0, 3));
    for order in [b_order, a_order, top_order] {
        let stop = runner.order().await;
        assert_eq!(stop.agent_id, order.agent_id);
        let Some(v1::order::Item::Stop(what)) = &stop.item else { panic!("not a stop: {stop:?}") };
        assert_eq!((what.end(), what.reason.as_str()), (v1::Phase::Canceled, "killed"));
        // However the process ended, it is recorded as it was ordered.
        let told = runner.became(&world, &stop, v1::Phase::Failed).await;
        assert_eq!(told.phase(), v1::Phase::Canceled);
    }
    assert_eq!(user.kill("top").await.unwrap(), v1::KillAgentResponse::default());
    assert_eq!(reason(user.queue_add("top").await), Reason::AgentEnded);
    // The fence goes with the end.
    assert_eq!(reason(user.spawn("top/a").await), Reason::AgentEnded);
    user.spawn("top/new").await.unwrap();
}

#[tokio::test]
async fn a_kill_during_a_spawn_leaves_no_child_behind() {
    let world = World::start().await;
    let (_owner, mut runner, user) = ready(&world).await;
    let top = user.spawn("top").await.unwrap();
    runner.run(&world).await;
    let speaking = Speaking::agent(&world, &runner.node, &top.agent_id);
    let spawns = (0..8).map(|number| {
        let speaking = speaking.clone();
        tokio::spawn(async move { speaking.spawn(&format!("c{number}")).await })
    });
    let spawns: Vec<_> = spawns.collect();
    let killed = user.kill("top").await.unwrap().killed;
    for (number, spawn) in spawns.into_iter().enumerate() {
        let slug = format!("top/c{number}");
        match spawn.await.unwrap() {
            // Born before the kill, and killed with the rest.
            Ok(child) => {
                assert!(killed.contains(&child.slug), "{slug}");
                assert_eq!(user.status(&slug).await.unwrap().phase(), v1::Phase::Destroying);
            }
            Err(status) => {
                assert_eq!(reason::<()>(Err(status)), Reason::AgentDestroying);
                assert_eq!(reason(user.status(&slug).await), Reason::AgentNotFound);
            }
        }
    }
}

#[tokio::test]
async fn an_agent_ends_itself_and_what_is_below_it_and_nobody_else() {
    let world = World::start().await;
    let (_owner, mut runner, user) = ready(&world).await;
    let one = user.spawn("one").await.unwrap();
    runner.run(&world).await;
    user.spawn("two").await.unwrap();
    runner.run(&world).await;
    let one = Speaking::agent(&world, &runner.node, &one.agent_id);
    assert_eq!(reason(one.kill("two").await), Reason::AgentNotYours);
    assert_eq!(reason(one.interrupt("two").await), Reason::AgentNotYours);
    assert_eq!(reason(one.kill("/u/mallory/three").await), Reason::AgentNotFound);
    assert_eq!(one.kill("self").await.unwrap().killed, ["/w/acme/u/jdoe/one"]);
}

#[tokio::test]
async fn what_has_no_process_is_ended_at_once() {
    let world = World::start().await;
    let owner = world.workspace("acme").await;
    let node = world.node(&owner, "jdoe", 1).await;
    let user = Speaking::user(&world, &node);
    user.spawn("waits").await.unwrap();
    let alice = node.agent(&world, "alice").await;
    for slug in ["waits", "alice"] {
        let killed = user.kill(slug).await.unwrap();
        assert_eq!((killed.killed.len(), killed.pending), (1, 0), "{slug}");
        assert_eq!(user.status(slug).await.unwrap().phase(), v1::Phase::Canceled);
    }
    let found = v1::ResolveAgentRequest { slug: alice.slug };
    assert_eq!(reason(world.reader(&owner).await.directory.resolve_agent(found).await), Reason::AgentNotFound);
}

#[tokio::test]
async fn a_node_that_was_away_finds_the_tombstone() {
    let world = World::start().await;
    let (_owner, mut runner, user) = ready(&world).await;
    user.spawn("x").await.unwrap();
    // The start was never heard of; the end takes its place.
    drop(runner.session.take());
    let killed = user.kill("x").await.unwrap();
    assert_eq!(killed.pending, 1);
    let world = world.restart().await;
    runner.listen(&world).await;
    let order = runner.order().await;
    assert!(matches!(order.item, Some(v1::order::Item::Stop(_))), "{order:?}");
    runner.became(&world, &order, v1::Phase::Canceled).await;
    let user = Speaking::user(&world, &runner.node);
    assert_eq!(user.status("x").await.unwrap().phase(), v1::Phase::Canceled);
}

#[tokio::test]
async fn a_kill_does_not_wait_for_ever_for_a_node_that_stays_away() {
    let world = World::start().await;
    let (_owner, mut runner, user) = ready(&world).await;
    user.spawn("x").await.unwrap();
    let start = runner.run(&world).await;
    user.kill("x").await.unwrap();
    drop(runner.session.take());
    let world = world.restart().await;
    let user = Speaking::user(&world, &runner.node);
    let mut wait = user.wait("x", &[], 600).await.unwrap();
    world.clock.advance(90_000);
    let ended = next(&mut wait).await.agent.unwrap();
    assert_eq!((ended.phase(), ended.reason.as_str()), (v1::Phase::Canceled, "killed"));
    // Its name is free again, and the node is told when it says what it runs.
    let again = v1::SpawnAgentRequest { slug: "x".into(), spec: Some(spec()), force_new: true, ..Default::default() };
    user.spawn_with(again).await.unwrap();
    let still = v1::RunningAgent { agent_id: start.agent_id, incarnation: 1 };
    let facts = v1::ReportNodeRequest { running: vec![still.clone()], ..facts(10) };
    let stop = runner.node.client(&world).runtime.report_node(facts).await.unwrap().into_inner().stop;
    assert_eq!(stop, [still]);
}

#[tokio::test]
async fn a_turn_is_interrupted_once_and_only_while_it_runs() {
    let world = World::start().await;
    let (_owner, mut runner, user) = ready(&world).await;
    user.spawn("x").await.unwrap();
    assert_eq!(reason(user.interrupt("x").await), Reason::AgentNotRunning);
    let start = runner.run(&world).await;
    assert!(user.interrupt("x").await.unwrap() && user.interrupt("x").await.unwrap());
    let order = runner.order().await;
    assert!(matches!(order.item, Some(v1::order::Item::Interrupt(_))));
    runner.became(&world, &order, v1::Phase::TaskComplete).await;
    assert!(!user.interrupt("x").await.unwrap());
    runner.tell(&world, vec![report(&start, v1::Phase::Idle)]).await.unwrap();
    assert_eq!(reason(user.interrupt("x").await), Reason::AgentNotRunning);
}

#[tokio::test]
async fn an_agent_of_another_account_is_ended_only_with_a_token_for_that_account_or_by_an_administrator() {
    let world = World::start().await;
    let (owner, mut runner, user) = ready(&world).await;
    let kill = async |client: ControlClient, slug: &str| {
        let request = v1::KillAgentRequest { slug: format!("/u/jdoe/{slug}"), ..Default::default() };
        client.clone().agents.kill_agent(request).await.map(|done| done.into_inner().killed)
    };
    for slug in ["one", "two", "three"] {
        user.spawn(slug).await.unwrap();
        runner.run(&world).await;
    }
    let token = async |scopes: &[v1::Scope], account: &str, prefix: &str| {
        let request = v1::IssueTokenRequest {
            kind: v1::TokenKind::User.into(),
            scopes: scopes.iter().map(|scope| i32::from(*scope)).collect(),
            workspace: owner.name.clone(),
            account: account.into(),
            slug_prefix: prefix.into(),
            ..Default::default()
        };
        world.client(&world.admin().auth.issue_token(request).await.unwrap().into_inner().token)
    };
    let [read, kills] = [v1::Scope::AgentsRead, v1::Scope::AgentsKill];
    // She sees the whole workspace, and decides over her own account.
    let eve = token(&[read, kills], "eve", "").await;
    let request = v1::GetAgentStatusRequest { slug: "/u/jdoe/one".into(), ..Default::default() };
    eve.clone().agents.get_agent_status(request).await.unwrap();
    assert_eq!(reason(kill(eve.clone(), "one").await), Reason::AgentNotYours);
    // A token of her account's slugs alone does not even see it.
    assert_eq!(reason(kill(token(&[read, kills], "eve", "/w/acme/u/eve/").await, "one").await), Reason::AgentNotFound);
    assert_eq!(user.status("one").await.unwrap().phase(), v1::Phase::Running);
    for (client, slug) in [
        (token(&[read, kills], "jdoe", "").await, "one"),
        (token(&[read, kills], "eve", "/w/acme/u/jdoe/").await, "two"),
        (token(&[v1::Scope::Admin, read, kills], "eve", "").await, "three"),
    ] {
        assert_eq!(kill(client, slug).await.unwrap(), [format!("/w/acme/u/jdoe/{slug}")]);
    }
}
