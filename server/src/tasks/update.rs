//! Changing an item, wholly or not at all.

use murmur_core::{
    checklist::{Change, Checklist, Details, Edge, Outcome, State, Status, Subject, TaskId},
    id::AgentId,
};

use super::{TaskError, Tasks};
use crate::{
    db::{
        Conn, DbError,
        task::{self, Task},
    },
    idempotency::{Once, recall, remember},
    invalid::Invalid,
    target,
    tokens::Principal,
};

/// What is to become of an item.
#[derive(Debug, Clone, Default)]
pub struct Edit {
    /// `None`: as it is.
    pub subject: Option<Subject>,
    /// `None`: as it is.
    pub details: Option<Details>,
    /// Status and edges.
    pub change: Change,
}

impl Edit {
    /// The first field that asks for something.
    fn first_field(&self) -> Option<&'static str> {
        let Self { subject, details, change } = self;
        let status = change.status.map(|_| "status");
        let text = subject.as_ref().map(|_| "subject").or_else(|| details.as_ref().map(|_| "description"));
        status.or(text).or_else(|| change.named().next().map(|(field, _)| field))
    }
}

impl Tasks {
    /// Changes an item of an agent's checklist. An update that would change nothing is an error: whoever is told that it is done may
    /// rely on it.
    ///
    /// # Errors
    /// [`TaskError`].
    pub async fn update(
        &self,
        caller: &Principal,
        slug: &str,
        id: TaskId,
        edit: Edit,
        once: Option<&Once>,
    ) -> Result<Task, TaskError> {
        let Some(field) = edit.first_field() else {
            return Err(Invalid::new(
                "status",
                "the request changes nothing: set status, subject, description or an edge",
            )
            .into());
        };
        let now_ms = self.clock.now_ms();
        let mut tx = self.db.write().await?;
        if let Some(task) = recall(&mut tx, once, now_ms).await? {
            return Ok(task);
        }
        let (run, _) = target::writable(&mut tx, caller, slug).await?;
        let task = task::get(&mut tx, run.agent_id, id).await?.ok_or(TaskError::NotFound(id))?;
        let outcome = checklist(&mut tx, run.agent_id, &task, &edit.change).await?.update(id, &edit.change)?;
        let Some(edited) = edited(task, edit, &outcome, now_ms) else {
            let rule = format!("the request changes nothing: item {id} is so already");
            return Err(Invalid::new(field, rule).into());
        };
        write(&mut tx, run.agent_id, &edited, &outcome).await?;
        let task = task::get(&mut tx, run.agent_id, id).await?.ok_or(TaskError::NotFound(id))?;
        remember(&mut tx, once, &task, now_ms).await?;
        tx.commit().await?;
        Ok(task)
    }
}

/// As much of a checklist as the decision needs: what is not deleted, and what the change names.
async fn checklist(conn: &mut Conn, agent_id: AgentId, task: &Task, change: &Change) -> Result<Checklist, DbError> {
    let items = task::states(conn, agent_id).await?;
    let mut list = Checklist::new(items, task::edges(conn, agent_id).await?);
    list.insert(task.id, task.state());
    for (_, other) in change.named() {
        if list.get(other).is_none() && task::exists(conn, agent_id, other).await? {
            list.insert(other, State { status: Status::Deleted, dormant: false });
        }
    }
    Ok(list)
}

/// The item as it is to be; `None` when nothing is different.
fn edited(task: Task, edit: Edit, outcome: &Outcome, now_ms: u64) -> Option<Task> {
    let Edit { subject, details, change: _ } = edit;
    let subject = subject.unwrap_or_else(|| task.subject.clone());
    let details = details.unwrap_or_else(|| task.details.clone());
    if outcome.is_empty() && subject == task.subject && details == task.details {
        return None;
    }
    let status = outcome.status.unwrap_or(task.status);
    Some(Task { subject, details, status, updated_ms: now_ms, rev: task.rev + 1, ..task })
}

/// Writes an item and its edges. The items at their other ends change, too.
async fn write(conn: &mut Conn, agent_id: AgentId, task: &Task, outcome: &Outcome) -> Result<(), DbError> {
    for edge in &outcome.removed {
        task::remove_edge(conn, agent_id, *edge).await?;
    }
    for edge in &outcome.added {
        task::add_edge(conn, agent_id, *edge).await?;
    }
    task::update(conn, agent_id, task).await?;
    for other in outcome.ends() {
        if other != task.id {
            task::touch(conn, agent_id, other, task.updated_ms).await?;
        }
    }
    Ok(())
}

/// The edges of every item, as they are shown.
pub(super) fn show_edges(tasks: &mut [Task], edges: &[Edge]) {
    for task in tasks {
        let (ahead, behind) =
            (edges.iter().filter(|e| e.blocker == task.id), edges.iter().filter(|e| e.blocked == task.id));
        task.blocks = ahead.map(|edge| edge.blocked).collect();
        task.blocked_by = behind.map(|edge| edge.blocker).collect();
    }
}
