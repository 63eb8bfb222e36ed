//! What Murmur costs beside what the machine and the broker can do, all measured in one run.
//!
//! Each measure starts a network of its own: a broker, a control plane and two nodes, durable at both ends, and beside it a second
//! broker of the same kind without us, the raw limit. Rounds of ours and of the raw one alternate, and medians are quoted with the
//! smallest and the largest. `make bench` runs the core of it, `make bench-full` everything; `murmur-bench report` draws the charts
//! and tables of docs/BENCHMARKS.md from the figures of such runs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "a benchmark fails loudly")]

mod agents;
mod echo;
mod environment;
mod events;
mod flow;
mod latency;
mod limits;
mod load;
mod memory;
mod model;
mod open_loop;
mod outbox;
mod pace;
mod print;
mod raw;
mod receiver;
mod report;
mod restart;
mod roundtrip;
mod samples;
mod scale;
mod shim;
mod sizes;
mod stage;
mod svg;
mod throughput;
mod usage;

use std::{
    ffi::OsString,
    future::Future,
    os::unix::process::CommandExt as _,
    path::PathBuf,
    pin::Pin,
    process::ExitCode,
    sync::atomic::{AtomicU64, Ordering},
};

use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use crate::model::{Results, Section};

/// What the clients take is taken from what is measured.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Bytes of a message's body unless the measure is about sizes.
const BODY_BYTES: usize = 1024;

/// Some three minutes.
const CORE: [&str; 7] = ["limits", "latency", "roundtrip", "load", "throughput", "sizes", "shim"];
/// A quarter of an hour, with a million messages.
const LONG: [&str; 6] = ["memory", "outbox", "scale", "restart", "events", "agents"];

/// Measures Murmur beside the raw limits of this machine.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// The broker syncs every write to the disk
    #[arg(long, global = true)]
    sync_always: bool,
    /// Adds the figures to this file, in place of those of an earlier run
    #[arg(long, global = true, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Rounds that the median is taken of
    #[arg(long, global = true, default_value_t = 3)]
    rounds: usize,
    /// Messages of `memory` and `outbox`
    #[arg(long, global = true, default_value_t = 1_000_000)]
    messages: u64,
}

#[derive(Subcommand)]
enum Command {
    /// The raw limits: disk, SQLite, gRPC over a socket, broker
    Limits,
    /// One way at 500 messages a second
    Latency,
    /// One way against the load that is offered
    Load,
    /// A request and its reply
    Roundtrip,
    /// Messages a second, sustained, by pairs and connections
    Throughput,
    /// One pair of it alone: what a change did
    Pair,
    /// Messages a second by size
    Sizes,
    /// Start and memory of the MCP shim, idle memory of every part
    Shim,
    /// Memory and disk over --messages
    Memory,
    /// An outbox of --messages that wait for a node that is away
    Outbox,
    /// 1 to 1,000 agents on a node, 1,000 idle peers
    Scale,
    /// The first message after a restart, with history
    Restart,
    /// Events taken, told to nodes and watchers, and told again
    Events,
    /// Spawns, waits, reads beside a bare echo, 10,000 live agents
    Agents,
    /// Reads of it alone: what a change did
    Reads,
    /// What `make bench` runs: limits, latency, roundtrip, load, throughput, sizes, shim
    Core,
    /// What `make bench-full` adds: memory, outbox, scale, restart, events, agents
    Long,
    /// Everything
    All,
    /// Charts and tables from the figures of earlier runs
    Report {
        /// What --json wrote
        results: PathBuf,
        /// Folder for BENCHMARKS.md and bench/*.svg
        #[arg(long, default_value = "docs")]
        docs: PathBuf,
    },
    /// Serves the bare echo
    #[command(hide = true)]
    Echo {
        /// The socket; with --tcp the file that the address is written to
        place: PathBuf,
        #[arg(long)]
        tcp: bool,
    },
    /// Becomes a program that is killed when the bench ends, however that ends
    #[command(hide = true)]
    Exec {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<OsString>,
    },
}

/// What the measures are told.
#[derive(Clone, Copy)]
pub(crate) struct Settings {
    /// The broker's mode.
    pub(crate) sync_always: bool,
    /// Rounds that the median is taken of.
    pub(crate) rounds: usize,
    /// Messages of the measures that are about many.
    pub(crate) messages: u64,
}

type Measuring = Pin<Box<dyn Future<Output = Section>>>;

fn main() -> ExitCode {
    let Arguments { command, sync_always, json, rounds, messages } = Arguments::parse();
    let settings = Settings { sync_always, rounds, messages };
    match command {
        Command::Exec { command } => become_program(&command),
        Command::Echo { place, tcp: false } => runtime().block_on(echo::serve(&place)),
        Command::Echo { place, tcp: true } => runtime().block_on(echo::serve_tcp(&place)),
        Command::Report { results, docs } => report::write(&Results::load(&results), &docs),
        measure => return runtime().block_on(run(&chosen(&measure), settings, json)),
    }
    ExitCode::SUCCESS
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap()
}

/// Replaces this process by a program that the kernel kills when its parent is gone.
fn become_program(command: &[OsString]) {
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).unwrap();
    let error = std::process::Command::new(&command[0]).args(&command[1..]).exec();
    panic!("cannot run {}: {error}", command[0].display());
}

/// The names of the measures.
fn chosen(command: &Command) -> Vec<&'static str> {
    match command {
        Command::Limits => vec!["limits"],
        Command::Latency => vec!["latency"],
        Command::Load => vec!["load"],
        Command::Roundtrip => vec!["roundtrip"],
        Command::Throughput => vec!["throughput"],
        Command::Pair => vec!["pair"],
        Command::Sizes => vec!["sizes"],
        Command::Shim => vec!["shim"],
        Command::Memory => vec!["memory"],
        Command::Outbox => vec!["outbox"],
        Command::Scale => vec!["scale"],
        Command::Restart => vec!["restart"],
        Command::Events => vec!["events"],
        Command::Agents => vec!["agents"],
        Command::Reads => vec!["reads"],
        Command::Core => CORE.into(),
        Command::Long => LONG.into(),
        Command::All => [CORE.as_slice(), LONG.as_slice()].concat(),
        Command::Report { .. } | Command::Echo { .. } | Command::Exec { .. } => vec![],
    }
}

fn measure(name: &str, settings: Settings) -> Measuring {
    match name {
        "limits" => Box::pin(limits::measure(settings)),
        "latency" => Box::pin(latency::measure(settings)),
        "roundtrip" => Box::pin(roundtrip::measure(settings)),
        "load" => Box::pin(load::measure(settings)),
        "throughput" => Box::pin(throughput::measure(settings)),
        "pair" => Box::pin(throughput::measure_pair(settings)),
        "sizes" => Box::pin(sizes::measure(settings)),
        "memory" => Box::pin(memory::measure(settings)),
        "outbox" => Box::pin(outbox::measure(settings)),
        "scale" => Box::pin(scale::measure(settings)),
        "restart" => Box::pin(restart::measure(settings)),
        "events" => Box::pin(events::measure(settings)),
        "agents" => Box::pin(agents::measure(settings)),
        "reads" => Box::pin(agents::measure_reads(settings)),
        "shim" => Box::pin(shim::measure(settings)),
        _ => panic!("no measure {name}"),
    }
}

async fn run(names: &[&'static str], settings: Settings, json: Option<PathBuf>) -> ExitCode {
    let launcher = std::env::current_exe().unwrap().into_os_string();
    murmur_tests::process::launch_through(vec![launcher, "exec".into()]);
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt()).unwrap(), signal(SignalKind::terminate()).unwrap());
    let mode = if settings.sync_always { "sync-always" } else { "default" };
    let environment = environment::read();
    for (what, value) in &environment {
        println!("{what}: {value}");
    }
    println!("broker: {mode}");
    for name in names {
        let section = tokio::select! {
            section = measure(name, settings) => section,
            // What was started is dropped with the future, and ends.
            _ = interrupt.recv() => return ExitCode::from(130),
            _ = terminate.recv() => return ExitCode::from(143),
        };
        print::section(&section);
        if let Some(file) = &json {
            let mut results = Results::load(file);
            results.environment.clone_from(&environment);
            results.modes.entry(mode.to_owned()).or_default().insert((*name).to_owned(), section);
            results.save(file);
        }
    }
    ExitCode::SUCCESS
}

/// A body that begins with its number.
fn body(number: u64, bytes: usize) -> Vec<u8> {
    let mut body = format!("{number} ").into_bytes();
    body.resize(bytes, b'.');
    body
}

fn number_in(body: &[u8]) -> u64 {
    let digits = body.iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0'))
}

/// The first of `count` numbers that no message of this process has had.
fn fresh_numbers(count: u64) -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(count, Ordering::Relaxed)
}
