//! Queues: what is given is taken once, in order, and is never lost.

use std::collections::BTreeSet;

use murmur_core::{checklist::Subject, queue::Kind, reason::Reason};
use murmur_proto::{client::ControlClient, v1};
use murmur_server::{
    db::agent_run,
    queue::{NewFollowUp, push},
};
use tonic::{Response, Status};

use crate::{
    tasks::{Team, list as checklist},
    world::{AgentKit, NodeKit, World, field, reason},
};

pub(crate) async fn add(client: &ControlClient, slug: &str, text: &str) -> Result<v1::AddFollowUpResponse, Status> {
    let request =
        v1::AddFollowUpRequest { slug: slug.into(), description: text.into(), ..v1::AddFollowUpRequest::default() };
    client.clone().queue.add_follow_up(request).await.map(Response::into_inner)
}

async fn clear(client: &ControlClient, slug: &str) -> Result<u32, Status> {
    let request = v1::ClearQueueRequest { slug: slug.into() };
    Ok(client.clone().queue.clear_queue(request).await?.into_inner().cleared)
}

/// What waits, with whether it was handed out before.
async fn waiting(client: &ControlClient, slug: &str) -> Result<Vec<(String, bool)>, Status> {
    let (mut entries, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = v1::ListFollowUpsRequest { slug: slug.into(), page_size: 2, page_token };
        let page = client.clone().queue.list_follow_ups(request).await?.into_inner();
        entries.extend(page.follow_ups.into_iter().map(|entry| (entry.description, entry.redelivered)));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(entries);
        }
    }
}

/// The next turn of an agent's first start.
pub(crate) async fn claim(world: &World, node: &NodeKit, agent: &AgentKit) -> Result<v1::ClaimTurnResponse, Status> {
    let request = v1::ClaimTurnRequest { agent_id: agent.id.to_string(), incarnation: 1, single: false };
    node.client(world).runtime.claim_turn(request).await.map(Response::into_inner)
}

pub(crate) async fn complete(world: &World, node: &NodeKit, agent: &AgentKit, turn_id: &str) -> Result<(), Status> {
    let request = v1::CompleteTurnRequest { agent_id: agent.id.to_string(), incarnation: 1, turn_id: turn_id.into() };
    node.client(world).runtime.complete_turn(request).await.map(drop)
}

fn texts(turn: &v1::ClaimTurnResponse) -> Vec<(&str, bool)> {
    turn.follow_ups.iter().map(|entry| (entry.description.as_str(), entry.redelivered)).collect()
}

#[tokio::test]
async fn follow_ups_come_in_order_and_are_done_with_once() {
    let team = Team::start().await;
    let boss = team.as_agent(&team.boss).await;
    for (number, text) in ["one", "two", "three", "four", "five", "six"].into_iter().enumerate() {
        let added = add(&boss, "worker", text).await.unwrap();
        assert_eq!(usize::try_from(added.position).unwrap(), number);
        let agent = added.agent.unwrap();
        assert_eq!((agent.slug.as_str(), agent.queued), (team.worker.slug.as_str(), added.position + 1));
    }
    let claim = async || claim(&team.world, &team.node, &team.worker).await;
    let complete = async |turn_id: &str| complete(&team.world, &team.node, &team.worker, turn_id).await;
    let first = claim().await.unwrap();
    assert_eq!(texts(&first).len(), 5);
    assert_eq!(texts(&first)[0], ("one", false));
    assert_eq!(
        (first.follow_ups[0].from.as_str(), first.follow_ups[0].kind()),
        (team.boss.slug.as_str(), v1::FollowUpKind::Written)
    );
    assert_eq!(waiting(&boss, "worker").await.unwrap(), [("six".to_owned(), false)]);
    // Its answer may have been lost: the same turn, marked.
    let again = claim().await.unwrap();
    assert_eq!((again.turn_id.as_str(), texts(&again)[4]), (first.turn_id.as_str(), ("five", true)));
    complete(&first.turn_id).await.unwrap();
    complete(&first.turn_id).await.unwrap();
    let second = claim().await.unwrap();
    assert_eq!(texts(&second), [("six", false)]);
    assert_eq!(reason(complete(&first.turn_id).await), Reason::TurnNotFound);
    complete(&second.turn_id).await.unwrap();
    assert_eq!(claim().await.unwrap(), v1::ClaimTurnResponse::default());
}

#[tokio::test]
async fn work_for_a_slug_that_is_not_there_is_refused_and_not_dropped_in_silence() {
    let team = Team::start().await;
    let boss = team.as_agent(&team.boss).await;
    assert_eq!(reason(add(&boss, "nobody", "lost").await), Reason::AgentNotFound);
    assert_eq!(field(add(&boss, "", "for whom?").await), "slug");
    assert_eq!(reason(add(&boss, &team.other.slug, "not mine").await), Reason::AgentNotYours);
    assert_eq!(reason(clear(&boss, &team.other.slug).await), Reason::AgentNotYours);
    team.end(&team.worker).await;
    assert_eq!(reason(add(&boss, "worker", "too late").await), Reason::AgentEnded);
    assert_eq!(reason(clear(&boss, "worker").await), Reason::AgentEnded);
    assert_eq!(reason(claim(&team.world, &team.node, &team.worker).await), Reason::AgentEnded);
}

#[tokio::test]
async fn a_lease_that_is_over_gives_its_follow_ups_back_marked() {
    let team = Team::start().await;
    let boss = team.as_agent(&team.boss).await;
    add(&boss, "worker", "one").await.unwrap();
    let lost = claim(&team.world, &team.node, &team.worker).await.unwrap();
    add(&boss, "worker", "two").await.unwrap();
    team.world.clock.advance(5 * 60 * 1000);
    assert_eq!(waiting(&boss, "worker").await.unwrap(), [("one".to_owned(), true), ("two".to_owned(), false)]);
    let turn = claim(&team.world, &team.node, &team.worker).await.unwrap();
    assert_eq!(texts(&turn), [("one", true), ("two", false)]);
    assert_ne!(turn.turn_id, lost.turn_id);
    let refused = complete(&team.world, &team.node, &team.worker, &lost.turn_id).await;
    assert_eq!(reason(refused), Reason::TurnNotFound);
    // Late, but nobody else has had them.
    team.world.clock.advance(5 * 60 * 1000);
    complete(&team.world, &team.node, &team.worker, &turn.turn_id).await.unwrap();
    assert_eq!(waiting(&boss, "worker").await.unwrap(), []);
}

#[tokio::test]
async fn an_incarnation_that_does_not_live_takes_nothing() {
    let team = Team::start().await;
    let boss = team.as_agent(&team.boss).await;
    add(&boss, "worker", "one").await.unwrap();
    let request = v1::ClaimTurnRequest { agent_id: team.worker.id.to_string(), incarnation: 2, single: false };
    let refused = team.node.client(&team.world).runtime.claim_turn(request).await;
    assert_eq!(reason(refused), Reason::IncarnationStale);
    // Another node's agent is not there.
    let stranger = team.world.node(&team.owner, "jdoe", 2).await;
    assert_eq!(reason(claim(&team.world, &stranger, &team.worker).await), Reason::AgentNotFound);
    assert_eq!(waiting(&boss, "worker").await.unwrap(), [("one".to_owned(), false)]);
}

#[tokio::test]
async fn clearing_drops_what_waits_and_leaves_the_current_turn() {
    let team = Team::start().await;
    let boss = team.as_agent(&team.boss).await;
    add(&boss, "worker", "one").await.unwrap();
    let turn = claim(&team.world, &team.node, &team.worker).await.unwrap();
    for text in ["two", "three"] {
        add(&boss, "worker", text).await.unwrap();
    }
    assert_eq!(clear(&boss, "worker").await.unwrap(), 2);
    assert_eq!(clear(&boss, "worker").await.unwrap(), 0);
    let again = claim(&team.world, &team.node, &team.worker).await.unwrap();
    assert_eq!(texts(&again), [("one", true)]);
    complete(&team.world, &team.node, &team.worker, &turn.turn_id).await.unwrap();
    // An agent clears its own, too.
    let worker = team.as_agent(&team.worker).await;
    add(&boss, "worker", "four").await.unwrap();
    assert_eq!(clear(&worker, "").await.unwrap(), 1);
}

#[tokio::test]
async fn what_people_wrote_and_events_never_share_a_turn() {
    let team = Team::start().await;
    let (boss, db) = (team.as_agent(&team.boss).await, team.world.db().await);
    let workspace_id = team.owner.root.workspace_id();
    let event = async |text: &str| {
        let mut tx = db.write().await.unwrap();
        let run = agent_run::get(&mut tx, workspace_id, team.worker.id).await.unwrap().unwrap();
        let new = NewFollowUp { kind: Kind::Event, description: text.into(), tasks: Vec::new() };
        push(&mut tx, &run, "ci".into(), new, team.world.now_ms()).await.unwrap();
        tx.commit().await.unwrap();
    };
    add(&boss, "worker", "written").await.unwrap();
    event("red").await;
    event("green").await;
    add(&boss, "worker", "written too").await.unwrap();
    let mut turns = Vec::new();
    loop {
        let turn = claim(&team.world, &team.node, &team.worker).await.unwrap();
        if turn.turn_id.is_empty() {
            break;
        }
        turns.push(texts(&turn).iter().map(|(text, _)| (*text).to_owned()).collect::<Vec<_>>());
        complete(&team.world, &team.node, &team.worker, &turn.turn_id).await.unwrap();
    }
    assert_eq!(turns, [vec!["written"], vec!["red", "green"], vec!["written too"]]);
    db.close().await;
}

#[tokio::test]
async fn items_join_the_checklist_with_their_follow_up_or_neither_does() {
    let team = Team::start().await;
    let boss = team.as_agent(&team.boss).await;
    let with = |tasks: Vec<String>| v1::AddFollowUpRequest {
        slug: "worker".into(),
        description: "do these".into(),
        tasks,
        idempotency_key: "k".into(),
    };
    let request = with(vec!["a".into(), "b".into()]);
    let first = boss.clone().queue.add_follow_up(request.clone()).await.unwrap().into_inner();
    let repeat = boss.clone().queue.add_follow_up(request).await.unwrap().into_inner();
    assert_eq!((repeat.follow_up_id, repeat.position, repeat.agent.unwrap().queued), (first.follow_up_id, 0, 1));
    let conflict = boss.clone().queue.add_follow_up(with(vec!["c".into()])).await;
    assert_eq!(reason(conflict), Reason::IdempotencyConflict);
    let subjects = |tasks: Vec<v1::Task>| tasks.into_iter().map(|task| task.subject).collect::<Vec<_>>();
    assert_eq!(subjects(checklist(&boss, "worker", false).await.unwrap()), ["a", "b"]);
    let turn = claim(&team.world, &team.node, &team.worker).await.unwrap();
    assert_eq!(turn.follow_ups[0].tasks, ["a", "b"]);

    let fill = async |key: String, count: usize| {
        let tasks = vec!["x".to_owned(); count];
        let request = v1::AddFollowUpRequest { idempotency_key: key, ..with(tasks) };
        boss.clone().queue.add_follow_up(request).await.map(drop)
    };
    for number in 0..4 {
        fill(format!("fill {number}"), 100).await.unwrap();
    }
    let before = waiting(&boss, "worker").await.unwrap().len();
    assert_eq!(reason(fill("over".into(), 99).await), Reason::TaskLimit);
    assert_eq!(waiting(&boss, "worker").await.unwrap().len(), before);
    fill("to the brim".into(), 98).await.unwrap();
    assert_eq!(field(fill("many".into(), 101).await), "tasks");
    assert!("".parse::<Subject>().is_err());
    assert_eq!(field(boss.clone().queue.add_follow_up(with(vec![String::new()])).await), "tasks");
}

#[tokio::test]
async fn a_full_queue_takes_no_more_and_a_turn_fits_into_an_answer() {
    let team = Team::start().await;
    let boss = team.as_agent(&team.boss).await;
    assert_eq!(field(add(&boss, "worker", &"x".repeat(64 * 1024 + 1)).await), "description");
    assert_eq!(field(add(&boss, "worker", " \n").await), "description");
    assert_eq!(field(add(&boss, "worker", "a\0b").await), "description");
    let large = "x".repeat(64 * 1024);
    let mut positions = BTreeSet::new();
    // Not all at once: the last of them would wait longer for its turn to write than the database lets it.
    for _ in 0..16 {
        let added = futures::future::join_all((0..16).map(|_| add(&boss, "worker", &large))).await;
        positions.extend(added.into_iter().map(|added| added.unwrap().position));
    }
    assert_eq!(positions, (0..256).collect());
    assert_eq!(reason(add(&boss, "worker", "one too many").await), Reason::QueueFull);
    let request = v1::ListFollowUpsRequest { slug: "worker".into(), page_size: 256, page_token: String::new() };
    let page = boss.clone().queue.list_follow_ups(request).await.unwrap().into_inner();
    assert!(page.follow_ups.len() < 64 && !page.next_page_token.is_empty());
    assert_eq!(waiting(&boss, "worker").await.unwrap().len(), 256);
    let turn = claim(&team.world, &team.node, &team.worker).await.unwrap();
    assert_eq!(turn.follow_ups.len(), 5);
    // What a turn holds still takes its place.
    assert_eq!(reason(add(&boss, "worker", "one too many").await), Reason::QueueFull);
    complete(&team.world, &team.node, &team.worker, &turn.turn_id).await.unwrap();
    add(&boss, "worker", "there is room again").await.unwrap();
}

#[tokio::test]
async fn a_queue_and_its_open_turn_outlive_the_control_plane() {
    let team = Team::start().await;
    let boss = team.as_agent(&team.boss).await;
    for text in ["one", "two"] {
        add(&boss, "worker", text).await.unwrap();
    }
    let turn = claim(&team.world, &team.node, &team.worker).await.unwrap();
    add(&boss, "worker", "three").await.unwrap();
    let world = team.world.restart().await;
    let boss = world.speak_as(&team.owner, &team.boss.id.to_string()).await;
    assert_eq!(waiting(&boss, "worker").await.unwrap(), [("three".to_owned(), false)]);
    let again = claim(&world, &team.node, &team.worker).await.unwrap();
    assert_eq!(again.turn_id, turn.turn_id);
    complete(&world, &team.node, &team.worker, &turn.turn_id).await.unwrap();
    assert_eq!(texts(&claim(&world, &team.node, &team.worker).await.unwrap()), [("three", false)]);
}

#[tokio::test]
async fn claims_at_once_give_one_turn() {
    let team = Team::start().await;
    let boss = team.as_agent(&team.boss).await;
    for number in 0..8 {
        add(&boss, "worker", &number.to_string()).await.unwrap();
    }
    let claims = futures::future::join_all((0..8).map(|_| claim(&team.world, &team.node, &team.worker))).await;
    let turns: BTreeSet<String> = claims.into_iter().map(|turn| turn.unwrap().turn_id).collect();
    assert_eq!(turns.len(), 1);
}

#[tokio::test]
async fn what_many_give_at_once_is_taken_once_each_and_in_each_givers_order() {
    const GIVERS: usize = 4;
    const EACH: usize = 20;
    let team = Team::start().await;
    let boss = team.as_agent(&team.boss).await;
    let give = futures::future::join_all((0..GIVERS).map(|giver| {
        let boss = boss.clone();
        async move {
            for number in 0..EACH {
                add(&boss, "worker", &format!("{giver} {number}")).await.unwrap();
            }
        }
    }));
    let take = async {
        let mut taken = Vec::new();
        while taken.len() < GIVERS * EACH {
            let turn = claim(&team.world, &team.node, &team.worker).await.unwrap();
            if !turn.turn_id.is_empty() {
                assert!(turn.follow_ups.iter().all(|entry| !entry.redelivered));
                complete(&team.world, &team.node, &team.worker, &turn.turn_id).await.unwrap();
                taken.extend(turn.follow_ups.into_iter().map(|entry| entry.description));
            }
        }
        taken
    };
    let (_, taken) = tokio::join!(give, take);
    for giver in 0..GIVERS {
        let own: Vec<_> = taken.iter().filter(|text| text.starts_with(&format!("{giver} "))).cloned().collect();
        assert_eq!(own, (0..EACH).map(|number| format!("{giver} {number}")).collect::<Vec<_>>());
    }
}
