//! Agents that spawn, watch and stop agents: what callers and nodes see of it.

mod ending;
mod lifetime;
mod placing;
mod spawning;
mod waiting;
mod watching;

use murmur_core::id::{AgentId, Incarnation};
use murmur_proto::{
    client::{AS_HEADER, ControlClient, Headers, INCARNATION_HEADER, server_channel},
    v1::{self, watch_orders_response::Item},
};
use tonic::{Request, Status, Streaming};

use crate::{
    sessions::{Open, hello},
    world::{NodeKit, Owner, World, next},
};

/// A node that runs agents, as far as the control plane can tell: a session, its facts and its orders.
pub(crate) struct Runner {
    pub(crate) node: NodeKit,
    pub(crate) session: Option<Open>,
    pub(crate) orders: Streaming<v1::WatchOrdersResponse>,
    reports: u64,
}

/// What a node says that it can run.
pub(crate) fn facts(capacity: u32) -> v1::ReportNodeRequest {
    v1::ReportNodeRequest {
        backends: vec![v1::NodeBackend { name: "command".into(), can_interrupt: true, can_resume: true, stays: false }],
        default_backend: "command".into(),
        capacity,
        ..v1::ReportNodeRequest::default()
    }
}

impl Runner {
    pub(crate) async fn start(world: &World, owner: &Owner, seed: u8, facts: v1::ReportNodeRequest) -> Self {
        let node = world.node(owner, "jdoe", seed).await;
        let session = Open::welcome(world, &node, hello(seed)).await;
        let mut client = node.client(world).runtime;
        client.report_node(facts).await.unwrap();
        let orders = client.watch_orders(v1::WatchOrdersRequest {}).await.unwrap().into_inner();
        Self { node, session: Some(session), orders, reports: 0 }
    }

    /// The next order.
    pub(crate) async fn order(&mut self) -> v1::Order {
        match next(&mut self.orders).await.item.unwrap() {
            Item::Order(order) => order,
            other => panic!("an order was expected, got {other:?}"),
        }
    }

    /// Listens anew, as after a lost connection.
    pub(crate) async fn listen(&mut self, world: &World) {
        let mut client = self.node.client(world).runtime;
        self.orders = client.watch_orders(v1::WatchOrdersRequest {}).await.unwrap().into_inner();
    }

    /// Tells what became of agents.
    pub(crate) async fn tell(
        &mut self,
        world: &World,
        reports: Vec<v1::AgentReport>,
    ) -> Result<Vec<v1::AgentReportResult>, Status> {
        self.reports += 1;
        let report_id = uuid(self.reports);
        let request = v1::ReportAgentsRequest { reports, report_id };
        self.node.client(world).runtime.report_agents(request).await.map(|told| told.into_inner().results)
    }

    /// Tells a phase of the incarnation that an order names, and that the order is done.
    pub(crate) async fn became(&mut self, world: &World, order: &v1::Order, phase: v1::Phase) -> v1::AgentReportResult {
        let report = v1::AgentReport { order_ids: vec![order.order_id], ..report(order, phase) };
        self.tell(world, vec![report]).await.unwrap().remove(0)
    }

    /// Takes the next order, which is to start something, and runs it.
    pub(crate) async fn run(&mut self, world: &World) -> v1::Order {
        let order = self.order().await;
        assert!(matches!(order.item, Some(v1::order::Item::Start(_))), "{order:?}");
        let told = self.became(world, &order, v1::Phase::Running).await;
        assert_eq!((told.refused.as_str(), told.stale), ("", false));
        order
    }
}

pub(crate) fn report(order: &v1::Order, phase: v1::Phase) -> v1::AgentReport {
    v1::AgentReport {
        agent_id: order.agent_id.clone(),
        incarnation: order.incarnation,
        phase: phase.into(),
        ..v1::AgentReport::default()
    }
}

pub(crate) fn uuid(number: u64) -> String {
    let mut bytes = [0; 16];
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    AgentId::from_bytes(bytes).to_string()
}

/// Speaks through a node, as its owner or one of its agents.
#[derive(Clone)]
pub(crate) struct Speaking {
    clients: ControlClient,
    named: String,
}

impl Speaking {
    pub(crate) fn user(world: &World, node: &NodeKit) -> Self {
        Self::named(world, node, "user".to_owned())
    }

    pub(crate) fn agent(world: &World, node: &NodeKit, id: &str) -> Self {
        Self::named(world, node, format!("agent:{id}"))
    }

    fn named(world: &World, node: &NodeKit, named: String) -> Self {
        let headers = Headers::new().with_token(&node.token).unwrap();
        Self { clients: ControlClient::new(server_channel(&world.url(""), None).unwrap(), headers), named }
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert(AS_HEADER, self.named.parse().unwrap());
        request
    }

    pub(crate) async fn spawn(&self, slug: &str) -> Result<v1::AgentStatus, Status> {
        let request = v1::SpawnAgentRequest { slug: slug.into(), spec: Some(spec()), ..Default::default() };
        Ok(self.spawn_with(request).await?.remove(0))
    }

    pub(crate) async fn spawn_with(&self, request: v1::SpawnAgentRequest) -> Result<Vec<v1::AgentStatus>, Status> {
        self.clients.agents.clone().spawn_agent(self.request(request)).await.map(|done| done.into_inner().agents)
    }

    pub(crate) async fn kill(&self, slug: &str) -> Result<v1::KillAgentResponse, Status> {
        let request = v1::KillAgentRequest { slug: slug.into(), ..Default::default() };
        self.clients.agents.clone().kill_agent(self.request(request)).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn interrupt(&self, slug: &str) -> Result<bool, Status> {
        let request = v1::InterruptAgentRequest { slug: slug.into(), ..Default::default() };
        self.clients
            .agents
            .clone()
            .interrupt_agent(self.request(request))
            .await
            .map(|done| done.into_inner().interrupted)
    }

    pub(crate) async fn status(&self, slug: &str) -> Result<v1::AgentStatus, Status> {
        Ok(self.detail(slug).await?.agent.unwrap())
    }

    pub(crate) async fn detail(&self, slug: &str) -> Result<v1::GetAgentStatusResponse, Status> {
        let kinds = [v1::TimelineKind::Phase, v1::TimelineKind::Child, v1::TimelineKind::TaskComplete];
        let timeline = kinds.into_iter().map(i32::from).collect();
        let request = v1::GetAgentStatusRequest { slug: slug.into(), children: true, timeline };
        self.clients.agents.clone().get_agent_status(self.request(request)).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn list(
        &self,
        request: v1::ListAgentStatusRequest,
    ) -> Result<v1::ListAgentStatusResponse, Status> {
        self.clients.agents.clone().list_agent_status(self.request(request)).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn update(&self, request: v1::UpdateAgentStatusRequest) -> Result<v1::AgentStatus, Status> {
        let done = self.clients.agents.clone().update_agent_status(self.request(request)).await?;
        Ok(done.into_inner().agent.unwrap())
    }

    pub(crate) async fn wait(
        &self,
        slug: &str,
        phases: &[v1::Phase],
        timeout_s: i64,
    ) -> Result<Streaming<v1::WaitAgentResponse>, Status> {
        let request = v1::WaitAgentRequest {
            slug: slug.into(),
            phases: phases.iter().map(|phase| i32::from(*phase)).collect(),
            timeout: Some(prost_types::Duration { seconds: timeout_s, nanos: 0 }),
        };
        self.clients.agents.clone().wait_agent(self.request(request)).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn watch(&self) -> Streaming<v1::WatchAgentStatusResponse> {
        let request = self.request(v1::WatchAgentStatusRequest::default());
        self.clients.agents.clone().watch_agent_status(request).await.unwrap().into_inner()
    }

    pub(crate) async fn output(&self, slug: &str) -> Result<Streaming<v1::WatchAgentOutputResponse>, Status> {
        let request =
            v1::WatchAgentOutputRequest { slug: slug.into(), follow: true, ..v1::WatchAgentOutputRequest::default() };
        self.clients.agents.clone().watch_agent_output(self.request(request)).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn queue_add(&self, slug: &str) -> Result<v1::AddFollowUpResponse, Status> {
        let request = v1::AddFollowUpRequest { slug: slug.into(), description: "more".into(), ..Default::default() };
        self.clients.queue.clone().add_follow_up(self.request(request)).await.map(tonic::Response::into_inner)
    }
}

pub(crate) fn spec() -> v1::AgentSpec {
    v1::AgentSpec { description: "do it".into(), ..v1::AgentSpec::default() }
}

/// An incarnation's header, for calls of a node that was fenced.
pub(crate) fn as_incarnation<T>(message: T, number: u8) -> Request<T> {
    let mut request = Request::new(message);
    let text = Incarnation::from_bytes([number; 16]).to_string();
    request.metadata_mut().insert(INCARNATION_HEADER, text.parse().unwrap());
    request
}

/// Breaks the node's session and waits until the control plane knows.
pub(crate) async fn lose(world: &World, owner: &Owner, runner: &mut Runner) {
    let request = v1::WatchDirectoryRequest::default();
    let mut changes = world.reader(owner).await.directory.watch_directory(request).await.unwrap().into_inner();
    drop(runner.session.take());
    loop {
        if let Some(v1::watch_directory_response::Item::Node(node)) = next(&mut changes).await.item
            && node.presence() == v1::Presence::Offline
        {
            return;
        }
    }
}

/// A workspace, a node with room, and its owner.
pub(crate) async fn ready(world: &World) -> (Owner, Runner, Speaking) {
    let owner = world.workspace("acme").await;
    let runner = Runner::start(world, &owner, 1, facts(100)).await;
    let user = Speaking::user(world, &runner.node);
    (owner, runner, user)
}
