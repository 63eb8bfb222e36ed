//! What is let go some time after its end, and what is kept.

use murmur_core::reason::Reason;
use murmur_proto::v1::{self, watch_directory_response::Item};

use crate::{
    agents::{Speaking, facts, ready, report, spec},
    raw::{get, path},
    tasks::{create, list},
    uploads::upload,
    world::{Owner, World, next, reason},
};

const DAY_MS: u64 = 24 * 3600 * 1000;
const KEPT_MS: u64 = 30 * DAY_MS;
/// Ends that fall into so long a time go together.
const TOGETHER_MS: u64 = 60 * 1000;

/// Waits until a slug is told of as gone.
async fn gone(user: &Speaking, slug: &str) {
    while user.status(slug).await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert_eq!(reason(user.status(slug).await), Reason::AgentPruned);
}

/// Where the directory stands now.
async fn bookmark(world: &World, owner: &Owner) -> String {
    let request = v1::WatchDirectoryRequest::default();
    let mut changes = world.reader(owner).await.directory.watch_directory(request).await.unwrap().into_inner();
    loop {
        if let Item::Bookmark(bookmark) = next(&mut changes).await.item.unwrap() {
            return bookmark.resume_token;
        }
    }
}

#[tokio::test]
async fn an_agent_that_has_ended_is_kept_for_its_time_and_then_told_of_as_gone() {
    let world = World::start().await;
    let (owner, mut runner, user) = ready(&world).await;
    let person = world.person(&owner, "jdoe").await;
    let before = bookmark(&world, &owner).await;
    let spawned = user.spawn("x").await.unwrap();
    assert_eq!(spawned.keep_until_time, None, "it lives");
    let order = runner.run(&world).await;
    create(&person, "x", "an item").await.unwrap();
    user.queue_add("x").await.unwrap();
    user.kill("x").await.unwrap();
    runner.tell(&world, vec![report(&order, v1::Phase::Canceled)]).await.unwrap();
    let ended = user.status("x").await.unwrap();
    let until = ended.keep_until_time.unwrap().seconds - ended.end_time.unwrap().seconds;
    assert_eq!(u64::try_from(until).unwrap() * 1000, KEPT_MS);

    world.clock.advance(KEPT_MS - 1);
    // A person's token does not live that long.
    assert_eq!(list(&world.person(&owner, "jdoe").await, "x", false).await.unwrap().len(), 1);
    let world = world.restart().await;
    let user = Speaking::user(&world, &runner.node);
    assert_eq!(user.status("x").await.unwrap().phase(), v1::Phase::Canceled);
    world.clock.advance(1 + TOGETHER_MS);
    gone(&user, "x").await;
    let told = user.status("x").await.unwrap_err().message().to_owned();
    assert!(told.contains("canceled on 2027-01-15") && told.contains("let go on 2027-02-14"), "{told}");
    assert_eq!(reason(user.kill("x").await), Reason::AgentPruned);
    assert_eq!(reason(user.status("y").await), Reason::AgentNotFound);
    let again = v1::SpawnAgentRequest { slug: "x".into(), spec: Some(spec()), resurrect: true, ..Default::default() };
    assert_eq!(reason(user.spawn_with(again).await), Reason::AgentPruned);

    // A watch that may have missed the end begins anew.
    let request = v1::WatchDirectoryRequest { resume_token: before };
    let stale = world.reader(&owner).await.directory.watch_directory(request).await;
    match stale {
        Ok(stream) => assert_eq!(reason(stream.into_inner().message().await), Reason::ResumeTokenStale),
        Err(status) => assert_eq!(reason(Err::<(), _>(status)), Reason::ResumeTokenStale),
    }

    // Its slug is free, and the node hears that it is gone.
    let kept = vec![order.agent_id.clone(), crate::agents::uuid(99)];
    let facts = v1::ReportNodeRequest { kept, ..facts(10) };
    let answer = runner.node.client(&world).runtime.report_node(facts).await.unwrap().into_inner();
    assert_eq!(
        answer.gone,
        std::slice::from_ref(&order.agent_id),
        "an agent that was never here may be another database's"
    );
    let new = user.spawn("x").await.unwrap();
    assert_ne!(new.agent_id, order.agent_id);
    assert_eq!(list(&world.person(&owner, "jdoe").await, "x", false).await.unwrap(), []);
}

#[tokio::test]
async fn an_agent_stays_while_one_below_it_does_or_one_begins_with_its_history() {
    let world = World::start().await;
    let (_owner, mut runner, user) = ready(&world).await;
    let mut orders = Vec::new();
    for slug in ["parent", "parent/child", "model"] {
        user.spawn(slug).await.unwrap();
        orders.push(runner.run(&world).await);
    }
    let fork = v1::SpawnAgentRequest {
        slug: "fork".into(),
        spec: Some(spec()),
        fork_from: "model".into(),
        ..Default::default()
    };
    user.spawn_with(fork).await.unwrap();
    let fork = runner.run(&world).await;
    let completed = |order: &v1::Order| report(order, v1::Phase::Completed);
    runner.tell(&world, vec![completed(&orders[0]), completed(&orders[2])]).await.unwrap();
    world.clock.advance(KEPT_MS + DAY_MS);
    // What goes after these shows that these were looked at.
    user.spawn("last").await.unwrap();
    let last = runner.run(&world).await;
    runner.tell(&world, vec![completed(&last), completed(&orders[1]), completed(&fork)]).await.unwrap();
    assert_eq!(user.status("parent").await.unwrap().phase(), v1::Phase::Completed);
    assert_eq!(user.status("model").await.unwrap().phase(), v1::Phase::Completed);
    world.clock.advance(KEPT_MS + TOGETHER_MS);
    for slug in ["last", "parent/child", "parent", "fork", "model"] {
        gone(&user, slug).await;
    }
}

#[tokio::test]
async fn what_an_agent_showed_goes_with_it() {
    let world = World::with(|config| config.agent_keep_ms = 3_600_000).await;
    let (owner, mut runner, user) = ready(&world).await;
    user.spawn("x").await.unwrap();
    let order = runner.run(&world).await;
    let own = upload(&world.speak_as(&owner, &order.agent_id).await, "own.txt", "", b"x").await;
    let persons = upload(&world.person(&owner, "jdoe").await, "a.txt", "", b"y").await;
    runner.tell(&world, vec![report(&order, v1::Phase::Completed)]).await.unwrap();
    world.clock.advance(3_600_000 + TOGETHER_MS);
    gone(&user, "x").await;
    while get(&world, path(&world, &own.url), "").await.status != 404 {
        tokio::task::yield_now().await;
    }
    assert_eq!(get(&world, path(&world, &persons.url), "").await.status, 200);
}

#[tokio::test]
async fn of_a_live_agent_the_old_part_of_its_timeline_and_items_deleted_long_ago_go() {
    let world = World::start().await;
    let (owner, mut runner, user) = ready(&world).await;
    let person = world.person(&owner, "jdoe").await;
    user.spawn("x").await.unwrap();
    let order = runner.run(&world).await;
    for subject in ["one", "two", "three"] {
        create(&person, "x", subject).await.unwrap();
    }
    for task_id in ["1", "3"] {
        let request = v1::UpdateTaskRequest {
            slug: "x".into(),
            task_id: task_id.into(),
            status: Some(v1::TaskStatus::Deleted.into()),
            ..Default::default()
        };
        person.clone().tasks.update_task(request).await.unwrap();
    }
    world.clock.advance(KEPT_MS);
    runner.tell(&world, vec![report(&order, v1::Phase::TaskComplete)]).await.unwrap();
    world.clock.advance(DAY_MS);
    let person = world.person(&owner, "jdoe").await;
    let read = async |task_id: &str| {
        let request = v1::GetTaskRequest { slug: "x".into(), task_id: task_id.into() };
        person.clone().tasks.get_task(request).await
    };
    while read("1").await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(read("2").await.is_ok() && read("3").await.is_ok());
    assert_eq!(create(&person, "x", "next").await.unwrap().task_id, "4", "no number is used again");
    let phases: Vec<_> = user.detail("x").await.unwrap().timeline.iter().map(v1::TimelineEntry::phase).collect();
    assert!(phases.contains(&v1::Phase::TaskComplete) && !phases.contains(&v1::Phase::Starting), "{phases:?}");
}
