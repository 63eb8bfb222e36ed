//! Checklists: who writes them, what is refused, and that what is answered is so.

use murmur_core::reason::Reason;
use murmur_proto::{client::ControlClient, status::RpcError, v1};
use murmur_server::tasks::files_changed;
use tonic::{Response, Status};

use crate::world::{AgentKit, NodeKit, Owner, World, field, reason};

/// An account with an agent, one below it and one beside it.
pub(crate) struct Team {
    pub(crate) world: World,
    pub(crate) owner: Owner,
    pub(crate) node: NodeKit,
    pub(crate) boss: AgentKit,
    pub(crate) worker: AgentKit,
    pub(crate) other: AgentKit,
}

impl Team {
    pub(crate) async fn start() -> Self {
        let world = World::start().await;
        let owner = world.workspace("acme").await;
        let node = world.node(&owner, "jdoe", 1).await;
        let boss = node.agent(&world, "boss").await;
        let worker = node.agent(&world, "boss/worker").await;
        let other = node.agent(&world, "other").await;
        Self { world, owner, node, boss, worker, other }
    }

    pub(crate) async fn as_agent(&self, agent: &AgentKit) -> ControlClient {
        self.world.speak_as(&self.owner, &agent.id.to_string()).await
    }

    pub(crate) async fn end(&self, agent: &AgentKit) {
        let request = v1::DeregisterAgentRequest { agent_id: agent.id.to_string() };
        let done = self.node.client(&self.world).directory.deregister_agent(request).await.unwrap();
        assert!(done.into_inner().deregistered);
    }
}

pub(crate) async fn create(client: &ControlClient, slug: &str, subject: &str) -> Result<v1::Task, Status> {
    let request =
        v1::CreateTaskRequest { slug: slug.into(), subject: subject.into(), ..v1::CreateTaskRequest::default() };
    Ok(client.clone().tasks.create_task(request).await?.into_inner().task.unwrap())
}

async fn update(client: &ControlClient, request: v1::UpdateTaskRequest) -> Result<v1::Task, Status> {
    Ok(client.clone().tasks.update_task(request).await?.into_inner().task.unwrap())
}

fn of(id: &str) -> v1::UpdateTaskRequest {
    v1::UpdateTaskRequest { task_id: id.into(), ..v1::UpdateTaskRequest::default() }
}

fn to(id: &str, status: v1::TaskStatus) -> v1::UpdateTaskRequest {
    v1::UpdateTaskRequest { status: Some(status.into()), ..of(id) }
}

fn waits_for(id: &str, blockers: &[&str]) -> v1::UpdateTaskRequest {
    v1::UpdateTaskRequest { add_blocked_by: blockers.iter().map(|id| (*id).to_owned()).collect(), ..of(id) }
}

async fn get(client: &ControlClient, slug: &str, id: &str) -> Result<v1::Task, Status> {
    let request = v1::GetTaskRequest { slug: slug.into(), task_id: id.into() };
    Ok(client.clone().tasks.get_task(request).await?.into_inner().task.unwrap())
}

pub(crate) async fn list(client: &ControlClient, slug: &str, active: bool) -> Result<Vec<v1::Task>, Status> {
    let (mut tasks, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = v1::ListTasksRequest { slug: slug.into(), active, page_size: 3, page_token };
        let page = client.clone().tasks.list_tasks(request).await?.into_inner();
        tasks.extend(page.tasks);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(tasks);
        }
    }
}

fn metadata<T: std::fmt::Debug>(result: Result<T, Status>) -> Vec<(String, String)> {
    RpcError::from(&result.unwrap_err()).metadata
}

#[tokio::test]
async fn an_update_that_changes_nothing_is_not_reported_as_done() {
    let team = Team::start().await;
    let worker = team.as_agent(&team.worker).await;
    let task = create(&worker, "", "write it").await.unwrap();
    let nothing = update(&worker, of("1")).await;
    assert_eq!(field(nothing), "status");
    // Neither is one whose fields say what is there already.
    for (same, named) in [
        (to("1", v1::TaskStatus::Pending), "status"),
        (v1::UpdateTaskRequest { subject: Some("write it".into()), ..of("1") }, "subject"),
        (v1::UpdateTaskRequest { description: Some(String::new()), ..of("1") }, "description"),
    ] {
        assert_eq!(field(update(&worker, same).await), named);
    }
    create(&worker, "", "another").await.unwrap();
    let absent = v1::UpdateTaskRequest { remove_blocks: vec!["2".into()], ..of("1") };
    assert_eq!(field(update(&worker, absent).await), "remove_blocks");
    assert_eq!(get(&worker, "", "1").await.unwrap(), task);

    // What is reported as done is there for the next reader.
    let begun = update(&worker, to("1", v1::TaskStatus::InProgress)).await.unwrap();
    assert_eq!((begun.status(), begun.rev), (v1::TaskStatus::InProgress, 2));
    assert_eq!(get(&worker, "self", "1").await.unwrap(), begun);
}

#[tokio::test]
async fn a_checklist_is_written_by_its_agent_those_above_and_the_accounts_owner() {
    let team = Team::start().await;
    let slug = team.worker.slug.as_str();
    let owner = team.world.person(&team.owner, "jdoe").await;
    let (boss, worker) = (team.as_agent(&team.boss).await, team.as_agent(&team.worker).await);
    for (client, text) in
        [(&worker, "self"), (&boss, "worker"), (&boss, "./worker"), (&owner, "boss/worker"), (&owner, slug)]
    {
        create(client, text, "by one who may").await.unwrap();
    }
    let other = team.as_agent(&team.other).await;
    let colleague = team.world.person(&team.owner, "mallory").await;
    for client in [&other, &colleague] {
        // They see it and may not write it.
        assert_eq!(list(client, slug, false).await.unwrap().len(), 5);
        assert_eq!(reason(create(client, slug, "by a stranger").await), Reason::AgentNotYours);
        let change = v1::UpdateTaskRequest { slug: slug.into(), ..to("1", v1::TaskStatus::Deleted) };
        assert_eq!(reason(update(client, change).await), Reason::AgentNotYours);
    }
    // The one below does not write the one above.
    assert_eq!(reason(create(&worker, &team.boss.slug, "upwards").await), Reason::AgentNotYours);
    assert_eq!(list(&worker, "", false).await.unwrap().len(), 5);

    let elsewhere = team.world.workspace("elsewhere").await;
    let foreign = team.world.person(&elsewhere, "jdoe").await;
    assert_eq!(reason(create(&foreign, slug, "hidden").await), Reason::AgentNotFound);
    assert_eq!(reason(list(&foreign, slug, false).await), Reason::AgentNotFound);
}

#[tokio::test]
async fn a_relative_slug_never_leaves_the_callers_workspace_and_account() {
    let team = Team::start().await;
    let elsewhere = team.world.workspace("elsewhere").await;
    let node = team.world.node(&elsewhere, "jdoe", 2).await;
    let twin = node.agent(&team.world, "boss").await;
    let (here, there) = (team.world.person(&team.owner, "jdoe").await, team.world.person(&elsewhere, "jdoe").await);
    for text in ["boss", "./boss", "/u/jdoe/boss"] {
        create(&here, text, "here").await.unwrap();
    }
    assert_eq!(list(&here, &team.boss.slug, false).await.unwrap().len(), 3);
    assert_eq!(list(&there, &twin.slug, false).await.unwrap().len(), 0);
    assert_eq!(reason(create(&here, "nobody", "lost").await), Reason::AgentNotFound);
    assert_eq!(reason(create(&here, "", "a person has no checklist").await), Reason::NoAgentIdentity);
}

#[tokio::test]
async fn blockers_hold_an_item_up_and_are_named() {
    let team = Team::start().await;
    let worker = team.as_agent(&team.worker).await;
    for subject in ["plan", "write", "ship"] {
        create(&worker, "", subject).await.unwrap();
    }
    let ship = update(&worker, waits_for("3", &["1", "2"])).await.unwrap();
    assert_eq!((ship.blocked_by.as_slice(), ship.rev), (["1".to_owned(), "2".to_owned()].as_slice(), 2));
    // The other ends have changed, too.
    let plan = get(&worker, "", "1").await.unwrap();
    assert_eq!((plan.blocks.as_slice(), plan.rev), (["3".to_owned()].as_slice(), 2));

    let refused = update(&worker, to("3", v1::TaskStatus::InProgress)).await;
    assert_eq!(reason(refused.clone()), Reason::TaskBlocked);
    assert_eq!(metadata(refused), [("blockers".to_owned(), "1,2".to_owned())]);
    update(&worker, to("1", v1::TaskStatus::Completed)).await.unwrap();
    // A deleted blocker counts as done.
    update(&worker, to("2", v1::TaskStatus::Deleted)).await.unwrap();
    let ship = update(&worker, to("3", v1::TaskStatus::Completed)).await.unwrap();
    assert_eq!(ship.blocked_by, ["1"]);
    // Completed can be opened again, deleted cannot.
    update(&worker, to("3", v1::TaskStatus::Pending)).await.unwrap();
    assert_eq!(reason(update(&worker, to("2", v1::TaskStatus::Pending)).await), Reason::TaskState);
    assert_eq!(get(&worker, "", "2").await.unwrap().status(), v1::TaskStatus::Deleted);
    assert_eq!(list(&worker, "", false).await.unwrap().len(), 2);
    assert_eq!(list(&worker, "", true).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_cycle_is_refused_with_its_path_and_nothing_of_the_update_happens() {
    let team = Team::start().await;
    let worker = team.as_agent(&team.worker).await;
    for subject in ["a", "b", "c"] {
        create(&worker, "", subject).await.unwrap();
    }
    update(&worker, waits_for("2", &["1"])).await.unwrap();
    update(&worker, waits_for("3", &["2"])).await.unwrap();
    let before = list(&worker, "", false).await.unwrap();
    let refused =
        update(&worker, v1::UpdateTaskRequest { subject: Some("lost".into()), ..waits_for("1", &["3"]) }).await;
    assert_eq!(reason(refused.clone()), Reason::TaskCycle);
    assert_eq!(metadata(refused), [("path".to_owned(), "3,1,2,3".to_owned())]);
    assert_eq!(field(update(&worker, waits_for("1", &["1"])).await), "add_blocked_by");
    assert_eq!(reason(update(&worker, waits_for("1", &["9"])).await), Reason::TaskNotFound);
    assert_eq!(reason(update(&worker, to("9", v1::TaskStatus::Completed)).await), Reason::TaskNotFound);
    assert_eq!(list(&worker, "", false).await.unwrap(), before);
}

#[tokio::test]
async fn fields_that_break_a_rule_are_named() {
    let team = Team::start().await;
    let worker = team.as_agent(&team.worker).await;
    create(&worker, "", "a").await.unwrap();
    assert_eq!(field(create(&worker, "", &"x".repeat(241)).await), "subject");
    assert_eq!(field(create(&worker, "", "two\nlines").await), "subject");
    assert_eq!(field(create(&worker, "A B", "a").await), "slug");
    assert_eq!(field(update(&worker, to("one", v1::TaskStatus::Deleted)).await), "task_id");
    assert_eq!(field(update(&worker, to("1", v1::TaskStatus::Unspecified)).await), "status");
    assert_eq!(field(update(&worker, waits_for("1", &["x"])).await), "add_blocked_by");
    let long = v1::UpdateTaskRequest { description: Some("x".repeat(16 * 1024 + 1)), ..of("1") };
    assert_eq!(field(update(&worker, long).await), "description");
    let base = v1::CreateTaskRequest { subject: "a".into(), ..v1::CreateTaskRequest::default() };
    let files = v1::ActivateWhen::FilesModified.into();
    for (request, named) in [
        (v1::CreateTaskRequest { pattern: "src/**".into(), ..base.clone() }, "pattern"),
        (v1::CreateTaskRequest { activate_when: files, ..base.clone() }, "pattern"),
        (v1::CreateTaskRequest { activate_when: files, pattern: "a[".into(), ..base.clone() }, "pattern"),
        (v1::CreateTaskRequest { activate_when: 9, ..base.clone() }, "activate_when"),
        (v1::CreateTaskRequest { idempotency_key: "k".repeat(129), ..base.clone() }, "idempotency_key"),
    ] {
        assert_eq!(field(worker.clone().tasks.create_task(request).await), named);
    }
    let huge = v1::ListTasksRequest { page_size: 501, ..v1::ListTasksRequest::default() };
    assert_eq!(field(worker.clone().tasks.list_tasks(huge).await), "page_size");
    let foreign = v1::ListTasksRequest { page_token: "AQ".into(), ..v1::ListTasksRequest::default() };
    assert_eq!(field(worker.clone().tasks.list_tasks(foreign).await), "page_token");
}

#[tokio::test]
async fn a_repeat_with_its_key_is_answered_as_the_first_time_for_a_day() {
    let team = Team::start().await;
    let worker = team.as_agent(&team.worker).await;
    let request = v1::CreateTaskRequest {
        subject: "once".into(),
        idempotency_key: "k1".into(),
        ..v1::CreateTaskRequest::default()
    };
    let make = async |request: &v1::CreateTaskRequest| {
        worker.clone().tasks.create_task(request.clone()).await.map(|answer| answer.into_inner().task.unwrap())
    };
    let first = make(&request).await.unwrap();
    update(&worker, to("1", v1::TaskStatus::Completed)).await.unwrap();
    assert_eq!(make(&request).await.unwrap(), first);
    let other = v1::CreateTaskRequest { subject: "twice".into(), ..request.clone() };
    assert_eq!(reason(make(&other).await), Reason::IdempotencyConflict);
    // The same key of somebody else, or for another call, is another key.
    let boss = team.as_agent(&team.boss).await;
    boss.clone().tasks.create_task(request.clone()).await.unwrap();
    let change = v1::UpdateTaskRequest { idempotency_key: "k1".into(), ..to("1", v1::TaskStatus::Pending) };
    let changed = update(&worker, change.clone()).await.unwrap();
    assert_eq!(update(&worker, change).await.unwrap(), changed);
    assert_eq!(list(&worker, "", false).await.unwrap().len(), 1);

    // A refusal is not kept.
    let refused = v1::UpdateTaskRequest { idempotency_key: "k2".into(), ..to("2", v1::TaskStatus::Completed) };
    assert_eq!(reason(update(&worker, refused.clone()).await), Reason::TaskNotFound);
    team.world.clock.advance(24 * 3600 * 1000);
    assert_eq!(make(&request).await.unwrap().task_id, "2");
    update(&worker, refused).await.unwrap();
}

#[tokio::test]
async fn items_made_at_once_have_numbers_of_their_own_and_of_two_halves_of_a_cycle_one_wins() {
    let team = Team::start().await;
    let worker = team.as_agent(&team.worker).await;
    let made = futures::future::join_all((0..20).map(|n| {
        let worker = worker.clone();
        async move { create(&worker, "", &format!("item {n}")).await.unwrap().task_id }
    }));
    let mut numbers: Vec<u32> = made.await.iter().map(|id| id.parse().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=20).collect::<Vec<_>>());
    for pair in [["1", "2"], ["3", "4"], ["5", "6"]] {
        let (one, two) = tokio::join!(
            update(&worker, waits_for(pair[0], &[pair[1]])),
            update(&worker, waits_for(pair[1], &[pair[0]]))
        );
        assert_eq!([&one, &two].iter().filter(|result| result.is_ok()).count(), 1);
        assert_eq!(reason(one.and(two)), Reason::TaskCycle);
    }
}

#[tokio::test]
async fn a_dormant_item_wakes_with_its_files_and_is_in_nobodys_way_until_then() {
    let team = Team::start().await;
    let worker = team.as_agent(&team.worker).await;
    let request = v1::CreateTaskRequest {
        subject: "run the tests".into(),
        activate_when: v1::ActivateWhen::FilesModified.into(),
        pattern: "src/**/*.rs".into(),
        ..v1::CreateTaskRequest::default()
    };
    let dormant = worker.clone().tasks.create_task(request).await.unwrap().into_inner().task.unwrap();
    assert_eq!((dormant.activation(), dormant.pattern.as_str()), (v1::Activation::Dormant, "src/**/*.rs"));
    create(&worker, "", "ship").await.unwrap();
    update(&worker, waits_for("2", &["1"])).await.unwrap();
    assert_eq!(list(&worker, "", true).await.unwrap().len(), 1);
    for status in [v1::TaskStatus::InProgress, v1::TaskStatus::Completed] {
        assert_eq!(reason(update(&worker, to("1", status)).await), Reason::TaskState);
    }
    update(&worker, to("2", v1::TaskStatus::InProgress)).await.unwrap();

    let db = team.world.db().await;
    let changed = async |paths: &[&str]| {
        let mut tx = db.write().await.unwrap();
        let woken = files_changed(&mut tx, team.worker.id, paths, team.world.now_ms()).await.unwrap();
        tx.commit().await.unwrap();
        woken.len()
    };
    assert_eq!(changed(&["docs/a.md", "tests/a.rs"]).await, 0);
    assert_eq!(changed(&["docs/a.md", "src/deep/down/a.rs"]).await, 1);
    assert_eq!(changed(&["src/a.rs"]).await, 0);
    let awake = get(&worker, "", "1").await.unwrap();
    assert_eq!((awake.activation(), awake.rev), (v1::Activation::Active, dormant.rev + 2));
    assert_eq!(reason(update(&worker, to("2", v1::TaskStatus::Completed)).await), Reason::TaskBlocked);
    update(&worker, to("1", v1::TaskStatus::Completed)).await.unwrap();
    update(&worker, to("2", v1::TaskStatus::Completed)).await.unwrap();
    db.close().await;
}

#[tokio::test]
async fn a_full_checklist_takes_no_more_until_items_are_deleted() {
    let team = Team::start().await;
    let worker = team.as_agent(&team.worker).await;
    let made = futures::future::join_all((0..500).map(|n| {
        let worker = worker.clone();
        async move { create(&worker, "", &format!("item {n}")).await.map(drop) }
    }));
    assert!(made.await.into_iter().all(|result| result.is_ok()));
    let refused = create(&worker, "", "one too many").await;
    assert_eq!(metadata(refused.clone()), [("limit".to_owned(), "tasks".to_owned())]);
    assert_eq!(reason(refused), Reason::TaskLimit);
    update(&worker, to("1", v1::TaskStatus::Deleted)).await.unwrap();
    assert_eq!(create(&worker, "", "the last").await.unwrap().task_id, "501");
    let all: Vec<String> = (3..=66).map(|number: u32| number.to_string()).collect();
    let many = v1::UpdateTaskRequest { add_blocks: all, ..of("2") };
    assert_eq!(update(&worker, many).await.unwrap().blocks.len(), 64);
    let refused = update(&worker, v1::UpdateTaskRequest { add_blocks: vec!["67".into()], ..of("2") }).await;
    assert_eq!(metadata(refused), [("limit".to_owned(), "edges".to_owned())]);
    // Eight megabytes of descriptions come in pages that an answer can carry.
    for number in 100..=260 {
        let text = v1::UpdateTaskRequest { description: Some("x".repeat(16 * 1024)), ..of(&number.to_string()) };
        update(&worker, text).await.unwrap();
    }
    let request = v1::ListTasksRequest { page_size: 500, ..v1::ListTasksRequest::default() };
    let page = worker.clone().tasks.list_tasks(request).await.map(Response::into_inner).unwrap();
    assert!(page.tasks.len() < 300 && !page.next_page_token.is_empty(), "{}", page.tasks.len());
}

#[tokio::test]
async fn nothing_is_written_about_an_agent_that_has_ended_and_it_can_still_be_read() {
    let team = Team::start().await;
    let owner = team.world.person(&team.owner, "jdoe").await;
    let slug = team.worker.slug.as_str();
    let request = v1::CreateTaskRequest {
        slug: slug.into(),
        subject: "once".into(),
        idempotency_key: "k".into(),
        ..v1::CreateTaskRequest::default()
    };
    let first = owner.clone().tasks.create_task(request.clone()).await.unwrap().into_inner();
    team.end(&team.worker).await;
    assert_eq!(reason(create(&owner, slug, "too late").await), Reason::AgentEnded);
    let late = v1::UpdateTaskRequest { slug: slug.into(), ..to("1", v1::TaskStatus::Completed) };
    assert_eq!(reason(update(&owner, late).await), Reason::AgentEnded);
    assert_eq!(list(&owner, slug, false).await.unwrap().len(), 1);
    // What was done is answered as it was, even now.
    assert_eq!(owner.clone().tasks.create_task(request).await.unwrap().into_inner(), first);
    // A new agent of the name begins with a checklist of its own.
    team.node.agent(&team.world, "boss/worker").await;
    assert_eq!(list(&owner, slug, false).await.unwrap().len(), 0);
}

#[tokio::test]
async fn a_checklist_outlives_the_control_plane() {
    let team = Team::start().await;
    let worker = team.as_agent(&team.worker).await;
    for subject in ["a", "b"] {
        create(&worker, "", subject).await.unwrap();
    }
    update(&worker, waits_for("2", &["1"])).await.unwrap();
    let before = list(&worker, "", false).await.unwrap();
    let world = team.world.restart().await;
    let worker = world.speak_as(&team.owner, &team.worker.id.to_string()).await;
    assert_eq!(list(&worker, "", false).await.unwrap(), before);
}
