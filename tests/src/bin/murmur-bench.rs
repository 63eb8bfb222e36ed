//! What Murmur costs beside the raw broker, measured in one run on one machine: latency, throughput, memory, start-up.
//!
//! `make bench` builds in release mode and runs it. Quote medians and ratios: absolute figures drift with the machine.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "a benchmark fails loudly")]

use std::{
    collections::HashMap,
    fs,
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use async_nats::jetstream;
use futures::{StreamExt, TryStreamExt, stream};
use murmur_proto::{
    client::NodeClient,
    node::v1::{
        AttachRequest, Message, RegisterRequest, RequestRequest, SendRequest, attach_response, request_response,
    },
};
use murmur_tests::{
    network::{Network, Node, Options},
    ports::PortLease,
    process::{Process, binary, nats_server},
    wait,
};
use tokio::sync::mpsc;

const BODY: usize = 1024;
const LATENCY_SAMPLES: usize = 2_000;
const LATENCY_RATE: u32 = 500;
// Fewer than an inbox holds unread (10,000), so that the receiver need not read while it is measured.
const THROUGHPUT_MESSAGES: usize = 8_000;
const IN_FLIGHT: usize = 256;

#[tokio::main]
async fn main() {
    let sync_always = std::env::args().any(|argument| argument == "--sync-always");
    let mode = if sync_always { "sync always" } else { "default file store" };
    println!("murmur bench: 1 KiB bodies, two nodes, durable at both ends, broker in {mode}");
    println!("raised for this run: pair rate and source rate (loop breakers), to measure the path and not the limit\n");

    let raw = raw_broker(sync_always).await;
    let network = Network::start_with(Options { sync_always, env: raised_limits() }).await;
    let (here, there) = (network.node("here", "bench").await, network.node("there", "bench").await);
    register(&here, "alice").await;
    register(&there, "bob").await;
    here.knows("/w/acme/u/bench/bob").await;
    there.knows("/w/acme/u/bench/alice").await;
    let memory = [
        ("nats-server", rss_mib(network.broker.pid())),
        ("murmur-server, idle", rss_mib(network.server.pid())),
        ("murmur-node, idle", rss_mib(here.process.pid())),
    ];

    row("raw publish → deliver", &raw.latency, None);
    let one_way = one_way(&here, &there).await;
    row("one way, send call → notification", &one_way.from_call, Some(&raw.latency));
    row("one way, commit → notification", &one_way.from_commit, Some(&raw.latency));
    row("request round trip", &round_trip(&here, &there).await, Some(&raw.latency));
    println!("{:<38} {:>10.0} /s", "raw publish + ack, 256 in flight", raw.per_second);
    let throughput = throughput(&here, &there).await;
    let ratio = throughput.accepted / raw.per_second;
    println!("{:<38} {:>10.0} /s   {ratio:.3} of raw", "accepted by send (fsync'd)", throughput.accepted);
    let ratio = throughput.delivered / raw.per_second;
    println!("{:<38} {:>10.0} /s   {ratio:.3} of raw", "sustained, send → other inbox", throughput.delivered);
    let (cold_start, shim_memory) = shim(&here);
    row("shim: start → tools/list", &cold_start, None);
    for (what, mib) in memory {
        println!("{what:<38} {mib:>10.1} MiB");
    }
    println!("{:<38} {shim_memory:>10.1} MiB", "murmur-mcp, idle");
    println!("{:<38} {:>10.1} MiB", "murmur-node, after the run", rss_mib(here.process.pid()));
}

/// Sorted samples.
struct Samples(Vec<Duration>);

impl Samples {
    fn new(mut samples: Vec<Duration>) -> Self {
        samples.sort();
        Self(samples)
    }

    fn at(&self, share: f64) -> Duration {
        self.0[((self.0.len() - 1) as f64 * share) as usize]
    }
}

fn row(what: &str, samples: &Samples, raw: Option<&Samples>) {
    let (p50, p99) = (samples.at(0.5), samples.at(0.99));
    let ratio = raw.map(|raw| format!("   p50 = {:.1} × raw", p50.as_secs_f64() / raw.at(0.5).as_secs_f64()));
    println!("{what:<38} p50 {:>8.3} ms  p99 {:>8.3} ms{}", ms(p50), ms(p99), ratio.unwrap_or_default());
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

fn raised_limits() -> Vec<(String, String)> {
    ["MURMUR_NODE_PAIR_RATE_PER_MINUTE", "MURMUR_NODE_PAIR_BURST"]
        .map(|name| (name.to_owned(), "100000000".to_owned()))
        .into()
}

struct Raw {
    latency: Samples,
    per_second: f64,
}

/// The same broker binary without us: what no durable messaging over it can beat.
async fn raw_broker(sync_always: bool) -> Raw {
    let dir = tempfile::tempdir().unwrap();
    let port = PortLease::take();
    let sync = if sync_always { ", sync_interval: always" } else { "" };
    let config = format!(
        "listen: 127.0.0.1:{}\njetstream {{ store_dir: \"{}\"{sync} }}\n",
        port.port,
        dir.path().join("js").display()
    );
    let path = dir.path().join("raw.conf");
    fs::write(&path, config).unwrap();
    let mut broker = Process::new(&nats_server(), vec!["-c".into(), path.into()], dir.path().join("raw.log"));
    broker.start();
    let url = format!("nats://127.0.0.1:{}", port.port);
    let client = wait::until("the raw broker answers", || async { async_nats::connect(&url).await.ok() }).await;
    let context = jetstream::ContextBuilder::new().max_ack_inflight(4096).backpressure_on_inflight(true).build(client);
    let stream = context
        .create_stream(jetstream::stream::Config {
            name: "RAW".into(),
            subjects: vec!["raw.>".into()],
            retention: jetstream::stream::RetentionPolicy::WorkQueue,
            ..Default::default()
        })
        .await
        .unwrap();
    Raw { latency: raw_latency(&context, &stream).await, per_second: raw_throughput(&context).await }
}

async fn raw_latency(context: &jetstream::Context, stream: &jetstream::stream::Stream) -> Samples {
    let consumer = stream
        .create_consumer(jetstream::consumer::pull::Config {
            durable_name: Some("one".into()),
            filter_subject: "raw.latency".into(),
            ..Default::default()
        })
        .await
        .unwrap();
    let mut messages = consumer.messages().await.unwrap();
    let body = bytes(0);
    let mut samples = Vec::with_capacity(LATENCY_SAMPLES);
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / LATENCY_RATE);
    for _ in 0..LATENCY_SAMPLES {
        ticks.tick().await;
        let start = Instant::now();
        let ack = context.publish("raw.latency", body.clone().into()).await.unwrap();
        let message = messages.next().await.unwrap().unwrap();
        samples.push(start.elapsed());
        ack.await.unwrap();
        message.ack().await.unwrap();
    }
    Samples::new(samples)
}

async fn raw_throughput(context: &jetstream::Context) -> f64 {
    let start = Instant::now();
    let body = bytes(0);
    stream::iter(0..THROUGHPUT_MESSAGES)
        .map(|_| async { context.publish("raw.load", body.clone().into()).await.unwrap().await })
        .buffer_unordered(IN_FLIGHT)
        .try_collect::<Vec<_>>()
        .await
        .unwrap();
    THROUGHPUT_MESSAGES as f64 / start.elapsed().as_secs_f64()
}

struct OneWay {
    from_call: Samples,
    from_commit: Samples,
}

/// Messages at a steady rate; the receiver is an attached session, as a shim is.
async fn one_way(here: &Node, there: &Node) -> OneWay {
    let mut arrivals = attach(there, "bob").await;
    let mut client = here.client().await;
    let mut sent = HashMap::new();
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / LATENCY_RATE);
    for number in 0..LATENCY_SAMPLES {
        ticks.tick().await;
        let start = Instant::now();
        let answer = client.messages.send(draft(number)).await.unwrap().into_inner();
        sent.insert(answer.msg_id, (start, Instant::now()));
    }
    let (mut from_call, mut from_commit) = (Vec::new(), Vec::new());
    while from_call.len() < LATENCY_SAMPLES {
        let (message, at) = arrivals.recv().await.unwrap();
        if let Some((start, committed)) = sent.remove(&message.msg_id) {
            from_call.push(at - start);
            from_commit.push(at.saturating_duration_since(committed));
        }
    }
    OneWay { from_call: Samples::new(from_call), from_commit: Samples::new(from_commit) }
}

async fn round_trip(here: &Node, there: &Node) -> Samples {
    let mut arrivals = attach(there, "bob").await;
    let mut answering = there.client().await;
    let answerer = tokio::spawn(async move {
        while let Some((message, _)) = arrivals.recv().await {
            let reply = SendRequest {
                agent: "bob".into(),
                in_reply_to: message.msg_id,
                body: message.body,
                ..Default::default()
            };
            answering.messages.send(reply).await.unwrap();
        }
    });
    let mut client = here.client().await;
    let mut samples = Vec::new();
    for number in 0..LATENCY_SAMPLES / 4 {
        let start = Instant::now();
        let request = RequestRequest {
            agent: "alice".into(),
            to: "bob".into(),
            body: bytes(number).into(),
            timeout_ms: 30_000,
            ..Default::default()
        };
        let mut answers = client.messages.request(request).await.unwrap().into_inner();
        while let Some(answer) = answers.message().await.unwrap() {
            if let Some(request_response::Item::Outcome(outcome)) = answer.item {
                assert!(outcome.reply.is_some(), "no reply: {outcome:?}");
            }
        }
        samples.push(start.elapsed());
    }
    answerer.abort();
    Samples::new(samples)
}

struct Throughput {
    accepted: f64,
    delivered: f64,
}

async fn throughput(here: &Node, there: &Node) -> Throughput {
    let mut arrivals = attach(there, "bob").await;
    let client = Arc::new(here.client().await);
    let start = Instant::now();
    let sending = tokio::spawn({
        let client = Arc::clone(&client);
        async move {
            stream::iter(0..THROUGHPUT_MESSAGES)
                .map(|number| {
                    let mut client = NodeClient::clone(&client);
                    async move { client.messages.send(draft(number)).await.map(drop) }
                })
                .buffer_unordered(IN_FLIGHT)
                .try_collect::<Vec<_>>()
                .await
                .unwrap();
            start.elapsed()
        }
    });
    let mut arrived = std::collections::HashSet::new();
    while arrived.len() < THROUGHPUT_MESSAGES {
        let (message, _) = arrivals.recv().await.unwrap();
        arrived.insert(message.msg_id);
    }
    let delivered = THROUGHPUT_MESSAGES as f64 / start.elapsed().as_secs_f64();
    let accepted = THROUGHPUT_MESSAGES as f64 / sending.await.unwrap().as_secs_f64();
    Throughput { accepted, delivered }
}

/// The agent's pushes with the time of their arrival, after everything unread has been read.
async fn attach(node: &Node, agent: &str) -> mpsc::UnboundedReceiver<(Message, Instant)> {
    let mut client = node.client().await;
    drain(&mut client, agent).await;
    let request = AttachRequest { agent: agent.into(), takeover: true, ..Default::default() };
    let mut stream = client.sessions.attach(request).await.unwrap().into_inner();
    stream.message().await.unwrap().expect("attached");
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok(Some(answer)) = stream.message().await {
            if let Some(attach_response::Item::Message(message)) = answer.item
                && sender.send((message, Instant::now())).is_err()
            {
                break;
            }
        }
    });
    receiver
}

async fn drain(client: &mut NodeClient, agent: &str) {
    loop {
        let request =
            murmur_proto::node::v1::ListInboxRequest { agent: agent.into(), limit: 1000, ..Default::default() };
        let page = client.messages.list_inbox(request).await.unwrap().into_inner();
        if page.messages.is_empty() {
            return;
        }
    }
}

fn draft(number: usize) -> SendRequest {
    SendRequest { agent: "alice".into(), to: "bob".into(), body: bytes(number).into(), ..Default::default() }
}

fn bytes(number: usize) -> Vec<u8> {
    let mut body = format!("{number} ").into_bytes();
    body.resize(BODY, b'.');
    body
}

async fn register(node: &Node, agent: &str) {
    let request = RegisterRequest { agent: agent.into(), ..Default::default() };
    node.client().await.sessions.register(request).await.unwrap();
}

/// Time from the start of the process to the answer of tools/list, and memory when idle after it.
fn shim(node: &Node) -> (Samples, f64) {
    let mut samples = Vec::new();
    let mut memory = 0.0;
    for _ in 0..50 {
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
        input
            .write_all(
                concat!(
                    r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"bench","version":"0"}}}"#,
                    "\n",
                    r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
                    "\n",
                    r#"{"jsonrpc":"2.0","id":2,"method":"tools/list"}"#,
                    "\n"
                )
                .as_bytes(),
            )
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        output.lines().map(Result::unwrap).find(|line| line.contains("\"id\":2")).expect("tools/list is answered");
        samples.push(start.elapsed());
        memory = rss_mib(child.id());
        drop(input);
        child.wait().unwrap();
    }
    (Samples::new(samples), memory)
}

fn rss_mib(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}
