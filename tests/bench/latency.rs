//! One way at 500 messages a second: the project's own yardstick.

use crate::{
    BODY_BYTES, Settings, limits,
    model::{Cell, Headline, Section, Table},
    open_loop::{Offered, offer},
    samples::Rounds,
    stage::Stage,
};

/// Messages a second.
pub(crate) const RATE: f64 = 500.0;
const COUNT: usize = 2_500;
/// Goals in ms.
const GOAL_P50: f64 = 1.5;
const GOAL_P99: f64 = 6.0;

/// Measures it, raw and ours in turn.
pub(crate) async fn measure(settings: Settings) -> Section {
    let stage = Stage::start(settings.sync_always).await;
    let [mut raw50, mut raw99, mut sent50, mut sent99, mut way50, mut way99, mut sync50] = <[Rounds; 7]>::default();
    for _ in 0..settings.rounds {
        let fsync = limits::fdatasync();
        let raw = stage.raw.latency(RATE, COUNT / 2, BODY_BYTES).await;
        let ours = offer(&stage.ends(1), Offered { per_second: RATE, count: COUNT, bytes: BODY_BYTES }).await;
        sync50.add(fsync.p50());
        raw50.add(raw.p50());
        raw99.add(raw.p99());
        sent50.add(ours.accepted.p50());
        sent99.add(ours.accepted.p99());
        way50.add(ours.delivered.p50());
        way99.add(ours.delivered.p99());
    }
    let ratio = |rounds: &Rounds| Cell::from(rounds.median() / raw50.median());
    let mut table = Table::new(&["from the intended time of the send", "p50, ms", "p99, ms", "p50 / raw p50"]);
    table.row("raw: publish → consumer", vec![(&raw50).into(), (&raw99).into(), Cell::Figure(1.0)]);
    table.row("send returns (fsync'd)", vec![(&sent50).into(), (&sent99).into(), ratio(&sent50)]);
    table.row("other agent's program has it", vec![(&way50).into(), (&way99).into(), ratio(&way50)]);
    let own = way50.median() - raw50.median() - 2.0 * sync50.median();
    table.row(
        "of that neither broker nor fsync (raw and two fdatasync taken off)",
        vec![own.into(), Cell::Empty, Cell::Empty],
    );
    let headline = |what: &str, rounds: &Rounds, goal: f64| Headline {
        what: what.to_owned(),
        figure: rounds.into(),
        goal: format!("≤ {goal}"),
        is_met: rounds.median() <= goal,
    };
    Section {
        title: "Latency at 500 messages a second".into(),
        text: format!(
            "1 KiB, one pair, {COUNT} messages a round at times that were fixed beforehand; a late one counts from its intended time. \
             The receiver is attached as an MCP shim is, and marks what it was shown as read. fdatasync p50 in the same rounds: {:.3} ms.",
            sync50.median()
        ),
        headlines: vec![
            headline("One way at 500/s, p50, ms", &way50, GOAL_P50),
            headline("One way at 500/s, p99, ms", &way99, GOAL_P99),
        ],
        tables: vec![table],
        charts: vec![],
    }
}
