//! Messages a second, sustained: by pairs of agents and by connections, with the processor time that each part takes.

use std::time::Duration;

use crate::{
    BODY_BYTES, Settings,
    flow::{By, Flow, Flowed, burst, flow},
    model::{Cell, Headline, Section, Table},
    samples::Rounds,
    stage::Stage,
};

/// Goal in messages a second.
const GOAL: f64 = 5_000.0;
const BURST: usize = 20_000;
const RAW_TIME: Duration = Duration::from_millis(1_500);
/// Pairs and connections beyond the first, which gets all the rounds.
const OTHERS: [(usize, usize); 4] = [(1, 4), (1, 16), (4, 4), (16, 16)];

/// Measures raw and ours in turn.
pub(crate) async fn measure(settings: Settings) -> Section {
    let stage = Stage::start(settings.sync_always).await;
    let mut limits = Limits::default();
    let mut table = Table::new(&[
        "pairs, connections",
        "delivered, per second",
        "of raw publish + ack",
        "of raw publish + pull, both acked",
    ]);
    let mut costs =
        Table::new(&["pairs, connections", "sender's node", "receiver's node", "broker", "control plane", "bench"]);
    let [mut one_pair, mut by_calls] = [Rounds::default(), Rounds::default()];
    let [mut last, mut last_by_calls] = [None, None];
    for _ in 0..settings.rounds {
        limits.measure(&stage).await;
        let flowed = Box::pin(flow(&stage, Flow::ONE_PAIR)).await;
        one_pair.add(flowed.delivered);
        last = Some(flowed);
        let flowed = Box::pin(flow(&stage, Flow { by: By::Calls, ..Flow::ONE_PAIR })).await;
        by_calls.add(flowed.delivered);
        last_by_calls = Some(flowed);
    }
    add_rows(&mut table, &mut costs, "1, 1", &one_pair, last, &limits);
    add_rows(&mut table, &mut costs, "1, 1, by calls", &by_calls, last_by_calls, &limits);
    for (pairs, connections) in OTHERS {
        stage.pairs(pairs).await;
        let flowed = Box::pin(flow(&stage, Flow { pairs, connections, ..Flow::ONE_PAIR })).await;
        let mut rounds = Rounds::default();
        rounds.add(flowed.delivered);
        add_rows(&mut table, &mut costs, &format!("{pairs}, {connections}"), &rounds, Some(flowed), &limits);
    }
    let burst = burst(&stage, BURST).await;
    let mut bursts =
        Table::new(&["a burst of 20,000 by calls with nothing held back", "per second", "of raw publish + ack"]);
    let raw = limits.published.median();
    bursts.row("accepted by send (fsync'd)", vec![burst.accepted.into(), (burst.accepted / raw).into()]);
    bursts.row("delivered, first send → last arrival", vec![burst.delivered.into(), (burst.delivered / raw).into()]);
    Section {
        title: "Throughput".into(),
        text: format!(
            "1 KiB, 256 sends under way, by a stream on each connection (`SendMany`) or by calls (`Send`), the receivers attached and marking \
             what they were shown as read, at most {} messages accepted and \
             not yet delivered; ten seconds counted after one of warm-up, then waited for the last one. Raw in the same rounds: \
             {} published and acknowledged per second, {} also pulled and acknowledged. The second table is processor seconds for \
             1,000 delivered messages.",
            Flow::ONE_PAIR.backlog,
            Cell::from(&limits.published),
            Cell::from(&limits.carried),
        ),
        headlines: [
            ("Sustained, one pair, durable both ends, by one stream, messages/s", &one_pair),
            ("The same by a call for each message", &by_calls),
        ]
        .map(|(what, rounds)| Headline {
            what: what.into(),
            figure: rounds.into(),
            goal: format!("≥ {}", crate::model::digits(GOAL)),
            is_met: rounds.median() >= GOAL,
        })
        .into(),
        tables: vec![table, costs, bursts],
        charts: vec![],
    }
}

/// Measures one pair and nothing raw.
pub(crate) async fn measure_pair(settings: Settings) -> Section {
    let stage = Stage::start(settings.sync_always).await;
    let mut table = Table::new(&[
        "round",
        "delivered, per second",
        "sender's node",
        "receiver's node",
        "broker",
        "control plane",
        "bench",
    ]);
    let rounds = (1..=settings.rounds).flat_map(|round| [(round, By::Stream, "stream"), (round, By::Calls, "calls")]);
    for (round, by, how) in rounds {
        let Flowed { delivered, cpu, threads } = Box::pin(flow(&stage, Flow { by, ..Flow::ONE_PAIR })).await;
        let costs = cpu.iter().map(|(_, seconds)| Cell::from(*seconds));
        table.row(format!("{round}, {how}"), std::iter::once(delivered.into()).chain(costs).collect());
        println!("[{round}] sender's node by thread: {}", threads[0]);
        println!("[{round}] receiver's node by thread: {}", threads[1]);
    }
    Section {
        title: "One pair".into(),
        text: "As in Throughput; after the rate, processor seconds for 1,000 delivered messages.".into(),
        headlines: vec![],
        tables: vec![table],
        charts: vec![],
    }
}

#[derive(Default)]
struct Limits {
    published: Rounds,
    carried: Rounds,
}

impl Limits {
    async fn measure(&mut self, stage: &Stage) {
        self.published.add(stage.raw.published_per_second(BODY_BYTES, RAW_TIME).await);
        self.carried.add(stage.raw.carried_per_second(BODY_BYTES, RAW_TIME).await);
    }
}

fn add_rows(
    table: &mut Table,
    costs: &mut Table,
    label: &str,
    delivered: &Rounds,
    last: Option<Flowed>,
    limits: &Limits,
) {
    let ratio = |limit: &Rounds| Cell::from(delivered.median() / limit.median());
    table.row(label, vec![delivered.into(), ratio(&limits.published), ratio(&limits.carried)]);
    let Some(Flowed { cpu, threads, .. }) = last else { return };
    costs.row(label, cpu.iter().map(|(_, seconds)| Cell::from(*seconds)).collect());
    // For whoever works on it; which threads there are is no promise.
    println!("[{label}] sender's node by thread: {}", threads[0]);
    println!("[{label}] receiver's node by thread: {}", threads[1]);
}
