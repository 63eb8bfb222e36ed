//! Reading: one agent, lists, watches, and what agents write about themselves.

use murmur_core::reason::Reason;
use murmur_proto::v1::{self, watch_agent_status_response::Item};

use super::{Speaking, ready, report};
use crate::world::{World, field, next, reason};

#[tokio::test]
async fn a_life_is_written_down_and_told_to_the_parent() {
    let world = World::start().await;
    let (_owner, mut runner, user) = ready(&world).await;
    let lead = user.spawn("lead").await.unwrap();
    runner.run(&world).await;
    let lead = Speaking::agent(&world, &runner.node, &lead.agent_id);
    lead.spawn("kid").await.unwrap();
    let kid = runner.run(&world).await;
    let failed = v1::AgentReport { reason: "exit".into(), exit_code: Some(3), ..report(&kid, v1::Phase::Failed) };
    runner.tell(&world, vec![failed]).await.unwrap();

    let detail = lead.detail("kid").await.unwrap();
    let agent = detail.agent.unwrap();
    assert_eq!(
        (agent.phase(), agent.exit_code, agent.reason.as_str(), agent.rev),
        (v1::Phase::Failed, Some(3), "exit", 3)
    );
    assert!(agent.end_time.is_some());
    let phases: Vec<_> = detail.timeline.iter().map(v1::TimelineEntry::phase).collect();
    assert_eq!(phases, [v1::Phase::Starting, v1::Phase::Running, v1::Phase::Failed]);

    let told: Vec<_> = lead
        .detail("self")
        .await
        .unwrap()
        .timeline
        .into_iter()
        .filter(|entry| entry.kind() == v1::TimelineKind::Child)
        .collect();
    let texts: Vec<_> = told.iter().map(|entry| entry.text.as_str()).collect();
    let slug = "/w/acme/u/jdoe/lead/kid";
    assert_eq!(texts, [format!("{slug} is starting"), format!("{slug} is running"), format!("{slug} is failed: exit")]);
}

#[tokio::test]
async fn lists_come_in_pages_and_hold_what_was_asked_for() {
    let world = World::start().await;
    let (_owner, mut runner, user) = ready(&world).await;
    for slug in ["c", "a", "b", "b/x"] {
        user.spawn(slug).await.unwrap();
    }
    let mut orders = Vec::new();
    for _ in 0..4 {
        orders.push(runner.run(&world).await);
    }
    runner.tell(&world, vec![report(&orders[0], v1::Phase::Failed)]).await.unwrap();
    let names = |response: &v1::ListAgentStatusResponse| {
        response.agents.iter().map(|agent| agent.slug.rsplit_once("jdoe/").unwrap().1.to_owned()).collect::<Vec<_>>()
    };
    let page = |page_token: &str| v1::ListAgentStatusRequest {
        page_size: 2,
        page_token: page_token.into(),
        ..Default::default()
    };
    let first = user.list(page("")).await.unwrap();
    assert_eq!(names(&first), ["a", "b"]);
    let second = user.list(page(&first.next_page_token)).await.unwrap();
    assert_eq!((names(&second), second.next_page_token.as_str()), (vec!["b/x".to_owned()], ""));
    let all = v1::ListAgentStatusRequest { all: true, ..Default::default() };
    assert_eq!(names(&user.list(all).await.unwrap()), ["a", "b", "b/x", "c"]);
    let below = v1::ListAgentStatusRequest { parent: "b".into(), ..Default::default() };
    assert_eq!(names(&user.list(below).await.unwrap()), ["b/x"]);
    let failed = v1::ListAgentStatusRequest { all: true, phase: v1::Phase::Failed.into(), ..Default::default() };
    assert_eq!(names(&user.list(failed).await.unwrap()), ["c"]);
    let foreign = v1::ListAgentStatusRequest { account: "mallory".into(), ..Default::default() };
    assert_eq!(names(&user.list(foreign).await.unwrap()), [""; 0]);
    for (request, named) in [
        (v1::ListAgentStatusRequest { page_size: 501, ..Default::default() }, "page_size"),
        (v1::ListAgentStatusRequest { page_token: "????".into(), ..Default::default() }, "page_token"),
        (v1::ListAgentStatusRequest { page_token: "AAAA".into(), ..Default::default() }, "page_token"),
        (v1::ListAgentStatusRequest { account: "A B".into(), ..Default::default() }, "account"),
        (v1::ListAgentStatusRequest { parent: "A B".into(), ..Default::default() }, "parent"),
        (v1::ListAgentStatusRequest { phase: 99, ..Default::default() }, "phase"),
    ] {
        assert_eq!(field(user.list(request).await), named);
    }
}

#[tokio::test]
async fn what_a_caller_may_not_see_is_not_there() {
    let world = World::start().await;
    let (owner, mut runner, user) = ready(&world).await;
    let mine = user.spawn("x").await.unwrap();
    runner.run(&world).await;
    let theirs = world.node(&owner, "mallory", 5).await;
    let mallory = Speaking::user(&world, &theirs);
    assert_eq!(reason(mallory.status(&mine.slug).await), Reason::AgentNotFound);
    assert_eq!(reason(mallory.kill(&mine.slug).await), Reason::AgentNotFound);
    assert_eq!(reason(mallory.wait(&mine.slug, &[], 1).await), Reason::AgentNotFound);
    assert_eq!(reason(mallory.output(&mine.slug).await), Reason::AgentNotFound);
    let everything = v1::ListAgentStatusRequest { account: "*".into(), all: true, ..Default::default() };
    assert!(mallory.list(everything.clone()).await.unwrap().agents.is_empty());
    // Not even from another workspace with everything that it may.
    let other = world.workspace("other").await;
    let token = world.token(&other, &[v1::Scope::AgentsRead, v1::Scope::AgentsKill]).await.token;
    let mut stranger = world.client(&token).agents;
    let read = v1::GetAgentStatusRequest { slug: mine.slug.clone(), ..Default::default() };
    assert_eq!(reason(stranger.get_agent_status(read).await), Reason::AgentNotFound);
    assert!(stranger.list_agent_status(everything).await.unwrap().into_inner().agents.is_empty());
    // A token of the whole workspace sees and ends it.
    let token = world.token(&owner, &[v1::Scope::AgentsRead, v1::Scope::AgentsKill]).await.token;
    let kill = v1::KillAgentRequest { slug: mine.slug.clone(), ..Default::default() };
    assert_eq!(world.client(&token).agents.kill_agent(kill).await.unwrap().into_inner().killed, [mine.slug]);
}

#[tokio::test]
async fn a_watch_tells_what_is_there_and_then_every_change() {
    let world = World::start().await;
    let (_owner, mut runner, user) = ready(&world).await;
    user.spawn("first").await.unwrap();
    let mut watch = user.watch().await;
    assert!(matches!(next(&mut watch).await.item, Some(Item::Agent(agent)) if agent.slug.ends_with("/first")));
    assert!(matches!(next(&mut watch).await.item, Some(Item::SnapshotDone(_))));
    let order = runner.run(&world).await;
    assert!(matches!(next(&mut watch).await.item, Some(Item::Agent(agent)) if agent.phase() == v1::Phase::Running));
    runner.tell(&world, vec![report(&order, v1::Phase::Completed)]).await.unwrap();
    assert!(matches!(next(&mut watch).await.item, Some(Item::Agent(agent)) if agent.phase() == v1::Phase::Completed));
}

#[tokio::test]
async fn an_agent_writes_about_itself_and_below_alone() {
    let world = World::start().await;
    let (_owner, mut runner, user) = ready(&world).await;
    let one = user.spawn("one").await.unwrap();
    runner.run(&world).await;
    user.spawn("two").await.unwrap();
    runner.run(&world).await;
    let one = Speaking::agent(&world, &runner.node, &one.agent_id);
    let saying = |slug: &str, label: &str| v1::UpdateAgentStatusRequest {
        slug: slug.into(),
        progress: Some(v1::Progress { label: label.into(), ..v1::Progress::default() }),
        ..v1::UpdateAgentStatusRequest::default()
    };
    let said = one.update(saying("", "reading")).await.unwrap();
    assert_eq!(said.progress.unwrap().label, "reading");
    let output = Some(v1::AgentOutput { response: "done".into(), ..v1::AgentOutput::default() });
    let said = one.update(v1::UpdateAgentStatusRequest { output, ..Default::default() }).await.unwrap();
    assert_eq!(
        (said.progress.unwrap().label, said.output.unwrap().response),
        ("reading".to_owned(), "done".to_owned())
    );
    assert_eq!(said.rev, user.status("one").await.unwrap().rev);
    assert_eq!(reason(one.update(saying("two", "lies")).await), Reason::AgentNotYours);
    assert_eq!(reason(user.update(saying("", "nobody")).await), Reason::NoAgentIdentity);
    assert_eq!(field(one.update(saying("", &"x".repeat(241))).await), "progress.label");
    let repos = vec![v1::Repo { clone_url: "--upload-pack=x".into(), ..v1::Repo::default() }];
    assert_eq!(
        field(one.update(v1::UpdateAgentStatusRequest { repos, ..Default::default() }).await),
        "repos.clone_url"
    );
}

#[tokio::test]
async fn what_an_agent_does_not_say_of_its_output_stays_and_its_cost_never_falls() {
    let world = World::start().await;
    let (_owner, mut runner, user) = ready(&world).await;
    let one = user.spawn("one").await.unwrap();
    let order = runner.run(&world).await;
    let one = Speaking::agent(&world, &runner.node, &one.agent_id);
    let says =
        async |output| one.update(v1::UpdateAgentStatusRequest { output: Some(output), ..Default::default() }).await;
    let pr = "https://github.com/acme/app/pull/7".to_owned();
    let first = v1::AgentOutput { prs: vec![pr], commits: vec!["abc".into()], ..v1::AgentOutput::default() };
    says(first.clone()).await.unwrap();
    says(v1::AgentOutput { cost_micros: 900, tokens: 50, ..v1::AgentOutput::default() }).await.unwrap();
    let said = says(v1::AgentOutput { response: "hey".into(), ..v1::AgentOutput::default() }).await.unwrap();
    let whole = v1::AgentOutput { response: "hey".into(), cost_micros: 900, tokens: 50, ..first };
    assert_eq!(said.output, Some(whole.clone()));
    let said = says(v1::AgentOutput { cost_micros: 1, tokens: 1, ..v1::AgentOutput::default() }).await.unwrap();
    assert_eq!(said.output, Some(whole.clone()));
    // A runtime that counts nothing takes nothing back either.
    let output = Some(v1::AgentOutput { response: "hey".into(), ..v1::AgentOutput::default() });
    runner.tell(&world, vec![v1::AgentReport { output, ..report(&order, v1::Phase::TaskComplete) }]).await.unwrap();
    assert_eq!(user.status("one").await.unwrap().output, Some(whole.clone()));

    let refused = async |output| field(says(output).await);
    let many = vec!["x".to_owned(); 201];
    assert_eq!(refused(v1::AgentOutput { prs: many.clone(), ..Default::default() }).await, "output.prs");
    assert_eq!(refused(v1::AgentOutput { commits: many, ..Default::default() }).await, "output.commits");
    assert_eq!(refused(v1::AgentOutput { prs: vec!["x".repeat(1025)], ..Default::default() }).await, "output.prs");
    assert_eq!(refused(v1::AgentOutput { cost_micros: u64::MAX, ..Default::default() }).await, "output.cost_micros");
    assert_eq!(refused(v1::AgentOutput { tokens: u64::MAX, ..Default::default() }).await, "output.tokens");
    let time = Some(prost_types::Timestamp { seconds: 1, nanos: -1 });
    let progress = Some(v1::Progress { time, ..v1::Progress::default() });
    assert_eq!(
        field(one.update(v1::UpdateAgentStatusRequest { progress, ..Default::default() }).await),
        "progress.time"
    );
    assert_eq!(user.status("one").await.unwrap().output, Some(whole));
}
