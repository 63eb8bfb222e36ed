//! The real control plane, behind the same operations.

use std::collections::HashMap;

use murmur_core::{
    checklist::Status as TaskStatus,
    id::{AgentId, Incarnation},
    phase::Phase,
    queue::DequeueStrategy,
    reason::Reason,
};
use murmur_proto::{
    client::{AS_HEADER, ControlClient, INCARNATION_HEADER},
    status::RpcError,
    v1,
};
use murmur_server::{db::Db, tasks::files_changed};
use tonic::{Request, Response, Status};

use super::{
    op::{Edit, FILES, Op, PATHS, PATTERNS},
    state::{Model, Out, Who, slug},
};
use crate::{
    sessions::{Open, hello},
    world::World,
};

const YEARS_MS: u64 = 10 * 365 * 24 * 3600 * 1000;

pub(super) struct Real {
    pub(super) world: World,
    client: ControlClient,
    colleague: ControlClient,
    db: Db,
    /// By the number of their lives.
    pub(super) ids: Vec<String>,
    /// By life and number of the turn.
    turns: HashMap<(usize, u32), String>,
    /// While it lives, the node is online.
    _session: Open,
}

/// An item as it is shown.
#[derive(Debug, PartialEq)]
struct Shown {
    number: u32,
    subject: String,
    status: v1::TaskStatus,
    rev: u64,
    /// What it waits for.
    dormant: Option<String>,
    waits: Vec<u32>,
}

impl Real {
    pub(super) async fn start() -> Self {
        let world = World::with(|config| {
            let many = 1_000_000.try_into().unwrap();
            config.spawn_per_minute = many;
            // Time goes in leaps here, and the node is not to be lost by that.
            config.lease_ms = u32::MAX;
            config.node_lost_ms = YEARS_MS.try_into().unwrap();
        })
        .await;
        let owner = world.workspace("acme").await;
        let node = world.node(&owner, "jdoe", 1).await;
        let other = world.node(&owner, "mallory", 2).await;
        let session = Open::welcome(&world, &node, hello(1)).await;
        let (client, colleague) = (node.client(&world), other.client(&world));
        let db = world.db().await;
        let me = node.agent(&world, PATHS[PATHS.len() - 1]).await;
        let (ids, turns) = (vec![me.id.to_string()], HashMap::new());
        let real = Self { world, client, colleague, db, ids, turns, _session: session };
        let facts = v1::ReportNodeRequest {
            backends: vec![v1::NodeBackend { name: "command".into(), ..v1::NodeBackend::default() }],
            default_backend: "command".into(),
            capacity: 1000,
            ..v1::ReportNodeRequest::default()
        };
        real.client.clone().runtime.report_node(real.as_node(facts)).await.unwrap();
        real
    }

    pub(super) async fn stop(self) {
        self.db.close().await;
    }

    fn as_node<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let incarnation = Incarnation::from_bytes([1; 16]).to_string();
        request.metadata_mut().insert(INCARNATION_HEADER, incarnation.parse().unwrap());
        request
    }

    /// A call of somebody, and the client of the node that speaks for them.
    fn call<T>(&self, who: Who, message: T) -> (ControlClient, Request<T>) {
        let (client, mut request, name) = match who {
            Who::Owner => (&self.client, self.as_node(message), "user".to_owned()),
            Who::Colleague => (&self.colleague, Request::new(message), "user".to_owned()),
            Who::Agent(life) => (&self.client, self.as_node(message), format!("agent:{}", self.ids[life])),
        };
        request.metadata_mut().insert(AS_HEADER, name.parse().unwrap());
        (client.clone(), request)
    }

    /// Does what the model has done already.
    pub(super) async fn apply(&mut self, model: &Model, who: Who, op: &Op, text: &str) -> Result<Out, Reason> {
        let answer = self.send(model, who, op, text).await;
        answer.map_err(|status| {
            RpcError::from(&status).reason.unwrap_or_else(|| panic!("no reason in {status:?} of {op:?}"))
        })
    }

    async fn send(&mut self, model: &Model, who: Who, op: &Op, text: &str) -> Result<Out, Status> {
        match op {
            Op::Create { at, pattern, key, .. } => {
                let files = v1::ActivateWhen::FilesModified.into();
                let (mut client, request) = self.call(
                    who,
                    v1::CreateTaskRequest {
                        slug: slug(*at),
                        subject: text.into(),
                        description: String::new(),
                        activate_when: pattern.map_or(0, |_| files),
                        pattern: pattern.map_or("", |pattern| PATTERNS[pattern]).into(),
                        idempotency_key: name(*key),
                    },
                );
                let task = client.tasks.create_task(request).await?.into_inner().task.unwrap();
                Ok(Out::Task(task.task_id.parse().unwrap()))
            }
            Op::Update { at, task, edit, key, .. } => {
                let (mut client, request) = self.call(who, update(slug(*at), *task, edit, name(*key)));
                client.tasks.update_task(request).await.map(|_| Out::Done)
            }
            Op::FilesChanged { at, file } => Ok(self.files_changed(model, *at, *file).await),
            Op::Add { at, tasks, key, .. } => {
                let (mut client, request) = self.call(
                    who,
                    v1::AddFollowUpRequest {
                        slug: slug(*at),
                        description: text.into(),
                        tasks: (0..*tasks).map(|number| format!("{text} {number}")).collect(),
                        idempotency_key: name(*key),
                    },
                );
                Ok(Out::Position(client.queue.add_follow_up(request).await?.into_inner().position))
            }
            Op::Clear { at, .. } => {
                let (mut client, request) = self.call(who, v1::ClearQueueRequest { slug: slug(*at) });
                Ok(Out::Cleared(client.queue.clear_queue(request).await?.into_inner().cleared))
            }
            Op::Claim { at, stale } => self.claim(model, *at, *stale).await,
            Op::Complete { at, back, stale } => {
                let (life, agent_id, incarnation) = self.agent(model, *at, *stale);
                let turn = model.lives.get(life).and_then(|life| life.turns.checked_sub(*back));
                let turn_id = turn.and_then(|turn| self.turns.get(&(life, turn)).cloned()).unwrap_or_else(no_id);
                let request = v1::CompleteTurnRequest { agent_id, incarnation, turn_id };
                self.client.clone().runtime.complete_turn(self.as_node(request)).await.map(|_| Out::Done)
            }
            Op::Spawn { at, tasks, dequeue, resurrect, force_new, .. } => {
                let spec = v1::AgentSpec {
                    description: "work".into(),
                    tasks: (0..*tasks).map(|number| format!("spawned {number}")).collect(),
                    dequeue_strategy: wire_strategy(*dequeue).into(),
                    ..v1::AgentSpec::default()
                };
                let (mut client, request) = self.call(
                    who,
                    v1::SpawnAgentRequest {
                        slug: slug(*at),
                        spec: Some(spec),
                        resurrect: *resurrect,
                        force_new: *force_new,
                        ..v1::SpawnAgentRequest::default()
                    },
                );
                let agents = client.agents.spawn_agent(request).await?.into_inner().agents;
                if self.ids.len() < model.lives.len() {
                    self.ids.push(agents[0].agent_id.clone());
                }
                Ok(Out::Done)
            }
            Op::Report { at, phase, stale } => self.report(model, *at, *phase, *stale).await,
            Op::Kill { at, .. } => {
                let request = v1::KillAgentRequest { slug: slug(*at), ..v1::KillAgentRequest::default() };
                let (mut client, request) = self.call(who, request);
                let killed = client.agents.kill_agent(request).await?.into_inner();
                Ok(Out::Killed { slugs: killed.killed, pending: killed.pending })
            }
            Op::Wait { at, phases } => {
                let (mut client, request) = self.call(
                    Who::Owner,
                    v1::WaitAgentRequest {
                        slug: slug(*at),
                        phases: phases.iter().map(|phase| wire_phase(*phase).into()).collect(),
                        timeout: Some(prost_types::Duration::default()),
                    },
                );
                let answer = crate::world::next(&mut client.agents.wait_agent(request).await?.into_inner()).await;
                Ok(Out::Waited { matched: answer.matched, timed_out: answer.timed_out })
            }
            Op::Advance { ms } => {
                self.world.clock.advance(*ms);
                // What is over by then ends a moment later.
                for at in
                    (0..PATHS.len()).filter(|at| model.newest(*at).is_some_and(|life| model.lives[life].is_ended()))
                {
                    while !read_phase(self.status(at).await.phase()).is_ended() {
                        tokio::task::yield_now().await;
                    }
                }
                Ok(Out::Done)
            }
        }
    }

    async fn claim(&mut self, model: &Model, at: usize, stale: bool) -> Result<Out, Status> {
        let (life, agent_id, incarnation) = self.agent(model, at, stale);
        let request = v1::ClaimTurnRequest { agent_id, incarnation, single: false };
        let turn = self.client.clone().runtime.claim_turn(self.as_node(request)).await?.into_inner();
        if !turn.turn_id.is_empty() {
            self.turns.insert((life, model.lives[life].turns), turn.turn_id);
        }
        Ok(Out::Turn(turn.follow_ups.into_iter().map(|entry| (entry.description, entry.redelivered)).collect()))
    }

    async fn report(&mut self, model: &Model, at: usize, phase: Phase, stale: bool) -> Result<Out, Status> {
        let Some(life) = model.newest(at) else {
            return Ok(Out::Report { stale: true, refused: false, phase: Phase::Starting });
        };
        // The model is ahead: what its report did to the incarnation is not known to the node that reports.
        let incarnation = self.status(at).await.incarnation - u32::from(stale);
        let report = v1::AgentReport {
            agent_id: self.ids[life].clone(),
            incarnation,
            phase: wire_phase(phase).into(),
            ..v1::AgentReport::default()
        };
        let request = v1::ReportAgentsRequest { reports: vec![report], report_id: new_id() };
        let answer = self.client.clone().runtime.report_agents(self.as_node(request)).await?.into_inner();
        let result = &answer.results[0];
        let phase = read_phase(result.phase());
        Ok(Out::Report { stale: result.stale, refused: !result.refused.is_empty(), phase })
    }

    async fn files_changed(&self, model: &Model, at: usize, file: usize) -> Out {
        let Some(life) = model.newest(at) else { return Out::Woken(Vec::new()) };
        let id: AgentId = self.ids[life].parse().unwrap();
        let mut tx = self.db.write().await.unwrap();
        let woken = files_changed(&mut tx, id, &[FILES[file]], self.world.now_ms()).await.unwrap();
        tx.commit().await.unwrap();
        Out::Woken(woken.into_iter().map(murmur_core::checklist::TaskId::get).collect())
    }

    /// Life, id and incarnation of the agent at a place; those of nobody when there is none.
    fn agent(&self, model: &Model, at: usize, stale: bool) -> (usize, String, u32) {
        let Some(life) = model.newest(at) else { return (usize::MAX, no_id(), 1) };
        (life, self.ids[life].clone(), model.lives[life].incarnation - u32::from(stale))
    }

    async fn status(&self, at: usize) -> v1::AgentStatus {
        let request = v1::GetAgentStatusRequest { slug: slug(at), ..v1::GetAgentStatusRequest::default() };
        let (mut client, request) = self.call(Who::Owner, request);
        client.agents.get_agent_status(request).await.unwrap().into_inner().agent.unwrap()
    }

    /// Compares everything about the agent at a place.
    pub(super) async fn compare(&self, model: &Model, at: usize) {
        let Some(number) = model.newest(at) else { return };
        let life = &model.lives[number];
        let status = self.status(at).await;
        assert_eq!(status.agent_id, self.ids[number]);
        let waiting = life.waiting(model.now_ms);
        assert_eq!(
            (read_phase(status.phase()), status.rev, status.incarnation, status.queued as usize),
            (life.phase, life.rev, life.incarnation, waiting.len()),
            "phase, rev, incarnation and queued of {}: {}",
            PATHS[at],
            status.reason
        );
        assert_eq!(self.waiting(at).await, waiting, "the queue of {}", PATHS[at]);
        let expected: Vec<_> = life
            .items
            .iter()
            .filter(|(_, item)| item.status != TaskStatus::Deleted)
            .map(|(number, item)| {
                let waits = life.waits.iter().filter(|(waiting, _)| waiting == number).map(|(_, first)| *first);
                let dormant = item.pattern.map(|pattern| PATTERNS[pattern].to_owned());
                let (subject, status) = (item.subject.clone(), wire_status(item.status));
                Shown { number: *number, subject, status, rev: item.rev, dormant, waits: waits.collect() }
            })
            .collect();
        assert_eq!(self.items(at).await, expected, "the checklist of {}", PATHS[at]);
    }

    async fn waiting(&self, at: usize) -> Vec<(String, bool)> {
        let request = v1::ListFollowUpsRequest { slug: slug(at), page_size: 256, page_token: String::new() };
        let (mut client, request) = self.call(Who::Owner, request);
        let listed = client.queue.list_follow_ups(request).await.map(Response::into_inner).unwrap();
        listed.follow_ups.into_iter().map(|entry| (entry.description, entry.redelivered)).collect()
    }

    async fn items(&self, at: usize) -> Vec<Shown> {
        let request = v1::ListTasksRequest { slug: slug(at), page_size: 500, ..v1::ListTasksRequest::default() };
        let (mut client, request) = self.call(Who::Owner, request);
        let listed = client.tasks.list_tasks(request).await.map(Response::into_inner).unwrap();
        let item = |task: v1::Task| {
            let (status, activation) = (task.status(), task.activation());
            let dormant = (activation == v1::Activation::Dormant).then_some(task.pattern);
            let waits = task.blocked_by.iter().map(|id| id.parse().unwrap()).collect();
            let number = task.task_id.parse().unwrap();
            Shown { number, subject: task.subject, status, rev: task.rev, dormant, waits }
        };
        listed.tasks.into_iter().map(item).collect()
    }
}

fn update(slug: String, task: u32, edit: &Edit, idempotency_key: String) -> v1::UpdateTaskRequest {
    let texts = |ids: &[u32]| ids.iter().map(ToString::to_string).collect();
    v1::UpdateTaskRequest {
        slug,
        task_id: task.to_string(),
        status: edit.status.map(|status| wire_status(status).into()),
        subject: edit.subject.clone(),
        description: None,
        add_blocks: texts(&edit.add_blocks),
        add_blocked_by: texts(&edit.add_blocked_by),
        remove_blocks: texts(&edit.remove_blocks),
        remove_blocked_by: texts(&edit.remove_blocked_by),
        idempotency_key,
    }
}

fn name(key: Option<u8>) -> String {
    key.map(|key| format!("key {key}")).unwrap_or_default()
}

fn no_id() -> String {
    AgentId::from_bytes([9; 16]).to_string()
}

fn new_id() -> String {
    let mut random = [0; 16];
    getrandom::fill(&mut random).unwrap();
    AgentId::from_bytes(random).to_string()
}

const fn wire_status(status: TaskStatus) -> v1::TaskStatus {
    match status {
        TaskStatus::Pending => v1::TaskStatus::Pending,
        TaskStatus::InProgress => v1::TaskStatus::InProgress,
        TaskStatus::Completed => v1::TaskStatus::Completed,
        TaskStatus::Deleted => v1::TaskStatus::Deleted,
    }
}

const fn wire_strategy(strategy: DequeueStrategy) -> v1::DequeueStrategy {
    match strategy {
        DequeueStrategy::Auto => v1::DequeueStrategy::Auto,
        DequeueStrategy::All => v1::DequeueStrategy::All,
        DequeueStrategy::One => v1::DequeueStrategy::One,
        DequeueStrategy::Five => v1::DequeueStrategy::Five,
    }
}

fn wire_phase(phase: Phase) -> v1::Phase {
    let name = format!("PHASE_{}", phase.as_str().to_uppercase().replace('-', "_"));
    v1::Phase::from_str_name(&name).unwrap()
}

fn read_phase(phase: v1::Phase) -> Phase {
    phase.as_str_name().parse().unwrap()
}
