//! `demo`: two agents on two nodes, through everything that is real, and an end that leaves nothing behind.
//!
//! [`stage`] starts and ends the network in a temporary folder, [`session`] is an MCP client with a `murmur-mcp`, [`story`] is
//! what happens, [`seen`] reads what the broker holds, and [`search`] looks for the plaintext where it must not be.

mod search;
mod seen;
mod session;
mod stage;
mod story;
mod teller;

use tokio::signal::unix::{SignalKind, signal};

use crate::{
    exit::Exit,
    failure::{Context as _, Failure, OwnReason},
    output::{Outcome, Output},
};
use stage::Stage;
use teller::Teller;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Leave the folder with stores and logs behind, and say where it is
    #[arg(long)]
    keep: bool,
}

pub(crate) async fn run(args: &Args, output: Output) -> Outcome {
    let mut teller = Teller::new(output);
    let stage = Stage::new(args.keep)?;
    // Whatever happens, what was started is ended before this returns.
    let told = tokio::select! {
        told = story::tell(&stage, &mut teller) => told.map_err(|failure| explained(failure, args.keep)),
        interrupted = interruption() => Err(interrupted),
    };
    let ended = stage.end().await;
    let story = told?;
    teller.part(&format!("ended all {} processes", ended?));
    teller.finish(story)
}

/// Without `--keep` the logs are gone with the folder.
fn explained(mut failure: Failure, keep: bool) -> Failure {
    if !keep {
        let remedy = failure.remedy.take().map(|remedy| format!("{remedy}\n    ")).unwrap_or_default();
        failure.remedy = Some(format!("{remedy}`murmurctl demo --keep` leaves stores and logs behind to look into."));
    }
    failure
}

/// Ctrl-C, a closed terminal, or a kind request to end.
async fn interruption() -> Failure {
    let wait = async {
        let doing = "listening for signals";
        let mut interrupt = signal(SignalKind::interrupt()).context(doing)?;
        let mut terminate = signal(SignalKind::terminate()).context(doing)?;
        let mut hangup = signal(SignalKind::hangup()).context(doing)?;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
        Ok::<_, Failure>(())
    };
    match wait.await {
        Ok(()) => Failure::new(Exit::Interrupted, "interrupted; everything that was started is ended")
            .own_reason(OwnReason::Interrupted),
        Err(failure) => failure,
    }
}
