//! The supervisor's own process.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{SUPERVISED, keep::Keeper, policy::Policy, report::Report};
use crate::{
    failure::{Context as _, Failure},
    network::layout::Layout,
};

/// Watches over the parts of a data directory until SIGTERM or SIGINT; the parts go on.
///
/// # Errors
/// [`Failure`] when signals or the data directory cannot be used.
pub(crate) async fn run(layout: Layout, policy: Policy) -> Result<(), Failure> {
    let doing = "listening for signals";
    let (mut hup, mut term) =
        (signal(SignalKind::hangup()).context(doing)?, signal(SignalKind::terminate()).context(doing)?);
    let mut interrupt = signal(SignalKind::interrupt()).context(doing)?;
    // An earlier supervisor's counts go on; one that cannot be read is of no use to anybody.
    let mut report = Report::load(&layout).ok().flatten().unwrap_or_default();
    report.supervisor = i32::try_from(std::process::id()).unwrap_or_default();
    let (ring, bell) = watch::channel(0_u64);
    let stop = CancellationToken::new();
    let keeper = Keeper { layout, policy, stop: stop.clone(), bell, report: Arc::new(Mutex::new(report)) };
    let mut keepers = JoinSet::new();
    for part in SUPERVISED {
        keepers.spawn(keeper.clone().keep(part));
    }
    tracing::info!("watching over {}", keeper.layout.root().display());
    // From now on a bell is heard, which `up` waits for.
    let saved = keeper.report.lock().unwrap_or_else(PoisonError::into_inner).save(&keeper.layout);
    saved?;
    loop {
        tokio::select! {
            _ = hup.recv() => ring.send_modify(|count| *count = count.wrapping_add(1)),
            _ = term.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    stop.cancel();
    while keepers.join_next().await.is_some() {}
    tracing::info!("ended; what it watched over goes on");
    Ok(())
}
