//! Giving work to an agent.

use murmur_core::{
    checklist::Subject,
    id::FollowUpId,
    limits::{FOLLOW_UP_BYTES_MAX, FOLLOW_UP_TASKS_MAX, FOLLOW_UPS_MAX},
    queue::Kind,
};
use serde::{Deserialize, Serialize};

use super::{Queue, QueueError, list::count_waiting, room::holding};
use crate::{
    db::{
        Conn, DbError,
        agent_run::{self, AgentRun},
        follow_up::{self, FollowUp},
    },
    idempotency::{Once, recall, remember},
    invalid::{Invalid, prompt},
    random, target,
    tasks::add_subjects,
    tokens::Principal,
};

/// Work to give.
#[derive(Debug, Clone)]
pub struct NewFollowUp {
    /// Who made it.
    pub kind: Kind,
    /// What is to be done; 1 byte to 64 KiB.
    pub description: String,
    /// Items that join the agent's checklist with it; at most 100.
    pub tasks: Vec<Subject>,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Added {
    /// The entry.
    pub id: FollowUpId,
    /// How many entries wait before it.
    pub position: u64,
}

impl NewFollowUp {
    fn check(&self) -> Result<(), Invalid> {
        prompt("description", &self.description, FOLLOW_UP_BYTES_MAX)?;
        if self.description.trim().is_empty() {
            return Err(Invalid::new("description", "must say what is to be done"));
        }
        if self.tasks.len() > FOLLOW_UP_TASKS_MAX {
            let rule = format!("must be at most {FOLLOW_UP_TASKS_MAX}, got {}", self.tasks.len());
            return Err(Invalid::new("tasks", rule));
        }
        Ok(())
    }
}

/// An agent that was given work, as it stands then.
#[derive(Debug)]
pub struct Standing {
    /// Its life.
    pub run: AgentRun,
    /// How many entries wait for it.
    pub queued: u64,
}

impl Queue {
    /// Gives work to an agent. A sleeping one is woken.
    ///
    /// # Errors
    /// [`QueueError`].
    pub async fn add(
        &self,
        caller: &Principal,
        slug: &str,
        new: NewFollowUp,
        once: Option<&Once>,
    ) -> Result<(Added, Standing), QueueError> {
        new.check()?;
        let mut work = self.agents.begin().await?;
        let now_ms = work.now_ms();
        if let Some(added) = recall(&mut work, once, now_ms).await? {
            let run = target::readable(&mut work, caller, slug).await?;
            return Ok((added, standing(&mut work, run, now_ms).await?));
        }
        let (run, sender) = target::writable(&mut work, caller, slug).await?;
        let added = push(&mut work, &run, sender, new, now_ms).await?;
        self.agents.drain(&mut work, run.workspace_id, run.agent_id).await?;
        remember(&mut work, once, &added, now_ms).await?;
        let run = agent_run::get(&mut work, run.workspace_id, run.agent_id).await?.unwrap_or(run);
        let standing = standing(&mut work, run, now_ms).await?;
        self.agents.commit(work).await?;
        Ok((added, standing))
    }
}

async fn standing(conn: &mut Conn, run: AgentRun, now_ms: u64) -> Result<Standing, DbError> {
    let queued = count_waiting(conn, run.agent_id, run.incarnation, now_ms).await?;
    Ok(Standing { run, queued })
}

/// Puts an entry at the end of a live agent's queue, and its items into the checklist: both or none. `sender` is a slug or an account.
///
/// # Errors
/// [`QueueError`].
pub async fn push(
    conn: &mut Conn,
    run: &AgentRun,
    sender: String,
    new: NewFollowUp,
    now_ms: u64,
) -> Result<Added, QueueError> {
    let NewFollowUp { kind, description, tasks } = new;
    if follow_up::count(conn, run.agent_id).await? >= FOLLOW_UPS_MAX {
        return Err(QueueError::Full(run.slug.clone()));
    }
    let held_by = holding(conn, run.agent_id, run.incarnation, now_ms).await?;
    let position = follow_up::count_waiting(conn, run.agent_id, held_by).await?;
    add_subjects(conn, run.agent_id, &tasks, now_ms).await?;
    let entry = FollowUp {
        id: FollowUpId::new_v7(now_ms, random::bytes()?),
        position: follow_up::next_position(conn, run.agent_id).await?,
        kind,
        sender,
        description,
        tasks,
        created_ms: now_ms,
        turn_id: None,
        redelivered: false,
    };
    follow_up::insert(conn, run.agent_id, &entry).await?;
    Ok(Added { id: entry.id, position })
}
