//! Starting a network: what runs stays, what is missing is started, in the order of who needs whom.

use super::{
    broker, enrol,
    layout::Layout,
    lock::NetworkLock,
    node::LocalNode,
    plan::{Plan, Wish},
    process::Process,
    progress::Progress,
    revoke::Revoker,
    server,
    supervise::{self, Policy, Starter},
};
use crate::{connect, failure::Failure, owner::Owner};
use murmur_proto::client::{ControlClient, connect_server};

/// A part that runs now.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) part: String,
    pub(crate) process: Process,
    /// Whether this call started it.
    pub(crate) is_new: bool,
}

/// Starts a supervised network with one node under the lock of its data directory.
pub(crate) async fn start(
    layout: &Layout,
    wish: Wish,
    policy: Policy,
    progress: &Progress,
) -> Result<(Plan, Vec<Started>), Failure> {
    layout.create()?;
    let _lock = NetworkLock::take(layout, progress).await?;
    let plan = Plan::load_or_create(layout, wish)?;
    let (starter, is_new) = Starter::supervisor(layout, policy).await?;
    let mut parts = match all(layout, &plan, &starter, progress).await {
        Ok(parts) => parts,
        Err(failure) if is_new => {
            // What went wrong first is what there is to tell.
            drop(starter.end_if_idle(layout).await);
            return Err(failure);
        }
        Err(failure) => return Err(failure),
    };
    if let Starter::Supervisor(process) = starter {
        parts.push(Started { part: supervise::PART.to_owned(), process, is_new });
    }
    Ok((plan, parts))
}

/// Starts broker, control plane and node.
async fn all(layout: &Layout, plan: &Plan, starter: &Starter, progress: &Progress) -> Result<Vec<Started>, Failure> {
    let mut parts = core(layout, plan, starter, progress).await?;
    workspace(layout, plan, progress).await?;
    parts.push(node(layout, plan, &LocalNode::planned(plan), starter, progress).await?);
    Ok(parts)
}

/// Starts broker and control plane.
pub(crate) async fn core(
    layout: &Layout,
    plan: &Plan,
    starter: &Starter,
    progress: &Progress,
) -> Result<Vec<Started>, Failure> {
    let broker = match Process::find(layout, broker::PART)? {
        Some(process) => running(broker::PART, process),
        None => {
            let step = progress.step("finding a nats-server");
            let program = broker::find_program(&step).await?;
            step.done();
            let step = progress.step("starting the broker");
            if let Some(before) = broker::prepare(layout, plan).await? {
                progress.note(&format!(
                    "the broker's configuration was of {}, and is now of this folder",
                    before.display()
                ));
            }
            let process = broker::start(layout, plan, program, starter).await?;
            step.done();
            fresh(broker::PART, process)
        }
    };
    let server = match Process::find(layout, server::PART)? {
        // It may have been restarted a moment ago, and is asked next.
        Some(process) => {
            server::wait_until_healthy(layout, plan, &process).await?;
            running(server::PART, process)
        }
        None => {
            let step = progress.step("starting the control plane");
            let process = server::start(layout, plan, starter).await?;
            step.done();
            fresh(server::PART, process)
        }
    };
    Ok(vec![broker, server])
}

/// Makes the workspace and its owner, unless they are there, and signs its revocation list again when that is due. A list that cannot be
/// signed keeps nobody's network down.
pub(crate) async fn workspace(layout: &Layout, plan: &Plan, progress: &Progress) -> Result<(), Failure> {
    let owner = Owner::load_or_create(layout, &plan.workspace)?;
    let mut control = administrator(layout, plan).await?;
    enrol::workspace(&mut control, &owner, &plan.workspace).await?;
    let revoker = Revoker { layout, owner: &owner, workspace: &plan.workspace };
    if let Err(failure) = revoker.renew_if_due(&mut control).await {
        progress.note(&format!("the revocation list could not be looked after: {}", failure.what));
    }
    Ok(())
}

/// Starts a node of a workspace that exists.
pub(crate) async fn node(
    layout: &Layout,
    plan: &Plan,
    local: &LocalNode,
    starter: &Starter,
    progress: &Progress,
) -> Result<Started, Failure> {
    let before = Process::find(layout, &local.part)?;
    if let Some(process) = before.as_ref().filter(|_| !local.is_out_of_reach()) {
        local.wait_until_answering(layout, process).await?;
        return Ok(running(&local.part, process.clone()));
    }
    let again = if before.is_some() { " again, whose socket is gone" } else { "" };
    let step = progress.step(&format!("starting the node {}{again}", local.name));
    let owner = Owner::require(layout, &plan.workspace)?;
    let mut control = administrator(layout, plan).await?;
    let process = local.start(layout, plan, &mut control, &owner, (starter, before.as_ref())).await?;
    step.done();
    Ok(fresh(&local.part, process))
}

/// The control plane, with the token that it wrote for its administrator.
async fn administrator(layout: &Layout, plan: &Plan) -> Result<ControlClient, Failure> {
    let token = connect::read_token(&layout.admin_token())?;
    let channel = connect_server(&plan.server_url(), None).await?;
    Ok(ControlClient::new(channel, connect::headers(Some(&token))?))
}

fn running(part: &str, process: Process) -> Started {
    Started { part: part.to_owned(), process, is_new: false }
}

fn fresh(part: &str, process: Process) -> Started {
    Started { part: part.to_owned(), process, is_new: true }
}
