//! Adding items.

use murmur_core::{
    checklist::{Checklist, Details, Pattern, Status, Subject, TaskId},
    id::AgentId,
};

use super::{TaskError, Tasks};
use crate::{
    db::{
        Conn,
        task::{self, Task},
    },
    idempotency::{Once, recall, remember},
    target,
    tokens::Principal,
};

/// An item to add.
#[derive(Debug, Clone)]
pub struct NewTask {
    /// What it is about.
    pub subject: Subject,
    /// What more there is to say.
    pub details: Details,
    /// Makes it dormant until a file changes that fits.
    pub pattern: Option<Pattern>,
}

impl Tasks {
    /// Adds an item to the checklist of an agent.
    ///
    /// # Errors
    /// [`TaskError`].
    pub async fn create(
        &self,
        caller: &Principal,
        slug: &str,
        new: NewTask,
        once: Option<&Once>,
    ) -> Result<Task, TaskError> {
        let now_ms = self.clock.now_ms();
        let mut tx = self.db.write().await?;
        if let Some(task) = recall(&mut tx, once, now_ms).await? {
            return Ok(task);
        }
        let (run, _) = target::writable(&mut tx, caller, slug).await?;
        let task = add(&mut tx, run.agent_id, new, now_ms).await?;
        remember(&mut tx, once, &task, now_ms).await?;
        tx.commit().await?;
        Ok(task)
    }
}

async fn add(conn: &mut Conn, agent_id: AgentId, new: NewTask, now_ms: u64) -> Result<Task, TaskError> {
    let NewTask { subject, details, pattern } = new;
    let size = task::size(conn, agent_id).await?;
    Checklist::check_room(size.items, 1)?;
    let task = Task {
        id: size.next,
        subject,
        details,
        status: Status::Pending,
        dormant: pattern.is_some(),
        pattern: pattern.map(|pattern| pattern.to_string()).unwrap_or_default(),
        created_ms: now_ms,
        updated_ms: now_ms,
        rev: 1,
        blocks: Vec::new(),
        blocked_by: Vec::new(),
    };
    task::insert(conn, agent_id, &task).await?;
    Ok(task)
}

/// Adds items that came with a spawn or a follow-up to a checklist, in their order: all of them or none.
///
/// # Errors
/// [`TaskError::Refused`] when they do not fit.
pub async fn add_subjects(
    conn: &mut Conn,
    agent_id: AgentId,
    subjects: &[Subject],
    now_ms: u64,
) -> Result<Vec<TaskId>, TaskError> {
    Checklist::check_room(task::size(conn, agent_id).await?.items, subjects.len())?;
    let mut ids = Vec::with_capacity(subjects.len());
    for subject in subjects {
        let new = NewTask { subject: subject.clone(), details: Details::default(), pattern: None };
        ids.push(add(conn, agent_id, new, now_ms).await?.id);
    }
    Ok(ids)
}
