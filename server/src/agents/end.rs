//! Ending an agent whose process a node has: first the row, then the order, then the node's word that it is done.

use murmur_core::{id::NodeId, phase::Phase};
use murmur_proto::v1;

use super::{AgentError, work::Work};
use crate::db::{
    agent_run::{self, AgentRun},
    node_order::{self, Kind},
};

/// Between SIGTERM and SIGKILL.
const GRACE_S: i64 = 10;
/// A node that is there and has not told of an end by then is not waited for any longer.
const TOLD_WITHIN_MS: u64 = 5 * 60 * 1000;

/// Begins the end of an agent. One without a process has ended when this returns; any other is DESTROYING until its node says so.
/// Says whether a node has still to act.
pub(super) async fn begin_end(
    work: &mut Work,
    run: &mut AgentRun,
    end: Phase,
    reason: &str,
) -> Result<bool, AgentError> {
    if !has_process(run) {
        work.end_unseen(run, end, reason).await?;
        return Ok(false);
    }
    run.end_as = Some(end);
    reason.clone_into(&mut run.end_reason);
    run.deadline_ms = Some(work.now_ms() + TOLD_WITHIN_MS);
    work.become_(run, Phase::Destroying, reason).await?;
    // What a node that is away has not heard of need not begin.
    for kind in [Kind::Start, Kind::Interrupt, Kind::Drain, Kind::Stop] {
        node_order::withdraw(work, run.agent_id, kind).await?;
    }
    stop(work, run, end, reason).await?;
    Ok(true)
}

/// Ends every agent of a node that does not count any more, deepest first: nobody waits for its word, and nothing is ordered of it.
pub(crate) async fn end_all_of_node(work: &mut Work, node_id: NodeId, why: &str) -> Result<(), AgentError> {
    for mut run in agent_run::live_of_node(work, node_id).await? {
        let (end, why) = match run.end_as {
            Some(end) => (end, run.end_reason.clone()),
            None => (Phase::Failed, why.to_owned()),
        };
        work.end_unseen(&mut run, end, &why).await?;
    }
    Ok(())
}

/// Whether its node has, or will have, a process of it.
pub(super) fn has_process(run: &AgentRun) -> bool {
    !run.interactive && run.placed && run.phase != Phase::Sleeping && run.ended_ms.is_none()
}

/// Orders the end of the process.
pub(super) async fn stop(work: &mut Work, run: &AgentRun, end: Phase, reason: &str) -> Result<(), AgentError> {
    let grace = Some(prost_types::Duration { seconds: GRACE_S, nanos: 0 });
    let order = v1::StopAgent { end: wire(end).into(), reason: reason.to_owned(), grace };
    work.order(run, Kind::Stop, v1::order::Item::Stop(order)).await?;
    Ok(())
}

/// A phase as the contract writes it.
pub(crate) const fn wire(phase: Phase) -> v1::Phase {
    match phase {
        Phase::Starting => v1::Phase::Starting,
        Phase::Running => v1::Phase::Running,
        Phase::TaskComplete => v1::Phase::TaskComplete,
        Phase::ChecksPending => v1::Phase::ChecksPending,
        Phase::Idle => v1::Phase::Idle,
        Phase::Sleeping => v1::Phase::Sleeping,
        Phase::Destroying => v1::Phase::Destroying,
        Phase::Completed => v1::Phase::Completed,
        Phase::Failed => v1::Phase::Failed,
        Phase::Canceled => v1::Phase::Canceled,
    }
}

/// A phase as we have it; `None` for none.
pub(crate) const fn read(phase: v1::Phase) -> Option<Phase> {
    match phase {
        v1::Phase::Unspecified => None,
        v1::Phase::Starting => Some(Phase::Starting),
        v1::Phase::Running => Some(Phase::Running),
        v1::Phase::TaskComplete => Some(Phase::TaskComplete),
        v1::Phase::ChecksPending => Some(Phase::ChecksPending),
        v1::Phase::Idle => Some(Phase::Idle),
        v1::Phase::Sleeping => Some(Phase::Sleeping),
        v1::Phase::Destroying => Some(Phase::Destroying),
        v1::Phase::Completed => Some(Phase::Completed),
        v1::Phase::Failed => Some(Phase::Failed),
        v1::Phase::Canceled => Some(Phase::Canceled),
    }
}
