//! What is there when nothing happens: start of the MCP shim, idle memory of every part.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
    time::Instant,
};

use murmur_tests::{network::Node, process::binary};

use crate::{
    Settings,
    model::{Cell, Headline, Section, Table},
    samples::{Rounds, Samples},
    stage::Stage,
    usage::rss_mib,
};

const STARTS: usize = 50;
const HELLO: &str = concat!(
    r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"bench","version":"0"}}}"#,
    "\n",
    r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
    "\n",
    r#"{"jsonrpc":"2.0","id":2,"method":"tools/list"}"#,
    "\n"
);

/// Measures both.
pub(crate) async fn measure(settings: Settings) -> Section {
    let stage = Stage::start(settings.sync_always).await;
    let [mut start50, mut start99, mut shim_mib] = <[Rounds; 3]>::default();
    for _ in 0..settings.rounds {
        let (starts, mib) = tokio::task::block_in_place(|| starts(&stage.here));
        start50.add(starts.p50());
        start99.add(starts.p99());
        shim_mib.add(mib);
    }
    let node_mib = rss_mib(stage.here.process.pid());
    let mut starts = Table::new(&["murmur-mcp", "p50, ms", "p99, ms"]);
    starts.row("start of the process → answer to tools/list", vec![(&start50).into(), (&start99).into()]);
    let mut memory = Table::new(&["idle", "resident, MiB"]);
    memory.row("murmur-mcp", vec![(&shim_mib).into()]);
    memory.row("murmur-node", vec![node_mib.into()]);
    memory.row("murmur-server", vec![rss_mib(stage.network.server.pid()).into()]);
    memory.row("nats-server", vec![rss_mib(stage.network.broker.pid()).into()]);
    let headline = |what: &str, figure: Cell, median: f64, goal: f64| Headline {
        what: what.to_owned(),
        figure,
        goal: format!("≤ {goal}"),
        is_met: median <= goal,
    };
    Section {
        title: "Start and idle memory".into(),
        text: format!("{STARTS} starts a round; memory of a network that has just started, before any message."),
        headlines: vec![
            headline("Shim, start → tools/list, p50, ms", (&start50).into(), start50.median(), 5.0),
            headline("Shim, idle, MiB", (&shim_mib).into(), shim_mib.median(), 7.0),
            headline("Node, idle, MiB", node_mib.into(), node_mib, 25.0),
        ],
        tables: vec![starts, memory],
        charts: vec![],
    }
}

/// Time from the start of the process to the answer of tools/list, and the memory of the last one then.
fn starts(node: &Node) -> (Samples, f64) {
    let (mut samples, mut memory) = (Vec::new(), 0.0);
    for _ in 0..STARTS {
        let start = Instant::now();
        let mut child = Command::new(binary("murmur-mcp"))
            .args(["--agent", "bench-shim", "--socket"])
            .arg(&node.socket)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(HELLO.as_bytes()).unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        output.lines().map(Result::unwrap).find(|line| line.contains("\"id\":2")).expect("tools/list is answered");
        samples.push(start.elapsed());
        memory = rss_mib(child.id());
        drop(input);
        child.wait().unwrap();
    }
    (Samples::new(samples), memory)
}
