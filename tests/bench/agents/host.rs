//! A node that the bench plays: as many agents as wanted, without their processes.

use std::{fs, time::Duration};

use murmur_core::id::{AgentId, Incarnation};
use murmur_proto::{
    client::ControlClient,
    v1::{self, open_session_request::Item, watch_orders_response::Item as Told},
};
use murmur_tests::network::Network;
use tokio::{sync::mpsc, task::JoinSet};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::{ACCOUNT, client, person, slug};

/// Of one spawn.
const EACH_MAX: usize = 200;
/// Well within a lease.
const BEAT: Duration = Duration::from_secs(10);
/// The most that a node may say.
const CAPACITY: u32 = 10_000;

/// The played node.
pub(super) struct Host {
    client: ControlClient,
    orders: Streaming<v1::WatchOrdersResponse>,
    reports: u128,
    _session: JoinSet<()>,
}

/// An agent that runs there.
#[derive(Debug, Clone)]
pub(super) struct Running {
    pub(super) slug: String,
    id: String,
    incarnation: u32,
}

impl Host {
    /// A real node is enrolled and killed, and the bench speaks with its token.
    pub(super) async fn take_place(network: &Network) -> Self {
        let mut node = network.node("played", ACCOUNT).await;
        node.process.kill_9();
        let secret = fs::read_to_string(node.dir.join("identity/node.token")).unwrap();
        let mut client = client(network, secret.trim()).await;
        let (say, said) = mpsc::channel(8);
        let hello = v1::Hello {
            incarnation: Incarnation::from_bytes([7; 16]).to_string(),
            wire_version_min: 2,
            wire_version_max: 2,
            takeover: true,
            ..Default::default()
        };
        say.send(v1::OpenSessionRequest { item: Some(Item::Hello(hello)) }).await.unwrap();
        let mut answers = client.nodes.open_session(ReceiverStream::new(said)).await.unwrap().into_inner();
        answers.message().await.unwrap().unwrap();
        let mut session = JoinSet::new();
        session.spawn(async move {
            let mut beats = tokio::time::interval(BEAT);
            loop {
                tokio::select! {
                    _ = beats.tick() => {
                        let beat = v1::OpenSessionRequest { item: Some(Item::Heartbeat(v1::Heartbeat::default())) };
                        say.send(beat).await.unwrap();
                    }
                    answer = answers.message() => drop(answer.unwrap()),
                }
            }
        });
        let command = v1::NodeBackend { name: "played".into(), can_resume: true, ..Default::default() };
        let facts = v1::ReportNodeRequest {
            backends: vec![command],
            default_backend: "played".into(),
            capacity: CAPACITY,
            ..Default::default()
        };
        client.runtime.report_node(facts).await.unwrap();
        let orders = client.runtime.watch_orders(v1::WatchOrdersRequest {}).await.unwrap().into_inner();
        Self { client, orders, reports: 0, _session: session }
    }

    /// Spawns so many agents and tells that they run.
    pub(super) async fn spawn(&mut self, network: &Network, name: &str, count: usize) -> Vec<Running> {
        let mut parent = person(network).await;
        let mut all = Vec::with_capacity(count);
        let numbers: Vec<String> = (0..count).map(|number| number.to_string()).collect();
        for each in numbers.chunks(EACH_MAX) {
            let request = v1::SpawnAgentRequest {
                slug: slug(&format!("{name}-{{}}")),
                spec: Some(v1::AgentSpec {
                    description: "look after {}".into(),
                    node: "played".into(),
                    ..Default::default()
                }),
                each: each.to_vec(),
                ..Default::default()
            };
            parent.agents.spawn_agent(request).await.unwrap();
            let mut reports = Vec::with_capacity(each.len());
            while reports.len() < each.len() {
                let Some(Told::Order(order)) = self.orders.message().await.unwrap().unwrap().item else { continue };
                let running = Running { slug: order.slug, id: order.agent_id, incarnation: order.incarnation };
                let order_ids = vec![order.order_id];
                reports.push(v1::AgentReport { order_ids, ..running.became(v1::Phase::Running) });
                all.push(running);
            }
            self.tell(reports).await;
        }
        all
    }

    /// Tells what became of agents.
    pub(super) async fn tell(&mut self, reports: Vec<v1::AgentReport>) {
        self.reports += 1;
        // A UUID of any kind.
        let report_id = AgentId::from_bytes(self.reports.to_be_bytes()).to_string();
        let told = self.client.runtime.report_agents(v1::ReportAgentsRequest { reports, report_id }).await.unwrap();
        assert!(told.get_ref().results.iter().all(|result| result.refused.is_empty() && !result.stale), "{told:?}");
    }
}

impl Running {
    /// The report of a phase.
    pub(super) fn became(&self, phase: v1::Phase) -> v1::AgentReport {
        v1::AgentReport {
            agent_id: self.id.clone(),
            incarnation: self.incarnation,
            phase: phase.into(),
            ..Default::default()
        }
    }
}
