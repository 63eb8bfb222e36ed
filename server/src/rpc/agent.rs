//! `murmur.v1.AgentService`.

use std::{sync::Arc, time::Duration};

use murmur_core::{limits::FOLLOW_UPS_MAX, phase::Phase};
use murmur_proto::{
    time::span,
    v1::{self, agent_service_server::AgentService, watch_agent_status_response::Item},
};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{Answers, STREAM_ITEMS_MAX, caller, convert, convert_agent, status};
use crate::{
    agents::{Agents, Listing, read_phase},
    clock::Clock,
    db::{Db, agent_run::AgentRun},
    idempotency::Once,
    invalid::Invalid,
    lifecycle::Lifecycle,
    links::PublicUrl,
    queue,
    tokens::Principal,
};

/// Spawning, watching and stopping agents.
pub(crate) struct AgentRpc {
    pub(crate) agents: Arc<Agents>,
    /// For what waits in queues.
    pub(crate) db: Db,
    pub(crate) clock: Clock,
    pub(crate) lifecycle: Lifecycle,
    /// What links begin with.
    pub(crate) public: PublicUrl,
}

impl AgentRpc {
    fn status(&self, run: AgentRun) -> v1::AgentStatus {
        status_of(&self.agents, &self.clock, run)
    }
}

fn status_of(agents: &Agents, clock: &Clock, run: AgentRun) -> v1::AgentStatus {
    let queued = run.backlog.waiting(run.incarnation, clock.now_ms());
    let kept_until_ms = agents.kept_until(&run);
    convert_agent::status(run, queued, kept_until_ms)
}

#[tonic::async_trait]
impl AgentService for AgentRpc {
    async fn spawn_agent(
        &self,
        request: Request<v1::SpawnAgentRequest>,
    ) -> Result<Response<v1::SpawnAgentResponse>, Status> {
        let caller = caller(&request)?;
        let runs = self.agents.spawn(&caller, request.into_inner()).await?;
        Ok(Response::new(v1::SpawnAgentResponse { agents: runs.into_iter().map(|run| self.status(run)).collect() }))
    }

    async fn kill_agent(
        &self,
        request: Request<v1::KillAgentRequest>,
    ) -> Result<Response<v1::KillAgentResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let once = Once::new(&caller, "KillAgent", &request.idempotency_key, &request.encode_to_vec())?;
        let killed = self.agents.kill(&caller, &request.slug, &request.reason, once.as_ref()).await?;
        Ok(Response::new(v1::KillAgentResponse { killed: killed.slugs, pending: killed.pending }))
    }

    async fn interrupt_agent(
        &self,
        request: Request<v1::InterruptAgentRequest>,
    ) -> Result<Response<v1::InterruptAgentResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let once = Once::new(&caller, "InterruptAgent", &request.idempotency_key, &request.encode_to_vec())?;
        let interrupted = self.agents.interrupt(&caller, &request.slug, once.as_ref()).await?;
        Ok(Response::new(v1::InterruptAgentResponse { interrupted }))
    }

    async fn create_agent_link(
        &self,
        request: Request<v1::CreateAgentLinkRequest>,
    ) -> Result<Response<v1::CreateAgentLinkResponse>, Status> {
        let caller = caller(&request)?;
        let linked = self.agents.link(&caller, &request.get_ref().slug).await?;
        Ok(Response::new(v1::CreateAgentLinkResponse {
            url: self.public.agent(linked.key),
            slug: linked.run.slug.to_string(),
            expire_time: Some(convert::timestamp(linked.expire_ms)),
        }))
    }

    type WaitAgentStream = Answers<v1::WaitAgentResponse>;

    async fn wait_agent(
        &self,
        request: Request<v1::WaitAgentRequest>,
    ) -> Result<Response<Self::WaitAgentStream>, Status> {
        let caller = caller(&request)?;
        let v1::WaitAgentRequest { slug, phases, timeout } = request.into_inner();
        let phases = phases.into_iter().map(|phase| phase_of("phases", phase)).collect::<Result<Vec<_>, _>>()?;
        let timeout = timeout.map(duration).transpose()?;
        let agents = Arc::clone(&self.agents);
        let (clock, drain) = (self.clock.clone(), self.lifecycle.clone());
        // Found before the answer begins, so that a slug that means nobody refuses the call itself.
        let wait = agents.begin_wait(&caller, &slug).await?;
        let (answers, stream) = mpsc::channel(1);
        self.lifecycle.spawn(async move {
            let waited = async {
                let waited = agents.wait(&caller, &wait, &phases, timeout).await?;
                let (matched, timed_out) = (waited.matched, waited.timed_out);
                let agent = status_of(&agents, &clock, waited.run);
                Ok::<_, Status>(v1::WaitAgentResponse { agent: Some(agent), matched, timed_out })
            };
            tokio::select! {
                answer = waited => { let _ = answers.send(answer).await; }
                () = drain.draining() => { let _ = answers.try_send(Err(status::draining())); }
                () = answers.closed() => {}
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn list_agent_status(
        &self,
        request: Request<v1::ListAgentStatusRequest>,
    ) -> Result<Response<v1::ListAgentStatusResponse>, Status> {
        let caller = caller(&request)?;
        let v1::ListAgentStatusRequest { all, account, parent, phase, page_size, page_token } = request.into_inner();
        let phase = if phase == 0 { None } else { Some(phase_of("phase", phase)?) };
        let wanted = Listing { all, account, parent, phase };
        let (runs, next_page_token) = self.agents.list(&caller, &wanted, page_size, &page_token).await?;
        Ok(Response::new(v1::ListAgentStatusResponse {
            agents: runs.into_iter().map(|run| self.status(run)).collect(),
            next_page_token,
        }))
    }

    async fn get_agent_status(
        &self,
        request: Request<v1::GetAgentStatusRequest>,
    ) -> Result<Response<v1::GetAgentStatusResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let kinds: Vec<_> = request.timeline().collect();
        if kinds.len() != request.timeline.len() || kinds.contains(&v1::TimelineKind::Unspecified) {
            return Err(Invalid::new("timeline", "must be kinds of the contract").into());
        }
        let found = self.agents.detail(&caller, &request.slug, request.children, &kinds).await?;
        let follow_ups = self.follow_ups(&found.run).await?;
        Ok(Response::new(v1::GetAgentStatusResponse {
            agent: Some(self.status(found.run)),
            children: found.children.into_iter().map(|run| self.status(run)).collect(),
            timeline: found.timeline.into_iter().map(convert_agent::entry).collect(),
            queued_follow_ups: follow_ups,
        }))
    }

    type WatchAgentStatusStream = Answers<v1::WatchAgentStatusResponse>;

    async fn watch_agent_status(
        &self,
        request: Request<v1::WatchAgentStatusRequest>,
    ) -> Result<Response<Self::WatchAgentStatusStream>, Status> {
        let caller = caller(&request)?;
        let v1::WatchAgentStatusRequest { account, parent, all } = request.into_inner();
        let wanted = Listing { all, account, parent, phase: None };
        let bell = self.agents.listen(&caller)?;
        // Read before the answer begins, so that a wrong parent refuses the call itself.
        self.agents.list(&caller, &wanted, 1, "").await?;
        let (answers, stream) = mpsc::channel(STREAM_ITEMS_MAX);
        let watching =
            Watching { agents: Arc::clone(&self.agents), clock: self.clock.clone(), caller, wanted, bell, answers };
        let drain = self.lifecycle.clone();
        self.lifecycle.spawn(async move {
            let answers = watching.answers.clone();
            tokio::select! {
                result = watching.run() => if let Err(Some(status)) = result {
                    let _ = answers.send(Err(status)).await;
                },
                () = drain.draining() => { let _ = answers.try_send(Err(status::draining())); }
                () = answers.closed() => {}
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn update_agent_status(
        &self,
        request: Request<v1::UpdateAgentStatusRequest>,
    ) -> Result<Response<v1::UpdateAgentStatusResponse>, Status> {
        let caller = caller(&request)?;
        let run = self.agents.update(&caller, request.into_inner()).await?;
        Ok(Response::new(v1::UpdateAgentStatusResponse { agent: Some(self.status(run)) }))
    }

    type WatchAgentOutputStream = Answers<v1::WatchAgentOutputResponse>;

    async fn watch_agent_output(
        &self,
        request: Request<v1::WatchAgentOutputRequest>,
    ) -> Result<Response<Self::WatchAgentOutputStream>, Status> {
        let caller = caller(&request)?;
        let mut watch = self.agents.watch_output(&caller, request.get_ref()).await?;
        let (answers, stream) = mpsc::channel(STREAM_ITEMS_MAX);
        let drain = self.lifecycle.clone();
        self.lifecycle.spawn(async move {
            let relayed = async {
                while let Some(chunk) = watch.chunks.recv().await {
                    let response = v1::WatchAgentOutputResponse { chunk: Some(chunk) };
                    if answers.send(Ok(response)).await.is_err() {
                        return;
                    }
                }
                if let Err(error) = watch.end() {
                    let _ = answers.send(Err(error.into())).await;
                }
            };
            tokio::select! {
                () = relayed => {}
                () = drain.draining() => { let _ = answers.try_send(Err(status::draining())); }
                () = answers.closed() => {}
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

impl AgentRpc {
    async fn follow_ups(&self, run: &AgentRun) -> Result<Vec<v1::FollowUp>, Status> {
        if run.backlog.is_empty() {
            return Ok(Vec::new());
        }
        let waiting = async {
            let mut tx = self.db.read().await?;
            let max = u32::try_from(FOLLOW_UPS_MAX).unwrap_or(u32::MAX);
            queue::waiting(&mut tx, run.agent_id, run.incarnation, self.clock.now_ms(), max).await
        };
        let waiting = waiting.await.map_err(crate::agents::AgentError::from)?;
        // As many as fit into an answer; all of them are told by ListFollowUps.
        let mut bytes = 0;
        let fits = waiting.into_iter().take_while(|entry| {
            bytes += entry.description.len();
            bytes <= FOLLOW_UPS_BYTES_MAX
        });
        Ok(fits.map(convert::follow_up).collect())
    }
}

/// Of queued work in one status.
const FOLLOW_UPS_BYTES_MAX: usize = 1024 * 1024;

/// One watch of a list.
struct Watching {
    agents: Arc<Agents>,
    clock: Clock,
    caller: Arc<Principal>,
    wanted: Listing,
    bell: tokio::sync::watch::Receiver<()>,
    answers: mpsc::Sender<Result<v1::WatchAgentStatusResponse, Status>>,
}

impl Watching {
    /// Sends what is there, then what changes whenever the bell rings. `Err(None)` is a reader that left.
    async fn run(mut self) -> Result<(), Option<Status>> {
        let mut end = None;
        // An agent that has ended is told once more, even where ended ones are not listed.
        self.catch_up(&mut end).await?;
        self.send(Item::SnapshotDone(v1::StatusSnapshotDone {})).await?;
        while self.bell.changed().await.is_ok() {
            self.catch_up(&mut end).await?;
        }
        Ok(())
    }

    async fn catch_up(&self, end: &mut Option<u64>) -> Result<(), Option<Status>> {
        let first = end.is_none();
        loop {
            let read = self.agents.status_batch(&self.caller, &self.wanted, *end, first).await;
            let batch = read.map_err(|error| Some(error.into()))?;
            *end = Some(batch.end);
            for run in batch.runs {
                self.send(Item::Agent(status_of(&self.agents, &self.clock, run))).await?;
            }
            if batch.whole {
                return Ok(());
            }
        }
    }

    async fn send(&self, item: Item) -> Result<(), Option<Status>> {
        let response = v1::WatchAgentStatusResponse { item: Some(item) };
        self.answers.send(Ok(response)).await.map_err(|_| None)
    }
}

fn phase_of(field: &'static str, number: i32) -> Result<Phase, Invalid> {
    let phase = v1::Phase::try_from(number).ok().and_then(read_phase);
    phase.ok_or_else(|| Invalid::new(field, "must be a phase of the contract"))
}

fn duration(timeout: prost_types::Duration) -> Result<Duration, Invalid> {
    span(&timeout).ok_or_else(|| Invalid::new("timeout", "must be a span of time that is not negative"))
}
