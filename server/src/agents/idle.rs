//! What follows by itself from a phase: what an idle agent does, used-up budgets, and work for one that sleeps.

use murmur_core::{
    id::{AgentId, WorkspaceId},
    phase::Phase,
};
use murmur_proto::v1;

use super::{
    AgentError, Agents,
    end::{begin_end, stop},
    work::Work,
};
use crate::{
    db::{
        agent_run::{self, AgentRun},
        node_order::{self, Kind},
    },
    events::pull_request,
    queue,
};

const WOKEN: &str = "woken for work that waits";

impl Agents {
    /// Lets an agent take up work that was queued for it in the same change: a sleeping one is started again, and any other's node is told
    /// to claim a turn. One that is starting claims by itself.
    ///
    /// # Errors
    /// [`AgentError::Ended`] and [`AgentError::Destroying`] when it takes none any more.
    pub(crate) async fn drain(
        &self,
        work: &mut Work,
        workspace_id: WorkspaceId,
        id: AgentId,
    ) -> Result<(), AgentError> {
        let run =
            &mut agent_run::get(work, workspace_id, id).await?.ok_or_else(|| AgentError::NotFound(id.to_string()))?;
        work.touch(run);
        match run.phase {
            Phase::Sleeping => self.start_again(work, run, WOKEN).await,
            Phase::Destroying => Err(AgentError::Destroying(run.slug.clone())),
            Phase::Completed | Phase::Failed | Phase::Canceled => {
                Err(AgentError::Ended { slug: run.slug.clone(), phase: run.phase })
            }
            Phase::Starting => Ok(()),
            Phase::Running | Phase::TaskComplete | Phase::ChecksPending | Phase::Idle => {
                if !run.interactive && !node_order::is_open(work, run.agent_id, Kind::Drain).await? {
                    work.order(run, Kind::Drain, v1::order::Item::Drain(v1::DrainQueue {})).await?;
                }
                Ok(())
            }
        }
    }

    /// What comes of an agent that has just reached its phase by its node's word.
    pub(super) async fn follow(&self, work: &mut Work, run: &mut AgentRun) -> Result<(), AgentError> {
        if run.interactive {
            return Ok(());
        }
        match run.phase {
            Phase::Running => over_budget(work, run).await,
            Phase::Idle => idle(work, run).await,
            Phase::Sleeping => {
                for kind in [Kind::Stop, Kind::Drain, Kind::Interrupt] {
                    node_order::withdraw(work, run.agent_id, kind).await?;
                }
                // It may have come while its process was being stopped.
                if has_work(work, run).await? {
                    self.start_again(work, run, WOKEN).await?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// What an idle agent does.
///
/// # Errors
/// [`AgentError`].
pub(crate) async fn idle(work: &mut Work, run: &mut AgentRun) -> Result<(), AgentError> {
    if has_work(work, run).await? {
        return Ok(());
    }
    match run.spec.on_idle() {
        v1::OnIdle::Sleep => {
            if !node_order::is_open(work, run.agent_id, Kind::Stop).await? {
                stop(work, run, Phase::Sleeping, "idle").await?;
            }
            Ok(())
        }
        v1::OnIdle::Terminate => begin_end(work, run, Phase::Completed, "idle, and to end then").await.map(|_| ()),
        v1::OnIdle::TerminateWhenPrsResolved if pull_request::has_resolved_all(work, run).await? => {
            begin_end(work, run, Phase::Completed, "its pull requests are resolved").await.map(|_| ())
        }
        v1::OnIdle::Unspecified | v1::OnIdle::KeepAlive | v1::OnIdle::TerminateWhenPrsResolved => Ok(()),
    }
}

/// Whether anything is in its queue. What a turn still holds counts, too: its process has not taken it.
async fn has_work(work: &mut Work, run: &AgentRun) -> Result<bool, AgentError> {
    Ok(queue::count(work, run.agent_id).await? > 0)
}

/// Ends an agent that has used up its turns or its money.
pub(super) async fn over_budget(work: &mut Work, run: &mut AgentRun) -> Result<(), AgentError> {
    let Some(budget) = run.spec.budget else { return Ok(()) };
    let cost = run.output.as_ref().map_or(0, |output| output.cost_micros);
    let why = if budget.max_turns > 0 && run.turns > budget.max_turns {
        format!("budget: {} turns are used up", budget.max_turns)
    } else if budget.max_cost_micros > 0 && cost > budget.max_cost_micros {
        format!("budget: {} millionths of a dollar are used up", budget.max_cost_micros)
    } else {
        return Ok(());
    };
    if run.phase == Phase::Destroying || run.phase.is_ended() {
        return Ok(());
    }
    begin_end(work, run, Phase::Failed, &why).await.map(|_| ())
}
