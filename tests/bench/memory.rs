//! Memory and disk over many messages: neither node may grow with what has passed through it.

use std::time::{Duration, Instant};

use crate::{
    BODY_BYTES, Settings,
    flow::{Flow, Running},
    model::{Axis, Cell, Chart, Curve, Headline, Section, Table, digits},
    stage::Stage,
    usage::{disk_mib, rss_mib},
};

/// Samples along the way.
const SAMPLES: u64 = 40;
/// Samples of which one is shown in the table.
const TABLE_EVERY: u64 = 4;
const POLL: Duration = Duration::from_millis(50);
/// Goal: MiB that a node may grow after the first tenth.
const GOAL_GROWTH_MIB: f64 = 8.0;

struct Sample {
    delivered: u64,
    at: Instant,
    /// Resident: sender's node, receiver's node, broker, control plane.
    rss: [f64; 4],
    /// On disk: sender's node, receiver's node, broker.
    disk: [f64; 3],
}

/// Sends the messages at full speed and samples along the way.
pub(crate) async fn measure(settings: Settings) -> Section {
    let stage = Stage::start(settings.sync_always).await;
    let mut samples = vec![sample(&stage, 0)];
    let running = Running::start(&stage.ends(1), Flow::ONE_PAIR).await;
    for step in 1..=SAMPLES {
        while running.delivered() < settings.messages * step / SAMPLES {
            tokio::time::sleep(POLL).await;
        }
        samples.push(sample(&stage, running.delivered()));
    }
    running.stop().await;
    section(settings, &samples)
}

fn sample(stage: &Stage, delivered: u64) -> Sample {
    let pids = stage.processes();
    Sample {
        delivered,
        at: Instant::now(),
        rss: [0, 1, 2, 3].map(|index| rss_mib(pids[index].1)),
        disk: [&stage.here.dir, &stage.there.dir, &stage.network.dir.path().join("broker")].map(|dir| disk_mib(dir)),
    }
}

fn section(settings: Settings, samples: &[Sample]) -> Section {
    let mut table = Table::new(&[
        "delivered",
        "per second since the last row",
        "sender's node, MiB",
        "receiver's node, MiB",
        "broker, MiB",
        "control plane, MiB",
        "sender's store, MiB",
        "receiver's store, MiB",
    ]);
    let mut before = &samples[0];
    for sample in samples.iter().step_by(TABLE_EVERY as usize) {
        let rate = (sample.delivered - before.delivered) as f64 / (sample.at - before.at).as_secs_f64();
        let figures =
            [rate, sample.rss[0], sample.rss[1], sample.rss[2], sample.rss[3], sample.disk[0], sample.disk[1]];
        table.row(digits(sample.delivered as f64), figures.map(Cell::from).into());
        before = sample;
    }
    let settled = &samples[samples.len() / 10..];
    let growth = |part: usize| {
        let largest = settled.iter().map(|sample| sample.rss[part]).fold(0.0, f64::max);
        largest - settled[0].rss[part]
    };
    let growth = growth(0).max(growth(1));
    Section {
        title: format!("Memory over {} messages", digits(settings.messages as f64)),
        text: "1 KiB, one pair, at full speed by one stream, the receiver marking what it was shown as read. Resident memory of each process and the size of the stores, which \
               keep what was sent and read for the days that are configured."
            .into(),
        headlines: vec![Headline {
            what: "Growth of a node's memory after the first tenth of the messages, MiB".into(),
            figure: growth.into(),
            goal: format!("≤ {GOAL_GROWTH_MIB}"),
            is_met: growth <= GOAL_GROWTH_MIB,
        }],
        tables: vec![table],
        charts: vec![memory_chart(samples), store_chart(samples)],
    }
}

fn memory_chart(samples: &[Sample]) -> Chart {
    let curve = |name: &str, part: usize| {
        let mut curve = Curve::ours(name);
        curve.points = samples.iter().map(|sample| (sample.delivered as f64, sample.rss[part])).collect();
        curve
    };
    let mut idle = Curve::limit("a node before the first");
    idle.points = samples.iter().map(|sample| (sample.delivered as f64, samples[0].rss[0])).collect();
    Chart {
        file: "memory-over-messages".into(),
        title: "Resident memory over messages".into(),
        x: Axis::linear("messages delivered"),
        y: Axis::linear("MiB resident"),
        curves: vec![curve("sender's node", 0), curve("receiver's node", 1), curve("broker", 2), idle],
    }
}

fn store_chart(samples: &[Sample]) -> Chart {
    let curve = |name: &str, part: usize| {
        let mut curve = Curve::ours(name);
        curve.points = samples.iter().map(|sample| (sample.delivered as f64, sample.disk[part])).collect();
        curve
    };
    let mut bodies = Curve::limit("bodies alone");
    let mib = |count: u64| count as f64 * BODY_BYTES as f64 / 1024.0 / 1024.0;
    bodies.points = samples.iter().map(|sample| (sample.delivered as f64, mib(sample.delivered))).collect();
    Chart {
        file: "disk-over-messages".into(),
        title: "Size of the stores over messages".into(),
        x: Axis::linear("messages delivered"),
        y: Axis::linear("MiB on disk"),
        curves: vec![curve("sender's store", 0), curve("receiver's store", 1), curve("broker's store", 2), bodies],
    }
}
