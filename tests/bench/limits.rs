//! The raw limits: what the disk, SQLite, gRPC over a Unix socket and the broker can do by themselves.

use std::{
    fs::File,
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

use rusqlite::Connection;

use crate::{
    BODY_BYTES, Settings, echo,
    latency::RATE,
    model::{Cell, Section, Table},
    raw::Raw,
    samples::{Rounds, Samples},
};

const FSYNCS: usize = 500;
const COMMIT_TIME: Duration = Duration::from_millis(400);
const COMMIT_ROWS: [usize; 3] = [1, 64, 256];

/// Measures all of them.
pub(crate) async fn measure(settings: Settings) -> Section {
    let raw = Raw::start(settings.sync_always).await;
    let mut figures: [Rounds; 11] = Default::default();
    for _ in 0..settings.rounds {
        let fsync = fdatasync();
        let echo = echo::measure().await;
        let rows = COMMIT_ROWS.map(committed_per_second);
        let latency = raw.latency(RATE, 1_000, BODY_BYTES).await;
        let published = raw.published_per_second(BODY_BYTES, Duration::from_millis(1_500)).await;
        let carried = raw.carried_per_second(BODY_BYTES, Duration::from_millis(1_500)).await;
        let round = [
            fsync.p50(),
            fsync.p99(),
            echo.latency.p50(),
            echo.per_second,
            rows[0],
            rows[1],
            rows[2],
            latency.p50(),
            latency.p99(),
            published,
            carried,
        ];
        figures.iter_mut().zip(round).for_each(|(rounds, figure)| rounds.add(figure));
    }
    let names = [
        "fdatasync of 4 KiB behind the end of a file, p50, ms",
        "the same, p99, ms",
        "gRPC unary echo of 1 KiB over a Unix socket, one at a time, p50, ms",
        "the same, 256 under way on one connection, per second",
        "SQLite rows of 1 KiB, WAL, synchronous=FULL, 1 in a commit, per second",
        "the same, 64 in a commit, per second",
        "the same, 256 in a commit, per second",
        "broker, publish → deliver at 500/s, p50, ms",
        "the same, p99, ms",
        "broker, publish and acknowledge, 256 under way, per second",
        "broker, publish, acknowledge, pull and acknowledge, per second",
    ];
    let mut table = Table::new(&["limit", "median (lowest – highest)"]);
    for (name, rounds) in names.iter().zip(&figures) {
        table.row(*name, vec![Cell::from(rounds)]);
    }
    Section {
        title: "Raw limits".into(),
        text: "What the same machine does without Murmur: its disk, SQLite as the nodes use it, a gRPC server that only echoes, and \
               the broker through its own client library."
            .into(),
        tables: vec![table],
        ..Default::default()
    }
}

/// How long the disk takes to promise one page, on the disk that the stores are on.
pub(crate) fn fdatasync() -> Samples {
    let mut file = tempfile::tempfile().unwrap();
    let page = [7_u8; 4096];
    let sync = |file: &mut File| {
        file.write_all(&page).unwrap();
        let start = Instant::now();
        file.sync_data().unwrap();
        start.elapsed()
    };
    Samples::new((0..FSYNCS).map(|_| sync(&mut file)).collect())
}

/// Rows that SQLite stores per second when so many share a commit, set up as the node sets it up.
fn committed_per_second(rows: usize) -> f64 {
    let dir = tempfile::tempdir().unwrap();
    let mut connection = open(&dir.path().join("raw.db"));
    let payload = [7_u8; BODY_BYTES];
    let (start, mut count) = (Instant::now(), 0_u64);
    while start.elapsed() < COMMIT_TIME {
        let tx = connection.transaction().unwrap();
        for _ in 0..rows {
            count += 1;
            let mut statement = tx.prepare_cached("INSERT INTO message (id, body) VALUES (?1, ?2)").unwrap();
            statement.execute((i64::try_from(count).unwrap(), &payload[..])).unwrap();
        }
        tx.commit().unwrap();
    }
    count as f64 / start.elapsed().as_secs_f64()
}

fn open(path: &Path) -> Connection {
    let connection = Connection::open(path).unwrap();
    connection.pragma_update(None, "journal_mode", "WAL").unwrap();
    connection.pragma_update(None, "synchronous", "FULL").unwrap();
    connection.execute("CREATE TABLE message (id INTEGER PRIMARY KEY, body BLOB NOT NULL)", []).unwrap();
    connection
}
