//! Giving work to an agent.

use murmur_core::{
    checklist::Subject,
    id::FollowUpId,
    limits::{FOLLOW_UP_BYTES_MAX, FOLLOW_UP_TASKS_MAX, FOLLOW_UPS_MAX},
    queue::Kind,
};
use serde::{Deserialize, Serialize};

use super::{Queue, QueueError, room::holding};
use crate::{
    db::{
        Conn,
        follow_up::{self, FollowUp},
        target::Life,
    },
    idempotency::{Once, recall, remember},
    invalid::{Invalid, at_most},
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
        at_most("description", &self.description, FOLLOW_UP_BYTES_MAX)?;
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
    ) -> Result<Added, QueueError> {
        new.check()?;
        let mut tx = self.agents.begin().await?;
        let now_ms = tx.now_ms();
        if let Some(added) = recall(&mut tx, once, now_ms).await? {
            return Ok(added);
        }
        let (life, sender) = target::writable(&mut tx, caller, slug).await?;
        let added = push(&mut tx, &life, sender, new, now_ms).await?;
        if let Some(workspace_id) = caller.workspace_id() {
            self.agents.drain(&mut tx, workspace_id, life.id).await?;
        }
        remember(&mut tx, once, &added, now_ms).await?;
        self.agents.commit(tx).await?;
        Ok(added)
    }
}

/// Puts an entry at the end of a live agent's queue, and its items into the checklist: both or none. `sender` is a slug or an account.
///
/// # Errors
/// [`QueueError`].
pub async fn push(
    conn: &mut Conn,
    life: &Life,
    sender: String,
    new: NewFollowUp,
    now_ms: u64,
) -> Result<Added, QueueError> {
    let NewFollowUp { kind, description, tasks } = new;
    if follow_up::count(conn, life.id).await? >= FOLLOW_UPS_MAX {
        return Err(QueueError::Full(life.slug.clone()));
    }
    let held_by = holding(conn, life.id, life.incarnation, now_ms).await?;
    let position = follow_up::count_waiting(conn, life.id, held_by).await?;
    add_subjects(conn, life.id, &tasks, now_ms).await?;
    let entry = FollowUp {
        id: FollowUpId::new_v7(now_ms, random::bytes()?),
        position: follow_up::next_position(conn, life.id).await?,
        kind,
        sender,
        description,
        tasks,
        created_ms: now_ms,
        turn_id: None,
        redelivered: false,
    };
    follow_up::insert(conn, life.id, &entry).await?;
    Ok(Added { id: entry.id, position })
}
