//! Pull requests that were closed or merged: an agent that was to live until then may end.

use murmur_core::{id::WorkspaceId, phase::Phase};
use murmur_proto::v1::OnIdle;

use super::route::{Target, learn};
use crate::{
    agents::{AgentError, Work, idle},
    db::{
        Conn, DbError,
        agent_run::{self, AgentRun},
        event_repo,
    },
};

/// Takes down that a pull request was closed or merged, or opened again. An idle agent that lives until its pull requests are resolved ends
/// with the last of them. A webhook calls it in its own change, behind [`super::route::route`]: an agent that the event gave work does that
/// first. `may` says over whom the teller decides.
///
/// # Errors
/// [`AgentError`].
pub(crate) async fn pull_request_resolved(
    work: &mut Work,
    workspace_id: WorkspaceId,
    target: &Target,
    resolved: bool,
    may: &(dyn Fn(&AgentRun) -> bool + Sync),
) -> Result<(), AgentError> {
    learn(work, workspace_id, target, may).await?;
    for id in event_repo::listeners(work, workspace_id, &target.repo, "", target.pr).await? {
        let Some(mut run) = agent_run::get(work, workspace_id, id).await?.filter(|run| may(run)) else { continue };
        event_repo::resolve(work, id, &target.repo, target.pr, resolved).await?;
        if resolved && run.phase == Phase::Idle && run.spec.on_idle() == OnIdle::TerminateWhenPrsResolved {
            idle(work, &mut run).await?;
        }
    }
    Ok(())
}

/// Whether an agent has pull requests, and none of them is open.
///
/// # Errors
/// [`DbError`].
pub(crate) async fn has_resolved_all(conn: &mut Conn, run: &AgentRun) -> Result<bool, DbError> {
    let (all, open) = event_repo::pull_requests(conn, run.agent_id).await?;
    Ok(all > 0 && open == 0)
}
