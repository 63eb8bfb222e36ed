//! A great many messages waiting for a node that is away: what they cost while they wait, at a restart, and when it is back.

use std::time::{Duration, Instant};

use murmur_tests::network::Node;

use crate::{
    BODY_BYTES, Settings,
    flow::{Arriving, send_all},
    model::{Axis, Cell, Chart, Curve, Section, Table, digits},
    open_loop::{Met, Offered, offer},
    restart::first_message,
    stage::{Ends, Stage, know, register},
    usage::{disk_mib, rss_mib},
};

const STEPS: usize = 20;
const DRAIN_TIME: Duration = Duration::from_secs(30);
const PROBE: Offered = Offered { per_second: 200.0, count: 600, bytes: BODY_BYTES };

/// Fills the outbox while the recipient's node is down, then restarts the sender's node, then brings the recipient's back.
pub(crate) async fn measure(settings: Settings) -> Section {
    let mut stage = Stage::start(settings.sync_always).await;
    let elsewhere = stage.network.node("elsewhere", "bench").await;
    register(&elsewhere, &["awake".to_owned()]).await;
    know(&stage.here, &["awake".to_owned()]).await;
    know(&elsewhere, &["sender-0".to_owned()]).await;

    let mut table = Table::new(&[
        "messages waiting",
        "accepted, per second",
        "sender's node, MiB",
        "store, MiB",
        "one way to another node, p50, ms",
        "p99, ms",
    ]);
    let [mut rss, mut accepted] = [Curve::ours("sender's node"), Curve::ours("accepted")];
    let before = offer(&awake(&stage.here, &elsewhere), PROBE).await;
    table.row("0", row(&stage, f64::NAN, Some(&before)));
    rss.points.push((0.0, rss_mib(stage.here.process.pid())));
    stage.there.process.terminate().await;

    let total = settings.messages as usize;
    for step in 1..=STEPS {
        let (count, start) = (total / STEPS, Instant::now());
        send_all(&stage.ends(1), count, BODY_BYTES).await;
        let rate = count as f64 / start.elapsed().as_secs_f64();
        let waiting = (count * step) as f64;
        rss.points.push((waiting, rss_mib(stage.here.process.pid())));
        accepted.points.push((waiting, rate));
        let is_probed = step == 1 || step == STEPS / 2 || step == STEPS;
        let probe = if is_probed { Some(offer(&awake(&stage.here, &elsewhere), PROBE).await) } else { None };
        if step % 5 == 0 || is_probed {
            table.row(digits(waiting), row(&stage, rate, probe.as_ref()));
        }
    }
    let restart = restart(&mut stage.here, &elsewhere).await;
    let after = rss_mib(stage.here.process.pid());
    let drained = drain(&mut stage, settings.messages / STEPS as u64 * STEPS as u64).await;

    let mut events = Table::new(&["with all of them waiting", ""]);
    events.row("kill -9 of the sender's node → its socket answers, ms", vec![restart.answers_ms.into()]);
    events.row("→ the first new message to another node has arrived, ms", vec![restart.arrived_ms.into()]);
    events.row("sender's node after that, MiB", vec![after.into()]);
    events.row("start of the recipient's node → first waiting message shown, ms", vec![drained.first_ms.into()]);
    events.row("drained and shown, at most 30 s of it, per second", vec![drained.per_second.into()]);
    let bodies = Curve {
        points: rss.points.iter().map(|(x, _)| (*x, rss.points[0].1)).collect(),
        ..Curve::limit("when none waits")
    };
    Section {
        title: format!("{} messages waiting", digits(settings.messages as f64)),
        text: "1 KiB messages to an agent whose node is down, accepted as fast as they are; meanwhile one way to a third node at 200/s. \
               Then the sender's node is killed with -9 and started again, then the recipient's node is started."
            .into(),
        tables: vec![table, events],
        charts: vec![
            chart("memory-over-waiting", "Resident memory over waiting messages", "MiB resident", vec![rss, bodies]),
            chart("acceptance-over-waiting", "Acceptance over waiting messages", "accepted per second", vec![accepted]),
        ],
        ..Default::default()
    }
}

fn awake<'a>(from: &'a Node, to: &'a Node) -> Ends<'a> {
    Ends { from, to, pairs: vec![("sender-0".to_owned(), "awake".to_owned())] }
}

fn row(stage: &Stage, rate: f64, probe: Option<&Met>) -> Vec<Cell> {
    let delivered = |share: f64| probe.map_or(f64::NAN, |met| met.delivered.at(share));
    [rate, rss_mib(stage.here.process.pid()), disk_mib(&stage.here.dir), delivered(0.5), delivered(0.99)]
        .map(Cell::from)
        .into()
}

fn chart(file: &str, title: &str, y: &str, curves: Vec<Curve>) -> Chart {
    let (x, y) = (Axis::linear("messages waiting"), Axis::linear(y));
    Chart { file: file.to_owned(), title: title.to_owned(), x, y, curves }
}

struct Restarted {
    answers_ms: f64,
    arrived_ms: f64,
}

async fn restart(here: &mut Node, elsewhere: &Node) -> Restarted {
    here.process.kill_9();
    let start = Instant::now();
    here.process.start();
    let (answers, arrived) = first_message(here, elsewhere, &("sender-0".to_owned(), "awake".to_owned()), start).await;
    Restarted { answers_ms: answers.as_secs_f64() * 1000.0, arrived_ms: arrived.as_secs_f64() * 1000.0 }
}

struct Drained {
    first_ms: f64,
    per_second: f64,
}

async fn drain(stage: &mut Stage, waiting: u64) -> Drained {
    let start = Instant::now();
    stage.there.process.start();
    stage.there.ready().await;
    let arriving = Arriving::start(&stage.ends(1), BODY_BYTES).await;
    while arriving.count() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let (first, before) = (start.elapsed(), Instant::now());
    while arriving.count() < waiting && before.elapsed() < DRAIN_TIME {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Drained {
        first_ms: first.as_secs_f64() * 1000.0,
        per_second: arriving.count() as f64 / before.elapsed().as_secs_f64(),
    }
}
