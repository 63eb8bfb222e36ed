//! How cost grows with the number of agents on a node, and with the number of idle peers in the directory.

use std::time::{Duration, Instant};

use crate::{
    BODY_BYTES, Settings,
    flow::{Flow, flow},
    model::{Axis, Cell, Chart, Curve, Section, Table, digits},
    open_loop::{Offered, offer},
    receiver::attach_all,
    stage::{Stage, know, register},
    usage::rss_mib,
};

const AGENTS: [usize; 4] = [1, 10, 100, 1_000];
const IDLE_PEERS: usize = 1_000;
const OFFERED: Offered = Offered { per_second: 500.0, count: 2_000, bytes: BODY_BYTES };
const FLOW_TIME: Duration = Duration::from_secs(4);

/// Measures both.
pub(crate) async fn measure(settings: Settings) -> Section {
    let (agents, charts) = Box::pin(agents(settings)).await;
    let peers = Box::pin(idle_peers(settings)).await;
    Section {
        title: "Growth with agents and peers".into(),
        text: "As many pairs as there are agents on each of the two nodes, taking turns; every receiver is attached and marks what it was shown as read. Memory is \
               resident memory after the agents were made, and with all of them attached, before any load. The idle peers are agents of \
               a third node."
            .into(),
        tables: vec![agents, peers],
        charts,
        ..Default::default()
    }
}

async fn agents(settings: Settings) -> (Table, Vec<Chart>) {
    let stage = Stage::start(settings.sync_always).await;
    let mut table = Table::new(&[
        "agents on each node",
        "made in, ms each",
        "sender's node, MiB",
        "receiver's node, MiB",
        "with programs attached, MiB",
        "KiB per new agent with its program",
        "500/s: p50, ms",
        "p99, ms",
        "delivered, per second",
    ]);
    let [mut p50, mut p99, mut rate] = [Curve::ours("p50"), Curve::ours("p99"), Curve::ours("delivered")];
    let mut known = 1;
    for agents in AGENTS {
        let (before, start) = (rss_mib(stage.there.process.pid()), Instant::now());
        stage.pairs(agents).await;
        let made = start.elapsed().as_secs_f64() * 1000.0 / (agents - known) as f64 / 2.0;
        let [here, there] = [&stage.here, &stage.there].map(|node| rss_mib(node.process.pid()));
        let attached = {
            let (arrived, _arrivals) = tokio::sync::mpsc::unbounded_channel();
            let _receivers = attach_all(&stage.ends(agents), BODY_BYTES, &arrived).await;
            rss_mib(stage.there.process.pid())
        };
        // What load has left behind in memory is not the new agents'.
        let each = (attached - before) * 1024.0 / (agents - known) as f64;
        known = agents;
        let met = offer(&stage.ends(agents), OFFERED).await;
        let flowed = Box::pin(flow(&stage, Flow { pairs: agents, window: FLOW_TIME, ..Flow::ONE_PAIR })).await;
        let figures = [made, here, there, attached, each, met.delivered.p50(), met.delivered.p99(), flowed.delivered];
        table.row(digits(agents as f64), figures.map(Cell::from).into());
        p50.points.push((agents as f64, met.delivered.p50()));
        p99.points.push((agents as f64, met.delivered.p99()));
        rate.points.push((agents as f64, flowed.delivered));
    }
    let chart = |file: &str, title: &str, y: Axis, curves: Vec<Curve>| Chart {
        file: file.to_owned(),
        title: title.to_owned(),
        x: Axis::log("agents on each node"),
        y,
        curves,
    };
    let charts = vec![
        chart("latency-over-agents", "One way at 500/s over agents", Axis::log("milliseconds"), vec![p50, p99]),
        chart("throughput-over-agents", "Throughput over agents", Axis::linear("messages per second"), vec![rate]),
    ];
    (table, charts)
}

async fn idle_peers(settings: Settings) -> Table {
    let stage = Stage::start(settings.sync_always).await;
    let mut table = Table::new(&[
        "idle peers in the directory",
        "sender's node, MiB",
        "KiB per peer",
        "500/s: p50, ms",
        "p99, ms",
        "delivered, per second",
    ]);
    let elsewhere = stage.network.node("elsewhere", "bench").await;
    let mut first = f64::NAN;
    for peers in [0, IDLE_PEERS] {
        let idle: Vec<String> = (0..peers).map(|peer| format!("idle-{peer}")).collect();
        register(&elsewhere, &idle).await;
        know(&stage.here, &idle).await;
        let mib = rss_mib(stage.here.process.pid());
        if peers == 0 {
            first = mib;
        }
        let met = offer(&stage.ends(1), OFFERED).await;
        let flowed = Box::pin(flow(&stage, Flow { window: FLOW_TIME, ..Flow::ONE_PAIR })).await;
        let each = (mib - first) * 1024.0 / peers as f64;
        let figures = [mib, each, met.delivered.p50(), met.delivered.p99(), flowed.delivered];
        table.row(digits(peers as f64), figures.map(Cell::from).into());
    }
    table
}
