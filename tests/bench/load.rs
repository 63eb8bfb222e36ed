//! Latency against load: what one way costs as more is offered, until no more goes through.

use crate::{
    BODY_BYTES, Settings,
    model::{Axis, Chart, Curve, Section, Table},
    open_loop::{Offered, offer},
    stage::Stage,
};

const RATES: [f64; 14] = [
    100.0, 250.0, 500.0, 750.0, 1_000.0, 1_500.0, 2_000.0, 3_000.0, 4_000.0, 5_000.0, 6_000.0, 7_000.0, 8_000.0,
    10_000.0,
];
const SECONDS: f64 = 3.0;
const COUNT_MIN: f64 = 400.0;
/// Behind this share of what is offered, the queue only grows.
const SATURATED_BELOW: f64 = 0.9;

/// Measures both at each rate in turn.
pub(crate) async fn measure(settings: Settings) -> Section {
    let stage = Stage::start(settings.sync_always).await;
    let mut table = Table::new(&[
        "offered, per second",
        "delivered, per second",
        "p50, ms",
        "p99, ms",
        "largest, ms",
        "send returns p50, ms",
        "raw p50, ms",
        "raw p99, ms",
    ]);
    let [mut p50, mut p99] = [Curve::ours("one way, p50"), Curve::ours("one way, p99")];
    let [mut raw50, mut raw99] = [Curve::limit("raw broker, p50"), Curve::limit("raw broker, p99")];
    for rate in RATES {
        let count = (rate * SECONDS).max(COUNT_MIN) as usize;
        let raw = stage.raw.latency(rate, count / 2, BODY_BYTES).await;
        let ours = offer(&stage.ends(1), Offered { per_second: rate, count, bytes: BODY_BYTES }).await;
        let figures = [
            ours.per_second,
            ours.delivered.p50(),
            ours.delivered.p99(),
            ours.delivered.at(1.0),
            ours.accepted.p50(),
            raw.p50(),
            raw.p99(),
        ];
        table.row(crate::model::digits(rate), figures.map(Into::into).into());
        p50.points.push((rate, ours.delivered.p50()));
        p99.points.push((rate, ours.delivered.p99()));
        raw50.points.push((rate, raw.p50()));
        raw99.points.push((rate, raw.p99()));
        if ours.per_second < rate * SATURATED_BELOW {
            break;
        }
    }
    Section {
        title: "Latency against load".into(),
        text: "1 KiB, one pair, three seconds at each rate, every message at a time that was fixed beforehand (open loop). The last row \
               is the first load that does not go through: its latency is that of a growing queue."
            .into(),
        tables: vec![table],
        charts: vec![Chart {
            file: "latency-against-load".into(),
            title: "One-way latency against load".into(),
            x: Axis::log("messages offered per second"),
            y: Axis::log("milliseconds"),
            curves: vec![p50, p99, raw50, raw99],
        }],
        ..Default::default()
    }
}
