//! The control plane of a local network.

use std::{path::Path, time::Duration};

use super::{
    binaries,
    broker::refuse_stranger,
    layout::Layout,
    plan::Plan,
    process::{Process, Spec},
    ready::{self, Wait},
    supervise::Starter,
};
use crate::failure::Failure;

/// The part's name.
pub(crate) const PART: &str = "server";
const READY_WITHIN: Duration = Duration::from_secs(20);

/// Starts the control plane and waits until its health service says so.
pub(crate) async fn start(layout: &Layout, plan: &Plan, starter: &Starter) -> Result<Process, Failure> {
    refuse_stranger(plan.server, "control plane").await?;
    let program = binaries::find(binaries::SERVER)?;
    let path = |path: &Path| path.as_os_str().to_owned();
    let args = vec![
        "run".into(),
        "--listen".into(),
        plan.server.to_string().into(),
        "--data-dir".into(),
        path(&layout.server()),
        "--broker-dir".into(),
        path(&layout.broker()),
        "--broker-url".into(),
        plan.broker_url().into(),
    ];
    let process = starter.spawn(layout, Spec { part: PART.into(), program, args }).await?;
    wait_until_healthy(layout, plan, &process).await?;
    Ok(process)
}

/// Waits until the control plane's health service says that it serves.
pub(crate) async fn wait_until_healthy(layout: &Layout, plan: &Plan, process: &Process) -> Result<(), Failure> {
    let url = plan.server_url();
    let wait = Wait { layout, part: PART, process, until: "it is healthy", bound: READY_WITHIN };
    wait.ask(|| async { ready::server_serves(&url).await.then_some(()) }).await
}
