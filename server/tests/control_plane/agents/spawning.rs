//! Who is born, where, and who is not.

use murmur_core::reason::Reason;
use murmur_proto::{status::RpcError, v1};

use super::{Runner, Speaking, facts, ready, report, spec};
use crate::world::{World, field, reason};

fn request(slug: &str) -> v1::SpawnAgentRequest {
    v1::SpawnAgentRequest { slug: slug.into(), spec: Some(spec()), ..Default::default() }
}

#[tokio::test]
async fn a_spawned_agent_is_ordered_runs_and_can_be_written_to() {
    let world = World::start().await;
    let (_owner, mut runner, user) = ready(&world).await;
    let born = user.spawn("build").await.unwrap();
    assert_eq!((born.slug.as_str(), born.phase()), ("/w/acme/u/jdoe/build", v1::Phase::Starting));
    assert_eq!((born.rev, born.incarnation, born.node.as_str(), born.reason.as_str()), (1, 1, "host", ""));
    let order = runner.run(&world).await;
    assert_eq!((&order.agent_id, &order.slug, order.incarnation), (&born.agent_id, &born.slug, 1));
    let Some(v1::order::Item::Start(start)) = order.item else { panic!("not a start") };
    assert_eq!((start.spec.unwrap().description.as_str(), start.resume), ("do it", false));
    let runs = user.status("build").await.unwrap();
    assert_eq!((runs.phase(), runs.rev), (v1::Phase::Running, 2));

    // Its node registers it under the id that it was given.
    let wanted = v1::RegisterAgentRequest {
        path: "build".into(),
        kind: v1::AgentKind::Spawned.into(),
        ..v1::RegisterAgentRequest::default()
    };
    let adopted = runner.node.client(&world).directory.register_agent(wanted).await.unwrap().into_inner();
    assert_eq!((adopted.agent.unwrap().agent_id, adopted.created), (born.agent_id, false));
}

#[tokio::test]
async fn an_agent_spawns_below_itself_alone() {
    let world = World::start().await;
    let (_owner, mut runner, user) = ready(&world).await;
    let lead = user.spawn("lead").await.unwrap();
    runner.run(&world).await;
    let lead = Speaking::agent(&world, &runner.node, &lead.agent_id);
    let child = lead.spawn("fix").await.unwrap();
    assert_eq!((child.slug.as_str(), child.parent.as_str()), ("/w/acme/u/jdoe/lead/fix", "/w/acme/u/jdoe/lead"));
    assert_eq!(lead.spawn("./deep/er").await.unwrap().slug, "/w/acme/u/jdoe/lead/deep/er");
    assert_eq!(reason(lead.spawn("/u/jdoe/other").await), Reason::AgentNotYours);
    assert_eq!(field(lead.spawn("../other").await), "slug");
    for text in ["", "self", "A b", "x//y", "/u/jdoe/lead/"] {
        assert_eq!(field(lead.spawn(text).await), "slug", "{text}");
    }
    assert_eq!(user.status("lead").await.unwrap().children, 2);
    assert_eq!(reason(user.spawn("/u/mallory/x").await), Reason::AgentNotYours);
}

#[tokio::test]
async fn of_two_spawns_of_one_slug_at_once_one_wins() {
    let world = World::start().await;
    let (_owner, _runner, user) = ready(&world).await;
    let (one, two) = tokio::join!(user.spawn("same"), user.spawn("same"));
    let (won, lost) = if one.is_ok() { (one, two) } else { (two, one) };
    assert_eq!(reason(lost), Reason::AgentLive);
    assert_eq!(user.status("same").await.unwrap().agent_id, won.unwrap().agent_id);
}

#[tokio::test]
async fn an_ended_name_is_resurrected_or_given_to_a_new_agent() {
    let world = World::start().await;
    let (_owner, mut runner, user) = ready(&world).await;
    let first = user.spawn("job").await.unwrap();
    let order = runner.run(&world).await;
    runner.became(&world, &order, v1::Phase::Completed).await;
    assert_eq!(reason(user.spawn("job").await), Reason::AgentEnded);

    let again = v1::SpawnAgentRequest { resurrect: true, ..request("job") };
    let revived = user.spawn_with(again.clone()).await.unwrap().remove(0);
    assert_eq!((&revived.agent_id, revived.incarnation, revived.phase()), (&first.agent_id, 2, v1::Phase::Starting));
    assert!(revived.rev > first.rev);
    let order = runner.run(&world).await;
    assert!(matches!(&order.item, Some(v1::order::Item::Start(start)) if start.resume));
    assert_eq!(reason(user.spawn_with(again).await), Reason::AgentLive);
    runner.became(&world, &order, v1::Phase::Failed).await;

    let new = v1::SpawnAgentRequest { force_new: true, ..request("job") };
    let new = user.spawn_with(new).await.unwrap().remove(0);
    assert!(new.agent_id != first.agent_id && new.incarnation == 1);
    let never = v1::SpawnAgentRequest { resurrect: true, ..request("never") };
    assert_eq!(reason(user.spawn_with(never).await), Reason::AgentNotFound);
    let both = v1::SpawnAgentRequest { resurrect: true, force_new: true, ..request("other") };
    assert_eq!(field(user.spawn_with(both).await), "force_new");
}

#[tokio::test]
async fn one_for_each_line_or_none() {
    let world = World::start().await;
    let (_owner, _runner, user) = ready(&world).await;
    let lines = |lines: &[&str]| v1::SpawnAgentRequest {
        spec: Some(v1::AgentSpec { description: "look at {}".into(), ..spec() }),
        each: lines.iter().map(|line| (*line).to_owned()).collect(),
        ..request("look-{}")
    };
    let all = user.spawn_with(lines(&["src/a.rs", "src/B.rs"])).await.unwrap();
    let slugs: Vec<_> = all.iter().map(|one| one.slug.as_str()).collect();
    assert_eq!(slugs, ["/w/acme/u/jdoe/look-src-a-rs", "/w/acme/u/jdoe/look-src-b-rs"]);
    assert_eq!(all[1].current_description, "look at src/B.rs");
    // The second is taken, so the first is not born either.
    assert_eq!(reason(user.spawn_with(lines(&["new", "src/a.rs"])).await), Reason::AgentLive);
    assert_eq!(reason(user.status("look-new").await), Reason::AgentNotFound);
}

#[tokio::test]
async fn a_key_makes_a_spawn_happen_once() {
    let world = World::start().await;
    let (_owner, _runner, user) = ready(&world).await;
    let keyed = v1::SpawnAgentRequest { idempotency_key: "k".into(), ..request("once") };
    let first = user.spawn_with(keyed.clone()).await.unwrap().remove(0);
    let again = user.spawn_with(keyed.clone()).await.unwrap().remove(0);
    assert_eq!(first.agent_id, again.agent_id);
    let other = v1::SpawnAgentRequest { slug: "twice".into(), ..keyed };
    assert_eq!(reason(user.spawn_with(other).await), Reason::IdempotencyConflict);
}

#[tokio::test]
async fn the_bounds_of_spawning_are_named() {
    let world = World::with(|config| {
        config.agents_live_max = 3;
        config.children_max = 1;
    })
    .await;
    let (_owner, mut runner, user) = ready(&world).await;
    let limit = |result: Result<v1::AgentStatus, tonic::Status>| {
        let error = RpcError::from(result.unwrap_err());
        assert_eq!(error.reason, Some(Reason::SpawnLimit));
        error.metadata.into_iter().find(|(key, _)| key == "limit").unwrap().1
    };
    let top = user.spawn("top").await.unwrap();
    runner.run(&world).await;
    let top = Speaking::agent(&world, &runner.node, &top.agent_id);
    top.spawn("one").await.unwrap();
    assert_eq!(limit(top.spawn("two").await), "fan-out");
    assert_eq!(limit(user.spawn("a/b/c/d/e/f/g/h/i").await), "depth");
    user.spawn("third").await.unwrap();
    assert_eq!(limit(user.spawn("fourth").await), "live");
}

#[tokio::test]
async fn an_account_spawns_only_so_fast() {
    let one = 1.try_into().unwrap();
    let world = World::with(|config| config.spawn_per_minute = one).await;
    let (_owner, _runner, user) = ready(&world).await;
    user.spawn("first").await.unwrap();
    let error = RpcError::from(user.spawn("second").await.unwrap_err());
    assert_eq!(error.reason, Some(Reason::SpawnLimit));
    assert!(error.retry_after_ms.is_some_and(|wait| wait <= 60_000));
}

#[tokio::test]
async fn what_is_refused_is_not_counted_against_the_account() {
    let one = 1.try_into().unwrap();
    let world = World::with(|config| config.spawn_per_minute = one).await;
    let (_owner, runner, user) = ready(&world).await;
    runner.node.agent(&world, "taken").await;
    assert_eq!(field(user.spawn("A b").await), "slug");
    let empty = v1::SpawnAgentRequest { spec: None, ..request("empty") };
    assert_eq!(field(user.spawn_with(empty).await), "spec.description");
    assert_eq!(reason(user.spawn("taken").await), Reason::AgentLive);
    user.spawn("first").await.unwrap();
    assert_eq!(reason(user.spawn("second").await), Reason::SpawnLimit);
    assert_eq!(reason(user.status("second").await), Reason::AgentNotFound);
}

#[tokio::test]
async fn what_no_node_has_is_not_found() {
    let world = World::start().await;
    let (_owner, _runner, user) = ready(&world).await;
    let with = |change: fn(&mut v1::AgentSpec)| {
        let mut spec = spec();
        change(&mut spec);
        v1::SpawnAgentRequest { spec: Some(spec), ..request("x") }
    };
    let refused = async |change| reason(user.spawn_with(with(change)).await);
    assert_eq!(refused(|spec| spec.backend = "nope".into()).await, Reason::BackendNotFound);
    assert_eq!(refused(|spec| spec.persona = "nope".into()).await, Reason::PersonaNotFound);
    assert_eq!(refused(|spec| spec.mcp_servers = vec!["nope".into()]).await, Reason::McpServerNotFound);
    assert_eq!(refused(|spec| spec.node = "nope".into()).await, Reason::NodeNotFound);
    let fork = v1::SpawnAgentRequest { fork_from: "nope".into(), ..request("x") };
    assert_eq!(reason(user.spawn_with(fork).await), Reason::AgentNotFound);
    for (change, named) in [
        ((|spec| spec.description.clear()) as fn(&mut v1::AgentSpec), "spec.description"),
        (|spec| spec.description.push('\0'), "spec.description"),
        (|spec| spec.env = [("MURMUR_AGENT".to_owned(), "eve".to_owned())].into(), "spec.env"),
        (|spec| spec.tasks = vec![String::new()], "spec.tasks"),
        (|spec| spec.on_idle = 77, "spec.on_idle"),
    ] {
        assert_eq!(field(user.spawn_with(with(change)).await), named);
    }
    let each = v1::SpawnAgentRequest {
        spec: Some(v1::AgentSpec { description: "look at {}".into(), ..spec() }),
        each: vec!["a\0".into()],
        ..request("x-{}")
    };
    assert_eq!(field(user.spawn_with(each).await), "spec.description");
    let fork = v1::SpawnAgentRequest { fork_from: "A b".into(), ..request("x") };
    assert_eq!(field(user.spawn_with(fork).await), "fork_from");
    assert_eq!(reason(user.status("x").await), Reason::AgentNotFound);
}

#[tokio::test]
async fn a_fork_begins_where_the_history_is() {
    let world = World::start().await;
    let (owner, mut runner, user) = ready(&world).await;
    let _emptier = Runner::start(&world, &owner, 2, facts(1000)).await;
    let pinned = v1::AgentSpec { node: runner.node.id.to_string(), ..spec() };
    let first = user.spawn_with(v1::SpawnAgentRequest { spec: Some(pinned), ..request("first") }).await.unwrap();
    runner.run(&world).await;
    let fork = v1::SpawnAgentRequest { fork_from: "first".into(), ..request("second") };
    let second = user.spawn_with(fork).await.unwrap().remove(0);
    assert_eq!(second.node_id, runner.node.id.to_string());
    let Some(v1::order::Item::Start(start)) = runner.order().await.item else { panic!("not a start") };
    assert_eq!(start.fork_from_agent_id, first[0].agent_id);
}

#[tokio::test]
async fn values_of_the_environment_are_told_to_the_node_alone() {
    let world = World::start().await;
    let (_owner, mut runner, user) = ready(&world).await;
    let secret = v1::AgentSpec { env: [("API_KEY".to_owned(), "s3cret".to_owned())].into(), ..spec() };
    let born = user.spawn_with(v1::SpawnAgentRequest { spec: Some(secret), ..request("x") }).await.unwrap().remove(0);
    assert_eq!(born.spec.unwrap().env.get("API_KEY").map(String::as_str), Some(""));
    let Some(v1::order::Item::Start(start)) = runner.order().await.item else { panic!("not a start") };
    assert_eq!(start.spec.unwrap().env.get("API_KEY").map(String::as_str), Some("s3cret"));
}

#[tokio::test]
async fn agents_that_register_themselves_are_there_too() {
    let world = World::start().await;
    let (_owner, mut runner, user) = ready(&world).await;
    let alice = runner.node.agent(&world, "alice").await;
    let status = user.status("alice").await.unwrap();
    assert_eq!((status.phase(), status.interactive, status.rev), (v1::Phase::Idle, true, 1));
    assert_eq!(reason(user.spawn("alice").await), Reason::AgentLive);
    let own = Speaking::agent(&world, &runner.node, &alice.id.to_string());
    assert_eq!(own.spawn("helper").await.unwrap().parent, alice.slug);
    // A name that waits for a node is taken, too.
    let order = runner.run(&world).await;
    assert_eq!(reason(runner.node.register(&world, "alice/helper").await), Reason::SlugTaken);
    let told = report(&order, v1::Phase::Idle);
    assert!(!runner.tell(&world, vec![told]).await.unwrap()[0].stale);

    let request = v1::DeregisterAgentRequest { agent_id: alice.id.to_string() };
    runner.node.client(&world).directory.deregister_agent(request).await.unwrap();
    assert_eq!(user.status("alice").await.unwrap().phase(), v1::Phase::Completed);
    assert_eq!(user.status("alice/helper").await.unwrap().phase(), v1::Phase::Idle);
}
