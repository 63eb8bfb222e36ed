//! `murmur-server`: the control plane.

use std::{
    net::SocketAddr,
    num::NonZeroU64,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use murmur_server::{
    app::App,
    broker::{self, InitOptions, TlsFiles},
    clock::Clock,
    config::{Config, Flags},
    lifecycle::{Lifecycle, drain_on_signal},
};

/// A call is a few hundred allocations that live for a millisecond and end on another thread than they began on.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The control plane of a Murmur network.
#[derive(Parser)]
#[command(name = "murmur-server", version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve until SIGTERM.
    Run {
        /// TOML file; flags and MURMUR_SERVER_* variables win over it.
        #[arg(long, env = "MURMUR_SERVER_CONFIG")]
        config: Option<PathBuf>,
        #[command(flatten)]
        flags: Box<Flags>,
    },
    /// Prepare a directory to start nats-server from, and print where everything is as JSON. Safe to run again.
    BrokerInit(BrokerInit),
}

#[derive(clap::Args)]
struct BrokerInit {
    /// The broker's directory.
    #[arg(long)]
    dir: PathBuf,
    /// Where clients connect; port 0 lets the broker choose.
    #[arg(long)]
    listen: SocketAddr,
    /// Where the broker's monitoring page listens; loopback only.
    #[arg(long)]
    http: Option<SocketAddr>,
    /// Name of this installation in broker subjects.
    #[arg(long, default_value = "local")]
    site: String,
    /// Sync every write to disk before it is confirmed.
    #[arg(long)]
    sync_always: bool,
    /// Bytes that all streams together may hold.
    #[arg(long, default_value = "2147483648")]
    max_bytes: NonZeroU64,
    /// PEM of the broker's certificate chain; needed, with the key, off loopback.
    #[arg(long, requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// PEM of the broker's private key.
    #[arg(long, requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Where the broker writes a file with its ports.
    #[arg(long)]
    ports_file_dir: Option<PathBuf>,
}

fn main() -> ExitCode {
    match execute(Args::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("murmur-server: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn execute(command: Command) -> anyhow::Result<ExitCode> {
    // One provider for the whole process, before anything speaks TLS; it is there already when a library was faster.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match command {
        Command::Run { config, flags } => {
            let config = Config::load(config.as_deref(), &flags)?;
            let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
            runtime.block_on(run(config))
        }
        Command::BrokerInit(options) => init_broker(options),
    }
}

async fn run(config: Config) -> anyhow::Result<ExitCode> {
    let tracing = murmur_telemetry::init("murmur-server", "info")?;
    let lifecycle = Lifecycle::new();
    drain_on_signal(lifecycle.clone()).context("cannot listen for signals")?;
    let app = App::start(config, Clock::system(), lifecycle).await?;
    let is_well = app.run().await;
    tracing.shutdown().await;
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn init_broker(options: BrokerInit) -> anyhow::Result<ExitCode> {
    let BrokerInit { dir, listen, http, site, sync_always, max_bytes, tls_cert, tls_key, ports_file_dir } = options;
    let tls = tls_cert.zip(tls_key).map(|(cert, key)| TlsFiles { cert, key });
    let options =
        InitOptions { listen, http, site: site.parse()?, domain: None, sync_always, max_bytes, tls, ports_file_dir };
    let layout = broker::init(&dir, &options, Clock::system().now_ms() / 1000)?;
    let text = |path: &Path| path.display().to_string();
    println!(
        "{}",
        serde_json::json!({
            "dir": text(&layout.dir), "config": text(&layout.config), "keys": text(&layout.keys),
            "pid_file": text(&layout.pid_file), "listen": listen, "http": http,
        })
    );
    Ok(ExitCode::SUCCESS)
}
