//! Throughput against size, from 64 bytes to the largest body.

use std::time::Duration;

use crate::{
    Settings,
    flow::{Flow, flow},
    model::{Axis, Cell, Chart, Curve, Section, Table},
    stage::Stage,
};

/// The last one is the largest that is allowed.
const SIZES: [usize; 7] = [64, 256, 1024, 4096, 16 * 1024, 64 * 1024, 192 * 1024];
const MIB: f64 = 1024.0 * 1024.0;
/// Bodies under way at one time, in bytes: less than what a mail of that size would make a program hold.
const IN_FLIGHT_BYTES: usize = 8 * 1024 * 1024;
const BACKLOG_BYTES: usize = 32 * 1024 * 1024;

/// Measures raw and ours in turn, size by size.
pub(crate) async fn measure(settings: Settings) -> Section {
    let stage = Stage::start(settings.sync_always).await;
    let mut table = Table::new(&[
        "body, bytes",
        "delivered, per second",
        "MiB per second",
        "raw publish + ack, per second",
        "of raw",
    ]);
    let [mut ours, mut raw] = [Curve::ours("delivered"), Curve::limit("raw broker, publish + ack")];
    for bytes in SIZES {
        let limit = stage.raw.published_per_second(bytes, Duration::from_secs(1)).await;
        let flowed = Box::pin(flow(
            &stage,
            Flow {
                bytes,
                in_flight: Flow::ONE_PAIR.in_flight.min(IN_FLIGHT_BYTES / bytes),
                backlog: Flow::ONE_PAIR.backlog.min(BACKLOG_BYTES / bytes),
                warm_up: Duration::from_millis(500),
                window: Duration::from_secs(3),
                ..Flow::ONE_PAIR
            },
        ))
        .await;
        let rate = flowed.delivered;
        let cells = [rate, rate * bytes as f64 / MIB, limit, rate / limit].map(Cell::from);
        table.row(crate::model::digits(bytes as f64), cells.into());
        ours.points.push((bytes as f64, rate));
        raw.points.push((bytes as f64, limit));
    }
    Section {
        title: "Throughput against size".into(),
        text: "One pair, one stream, three seconds for each size; up to 256 sends under way, fewer of the large ones (8 MiB).".into(),
        tables: vec![table],
        charts: vec![Chart {
            file: "throughput-against-size".into(),
            title: "Throughput against size".into(),
            x: Axis::log("bytes of a message's body"),
            y: Axis::log("messages per second"),
            curves: vec![ours, raw],
        }],
        ..Default::default()
    }
}
