//! Waiting for a phase: by level, woken by a bell, with no loop that looks again and again.

use std::time::Duration;

use murmur_core::{
    id::{AgentId, WorkspaceId},
    phase::Phase,
};
use murmur_proto::v1;

use super::{
    AgentError, Agents,
    find::{Who, resolved},
};
use crate::{
    db::{
        Conn,
        agent_run::{self, AgentRun},
        follow_up, timeline,
    },
    invalid::Invalid,
    tokens::Principal,
};

const TIMEOUT: Duration = Duration::from_secs(600);
const TIMEOUT_MAX: Duration = Duration::from_secs(3600);

/// Whom a wait is for: an agent, whoever holds its slug later.
#[derive(Debug, Clone, Copy)]
pub struct Wait {
    workspace_id: WorkspaceId,
    agent_id: AgentId,
    /// How far the timeline had come when it began.
    first: u64,
}

/// The answer of a wait.
#[derive(Debug)]
pub struct Waited {
    /// As it stands now.
    pub run: AgentRun,
    /// A phase that was waited for holds, or held since the wait began.
    pub matched: bool,
    /// None came in time.
    pub timed_out: bool,
}

impl Agents {
    /// Waits until an agent is in one of the phases; without any, until it needs attention. An agent that ended otherwise is an answer
    /// too: it matches nothing any more. A phase that was left again between two looks counts: the timeline knows of it. While work waits
    /// for an agent that a node runs, it is not done, whatever its phase says.
    ///
    /// # Errors
    /// [`AgentError`].
    pub async fn wait(
        &self,
        principal: &Principal,
        wait: &Wait,
        phases: &[Phase],
        timeout: Option<Duration>,
    ) -> Result<Waited, AgentError> {
        let timeout = timeout.unwrap_or(TIMEOUT);
        if timeout > TIMEOUT_MAX {
            return Err(Invalid::new("timeout", "must be at most an hour").into());
        }
        let Wait { workspace_id, agent_id, first } = *wait;
        let end_ms = self.clock.now_ms().saturating_add(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX));
        let mut changed = self.changed.listen(agent_id);
        loop {
            changed.borrow_and_update();
            let mut tx = self.db.read().await?;
            self.tokens.still_holds(&mut tx, principal).await?;
            let run = agent_run::get(&mut tx, workspace_id, agent_id).await?;
            let run = run.ok_or_else(|| AgentError::NotFound(agent_id.to_string()))?;
            // What it was given and has not begun is still to come: an answer now would be that of its last turn.
            let is_due = !run.interactive && follow_up::is_due(&mut tx, agent_id).await?;
            let fits = |phase| !(is_due && is_done(phase, phases)) && fits(phase, phases);
            let matched = fits(run.phase) || was_there(&mut tx, &run, first, phases, fits).await?;
            drop(tx);
            if matched || run.ended_ms.is_some() {
                return Ok(Waited { run, matched, timed_out: false });
            }
            tokio::select! {
                biased;
                _ = changed.changed() => {}
                () = self.clock.sleep_until(end_ms) => return Ok(Waited { run, matched: false, timed_out: true }),
            }
        }
    }

    /// Whom the wait is for, and how far its timeline had come.
    ///
    /// # Errors
    /// [`AgentError`].
    pub async fn begin_wait(&self, principal: &Principal, slug: &str) -> Result<Wait, AgentError> {
        let mut tx = self.db.read().await?;
        let who = Who::of(&mut tx, principal).await?;
        let run = resolved(&mut tx, &who, slug).await?;
        if who.agent.as_ref().is_some_and(|own| own.agent_id == run.agent_id) {
            return Err(Invalid::new("slug", "must be another agent: nobody can wait for itself").into());
        }
        let first = timeline::last_seq(&mut tx, run.agent_id).await?;
        Ok(Wait { workspace_id: run.workspace_id, agent_id: run.agent_id, first })
    }
}

fn fits(phase: Phase, wanted: &[Phase]) -> bool {
    if wanted.is_empty() { phase.needs_attention() } else { wanted.contains(&phase) }
}

/// Whether it is a phase that says that there is nothing more to do. Who waits for SLEEPING by name means the process.
fn is_done(phase: Phase, wanted: &[Phase]) -> bool {
    matches!(phase, Phase::TaskComplete | Phase::Idle) || phase == Phase::Sleeping && wanted.is_empty()
}

/// Whether a phase that is waited for was left again. One that says that there is nothing more to do counts only while nothing more was
/// done: an agent that runs again was not through with its work.
async fn was_there(
    conn: &mut Conn,
    run: &AgentRun,
    first: u64,
    wanted: &[Phase],
    fits: impl Fn(Phase) -> bool,
) -> Result<bool, AgentError> {
    let entries = timeline::since(conn, run.agent_id, first).await?;
    // What a parent's timeline tells of its children are no phases of its own.
    let own = entries.into_iter().filter(|entry| entry.kind == i32::from(v1::TimelineKind::Phase));
    let phases: Vec<Phase> = own.filter_map(|entry| entry.phase).collect();
    let goes_on = |phase: &Phase| matches!(phase, Phase::Starting | Phase::Running);
    let last_start = phases.iter().rposition(goes_on);
    let counts = |(at, phase): (usize, &Phase)| {
        let is_over = is_done(*phase, wanted) && last_start.is_some_and(|start| at < start);
        !is_over && fits(*phase)
    };
    Ok(phases.iter().enumerate().any(counts))
}
