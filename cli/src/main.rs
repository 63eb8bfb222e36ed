//! `murmurctl`: a private network in one command, messages, and the operator's tools.
//!
//! One file a command in [`cmds`]; [`network`] starts and ends background processes; [`connect`] finds node and control plane;
//! [`failure`] and [`exit`] say what went wrong. Nothing here holds state of its own but `network.json` and the owner's root key.

mod agent_view;
mod args;
mod cmds;
mod comeback;
mod connect;
mod duration;
mod event_view;
mod exit;
mod failure;
mod network;
mod output;
mod owner;
mod text;
mod time;
mod view;
mod word;

use std::{env, process::ExitCode, time::Duration};

use clap::{CommandFactory as _, FromArgMatches as _, builder::Resettable, error::ErrorKind};
use tracing::Instrument as _;

use crate::{
    args::Cli,
    exit::Exit,
    failure::{Context as _, Failure},
    output::{Outcome, Output},
};

/// What a collector gets to take the spans of a command.
const EXPORT_WITHIN: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let parsed = without_empty_variables(Cli::command()).try_get_matches();
    let cli = match parsed.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let output = Output::new(cli.global.json);
    run(cli, output).unwrap_or_else(|failure| report(output, &failure)).into()
}

/// A variable that is set to nothing counts as unset.
fn without_empty_variables(command: clap::Command) -> clap::Command {
    let is_empty = |arg: &clap::Arg| arg.get_env().and_then(env::var_os).is_some_and(|value| value.is_empty());
    command
        .mut_args(|arg| if is_empty(&arg) { arg.env(Resettable::Reset) } else { arg })
        .mut_subcommands(without_empty_variables)
}

fn run(cli: Cli, output: Output) -> Outcome {
    // A second provider in the process would be an error of ours, and this is the only place that installs one.
    drop(rustls::crypto::ring::default_provider().install_default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?;
    let outcome = runtime.block_on(traced(cli, output));
    // A read of stdin that nobody waits for any more must not keep the process.
    runtime.shutdown_background();
    outcome
}

/// Runs the command in the root span of its trace.
async fn traced(cli: Cli, output: Output) -> Outcome {
    // An answer for programs must not be mixed with a log, and nobody needs the log of a command that says what went wrong. The
    // supervisor answers nobody: its log is all there is of it.
    let level = if matches!(cli.command, args::Command::Supervise(_)) { "info" } else { "error" };
    let tracing = murmur_telemetry::init("murmurctl", level)
        .map_err(|error| Failure::usage(format!("{error:#}")).remedy("Correct or unset MURMUR_LOG and OTEL_*."))?;
    let span = tracing::info_span!("murmurctl", command = cli.command.name());
    let outcome = Box::pin(cmds::run(cli, output)).instrument(span).await;
    // A collector that is away must not hold the command.
    drop(tokio::time::timeout(EXPORT_WITHIN, tracing.shutdown()).await);
    outcome
}

fn report(output: Output, failure: &Failure) -> Exit {
    if output.is_json() {
        eprintln!("{}", failure.json());
    } else {
        eprintln!("{failure}");
    }
    failure.exit
}

/// Help and version are no errors; every other refusal of the parser is told in the form that the caller asked for.
fn usage(error: &clap::Error) -> ExitCode {
    let told = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    if !told && env::args_os().any(|arg| arg == "--json") {
        let text = error.render().to_string();
        let (what, hint) = text.split_once("\n\n").unwrap_or((&text, ""));
        let what = what.strip_prefix("error: ").unwrap_or(what);
        return report(Output::new(true), &Failure::usage(what.trim()).remedy(hint.trim())).into();
    }
    // Nothing can be done when even this cannot be written.
    drop(error.print());
    if told { Exit::Ok.into() } else { Exit::Usage.into() }
}
