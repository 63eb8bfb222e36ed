//! Agents: how soon one that is spawned runs, how soon whoever waits hears, what calls about agents and checklists cost beside a bare
//! echo, and what ten thousand live agents cost one control plane.

mod calls;
mod host;
mod many;
mod started;

use std::{
    future::Future,
    time::{Duration, Instant},
};

use murmur_proto::{
    client::{ControlClient, Headers, connect_server},
    v1,
};
use murmur_tests::network::{Network, Options, WORKSPACE};
use tokio::task::JoinSet;

use crate::{
    Settings,
    model::{Headline, Section, Table},
    samples::Samples,
    stage::RAISED,
};

const ACCOUNT: &str = "bench";
/// As [`RAISED`], of what protects a control plane from runaway parents.
const MANY: [(&str, &str); 3] = [
    ("MURMUR_SERVER_SPAWN_PER_MINUTE", "1000000"),
    ("MURMUR_SERVER_AGENTS_LIVE_MAX", "20000"),
    ("MURMUR_SERVER_CHILDREN_MAX", "20000"),
];
/// Reads beside the bare echo at the same number in flight.
const READ_GOAL: f64 = 0.5;

/// Measures all of it on one control plane.
pub(crate) async fn measure(settings: Settings) -> Section {
    let network = network(settings).await;
    let started = started::measure(&network).await;
    let mut host = few(&network).await;
    let heard = many::heard(&network, &mut host).await;
    let (calls, share) = calls::measure(&network).await;
    let many = many::measure(&network, &mut host).await;
    Section {
        title: "Agents".into(),
        text: "Spawn and wait go through the node's socket, as an agent's own do; the agent is a shell. All other figures are the control \
               plane's alone: calls over TCP with a token, on one connection, and phases told by a node that the bench plays. The bare \
               echo is a gRPC server that returns 256 bytes over TCP, called in the same run, as often at a time. `status` tells of one \
               of 100 agents, with its queue; `ls` of ten of them; `task get` of one item; `who am I` touches no database."
            .into(),
        headlines: vec![reads_headline(share)],
        tables: [vec![started, heard], calls, many].concat(),
        ..Default::default()
    }
}

/// Measures reads alone.
pub(crate) async fn measure_reads(settings: Settings) -> Section {
    let network = network(settings).await;
    let _host = few(&network).await;
    let (tables, share) = calls::measure(&network).await;
    Section { title: "Reads".into(), headlines: vec![reads_headline(share)], tables, ..Default::default() }
}

fn reads_headline(share: f64) -> Headline {
    Headline {
        what: "Reads of the control plane beside a bare echo, 64 in flight, the slowest of them, share".into(),
        figure: share.into(),
        goal: format!("≥ {READ_GOAL}"),
        is_met: share >= READ_GOAL,
    }
}

async fn network(settings: Settings) -> Network {
    let env = RAISED.iter().chain(&MANY).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Network::start_with(Options { sync_always: settings.sync_always, env, ..Options::default() }).await
}

/// A played node with the agents that are read.
async fn few(network: &Network) -> host::Host {
    let mut host = host::Host::take_place(network).await;
    host.spawn(network, "few", calls::AGENTS).await;
    host
}

/// A person's client on a connection of its own.
async fn person(network: &Network) -> ControlClient {
    client(network, &token(network).await).await
}

/// A token of a person.
async fn token(network: &Network) -> String {
    use v1::Scope::{AgentsKill, AgentsRead, AgentsSpawn, TasksRead, TasksWrite};
    let request = v1::IssueTokenRequest {
        kind: v1::TokenKind::User.into(),
        scopes: [AgentsRead, AgentsSpawn, AgentsKill, TasksRead, TasksWrite].map(i32::from).to_vec(),
        workspace: WORKSPACE.into(),
        account: ACCOUNT.into(),
        ..Default::default()
    };
    network.admin().await.auth.issue_token(request).await.unwrap().into_inner().token
}

async fn client(network: &Network, token: &str) -> ControlClient {
    let channel = connect_server(&network.server_url, None).await.unwrap();
    ControlClient::new(channel, Headers::new().with_token(token).unwrap())
}

/// Calls a second, so many at a time.
async fn per_second<C, F>(in_flight: usize, window: Duration, call: C) -> f64
where
    C: Fn(usize) -> F + Clone + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let mut calling = JoinSet::new();
    let start = Instant::now();
    for lane in 0..in_flight {
        let call = call.clone();
        calling.spawn(async move {
            let mut count = 0_u64;
            while start.elapsed() < window {
                call(lane).await;
                count += 1;
            }
            count
        });
    }
    calling.join_all().await.iter().sum::<u64>() as f64 / start.elapsed().as_secs_f64()
}

/// One call after the other.
async fn timed<C, F>(count: usize, call: C) -> Samples
where
    C: Fn(usize) -> F,
    F: Future<Output = ()>,
{
    let mut samples = Vec::with_capacity(count);
    for number in 0..count {
        let start = Instant::now();
        call(number).await;
        samples.push(start.elapsed());
    }
    Samples::new(samples)
}

fn slug(path: &str) -> String {
    format!("/u/{ACCOUNT}/{path}")
}

fn latencies(title: &str) -> Table {
    Table::new(&[title, "p50, ms", "p99, ms"])
}
