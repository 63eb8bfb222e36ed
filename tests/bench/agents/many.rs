//! Waits, and ten thousand agents with a thousand of them.

use std::time::{Duration, Instant};

use murmur_proto::v1::{self, Phase};
use murmur_tests::network::Network;
use tokio::sync::mpsc;

use super::{
    calls, client,
    host::{Host, Running},
    latencies, person, timed,
};
use crate::{
    model::{Cell, Table},
    samples::Samples,
    usage,
};

const AGENTS: usize = 10_000;
const WAITS: usize = 1_000;
/// Streams on one connection, of which the control plane takes 256.
const STREAMS: usize = 200;
const HEARD: usize = 200;
const READS: usize = 500;
const PAGE: u32 = 500;

/// From the report of a phase until the parent that waits has its answer, with few agents.
pub(super) async fn heard(network: &Network, host: &mut Host) -> Table {
    let agents = host.spawn(network, "heard", HEARD).await;
    let mut waits = Waits::begin(network, &agents).await;
    let samples = waits.end(host, &agents).await;
    let mut table = latencies("a phase is told");
    table.row(
        format!("until a waiter has its answer, {} agents and {HEARD} waits", calls::AGENTS + HEARD),
        vec![samples.p50().into(), samples.p99().into()],
    );
    table
}

/// Memory, reads and waits with all of them.
pub(super) async fn measure(network: &Network, host: &mut Host) -> Vec<Table> {
    let pid = network.server.pid();
    let memory = || usage::rss_mib(pid);
    let before = memory();
    let start = Instant::now();
    let agents = host.spawn(network, "many", AGENTS - calls::AGENTS - HEARD).await;
    let spawned = start.elapsed();
    let with_agents = memory();
    let (waited, _) = agents.split_at(WAITS);
    let mut waits = Waits::begin(network, waited).await;
    let with_waits = memory();
    let mut latency = latencies("10,000 live agents, 1,000 waits");
    let samples = waits.end(host, &waited[..HEARD]).await;
    latency.row("a phase is told, until its waiter has the answer", vec![samples.p50().into(), samples.p99().into()]);
    let caller = person(network).await;
    let read = timed(READS, |number| {
        let (caller, agent) = (caller.clone(), agents[number * 13 % agents.len()].slug.clone());
        async move {
            let request = v1::GetAgentStatusRequest { slug: agent, ..Default::default() };
            caller.agents.clone().get_agent_status(request).await.unwrap();
        }
    })
    .await;
    latency.row("status", vec![read.p50().into(), read.p99().into()]);
    let page = timed(READS, |_| async {
        let answer = caller.agents.clone().list_agent_status(v1::ListAgentStatusRequest::default()).await.unwrap();
        assert_eq!(answer.get_ref().agents.len(), 100);
    })
    .await;
    latency.row("ls, a page of 100", vec![page.p50().into(), page.p99().into()]);
    let whole = timed(5, |_| list_all(&caller)).await;
    latency.row("ls, all of them, 500 a page", vec![whole.p50().into(), whole.p99().into()]);
    let mut memory = Table::new(&["control plane", "resident memory, MiB", "more for each, KiB"]);
    let each = |more: f64, count: usize| Cell::from(more * 1024.0 / count as f64);
    memory.row("300 agents", vec![before.into(), Cell::Empty]);
    memory.row("10,000 agents", vec![with_agents.into(), each(with_agents - before, agents.len())]);
    memory.row("and 1,000 waits", vec![with_waits.into(), each(with_waits - with_agents, WAITS)]);
    let mut born = Table::new(&["agents spawned, 200 in a call", "in, ms", "per second"]);
    let (count, time) = (agents.len() as f64, spawned.as_secs_f64());
    born.row(crate::model::digits(count), vec![(time * 1000.0).into(), (count / time).into()]);
    vec![memory, latency, born]
}

async fn list_all(caller: &murmur_proto::client::ControlClient) {
    let mut request = v1::ListAgentStatusRequest { page_size: PAGE, ..Default::default() };
    let mut count = 0;
    loop {
        let page = caller.agents.clone().list_agent_status(request.clone()).await.unwrap().into_inner();
        count += page.agents.len();
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    assert!(count >= AGENTS - HEARD, "{count}");
}

/// Waits that are under way.
struct Waits {
    answered: mpsc::UnboundedReceiver<(String, Instant)>,
    _waiting: tokio::task::JoinSet<()>,
}

impl Waits {
    /// One for each agent; all of them have begun when this returns.
    async fn begin(network: &Network, agents: &[Running]) -> Self {
        let (answer, answered) = mpsc::unbounded_channel();
        let mut waiting = tokio::task::JoinSet::new();
        let token = super::token(network).await;
        for shared in agents.chunks(STREAMS) {
            let parent = client(network, &token).await;
            for agent in shared {
                let request = v1::WaitAgentRequest {
                    slug: agent.slug.clone(),
                    phases: vec![Phase::TaskComplete.into()],
                    timeout: Some(prost_types::Duration { seconds: 3600, nanos: 0 }),
                };
                let mut stream = parent.agents.clone().wait_agent(request).await.unwrap().into_inner();
                let answer = answer.clone();
                waiting.spawn(async move {
                    let Ok(Some(waited)) = stream.message().await else { return };
                    assert!(waited.matched);
                    let _ = answer.send((waited.agent.unwrap().slug, Instant::now()));
                });
            }
        }
        Self { answered, _waiting: waiting }
    }

    /// Tells of one agent after the other that it is done.
    async fn end(&mut self, host: &mut Host, agents: &[Running]) -> Samples {
        let mut samples = Vec::with_capacity(agents.len());
        for agent in agents {
            let start = Instant::now();
            host.tell(vec![agent.became(Phase::TaskComplete)]).await;
            let (slug, at) = self.answered.recv().await.unwrap();
            assert_eq!(slug, agent.slug);
            samples.push(at.saturating_duration_since(start).max(Duration::from_nanos(1)));
        }
        Samples::new(samples)
    }
}
