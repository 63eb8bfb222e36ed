//! `murmur-node`: runs one node.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use murmur_node::{
    app,
    config::{Config, Flags},
    lifecycle,
};

/// A message is a few hundred allocations that live for a millisecond and end on another thread than they began on.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The node of a host: it holds the keys of its agents and sends, receives and keeps their messages.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the node until it is told to end
    Run(Settings),
    /// Run one process of an agent (the node does this)
    #[command(hide = true)]
    Keep {
        /// Its folder
        dir: PathBuf,
    },
    /// Ask a hosted agent for one turn (the node does this)
    #[command(hide = true)]
    HostedTurn {
        /// The call
        request: PathBuf,
    },
    /// Print the configuration that these flags, the environment and the file make
    Config(Settings),
}

/// Where the settings come from: a file, over it MURMUR_NODE_* variables, over those the flags.
#[derive(clap::Args)]
struct Settings {
    /// TOML file with the settings
    #[arg(long, value_name = "FILE", env = "MURMUR_NODE_CONFIG")]
    config: Option<PathBuf>,
    #[command(flatten)]
    flags: Flags,
}

impl Settings {
    fn load(self) -> anyhow::Result<Config> {
        Ok(Config::load(self.config.as_deref(), self.flags)?)
    }
}

fn main() -> ExitCode {
    match start(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("murmur-node: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: Arguments) -> anyhow::Result<()> {
    lifecycle::harden().context("cannot protect this process")?;
    match arguments.command {
        Command::Config(settings) => {
            print!("{}", settings.load()?);
            Ok(())
        }
        Command::Keep { dir } => murmur_node::runtime::keeper::keep(&dir),
        Command::HostedTurn { request } => murmur_node::runtime::hosted::turn(&request),
        Command::Run(settings) => run(settings.load()?),
    }
}

#[tokio::main]
async fn run(config: Config) -> anyhow::Result<()> {
    // One provider for every user of TLS in the process; a second install is no concern.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let telemetry = murmur_telemetry::init("murmur-node", "info")?;
    let drain = lifecycle::shutdown_on_signal()?;
    let ended = app::run(config, drain).await;
    telemetry.shutdown().await;
    ended
}
