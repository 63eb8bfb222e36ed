//! Reading checklists.

use murmur_core::{
    checklist::TaskId,
    limits::{TASKS_MAX, TURN_BYTES_MAX},
};

use super::{TaskError, Tasks, update::show_edges};
use crate::{
    db::task::{self, Task},
    page::Page,
    target,
    tokens::Principal,
};

const PAGE_DEFAULT: u32 = 100;

impl Tasks {
    /// A checklist in the order of creation, without deleted items, and the token of the next page; `open` leaves only those that count
    /// and are not done. A page may hold fewer than were asked for although another follows.
    ///
    /// # Errors
    /// [`TaskError`].
    pub async fn list(
        &self,
        caller: &Principal,
        slug: &str,
        open: bool,
        (page_size, page_token): (u32, &str),
    ) -> Result<(Vec<Task>, String), TaskError> {
        let size_max = u32::try_from(TASKS_MAX).unwrap_or(u32::MAX);
        let page = Page::of("ListTasks", page_size, page_token, PAGE_DEFAULT, size_max)?;
        let after = page.after_number()?;
        let mut tx = self.db.read().await?;
        let run = target::readable(&mut tx, caller, slug).await?;
        let after = u32::try_from(after).unwrap_or(u32::MAX);
        let tasks = task::page(&mut tx, run.agent_id, after, page.limit(), open).await?;
        let bytes = |task: &Task| task.subject.as_str().len() + task.details.as_str().len();
        let key = |task: &Task| u64::from(task.id.get()).to_be_bytes().to_vec();
        let (mut tasks, next) = page.cut_to(tasks, key, bytes, TURN_BYTES_MAX);
        show_edges(&mut tasks, &task::edges(&mut tx, run.agent_id).await?);
        Ok((tasks, next))
    }

    /// One item, a deleted one too.
    ///
    /// # Errors
    /// [`TaskError`].
    pub async fn get(&self, caller: &Principal, slug: &str, id: TaskId) -> Result<Task, TaskError> {
        // The item is one statement; who asks, and whose it is, need not be of the same moment.
        let mut tx = self.db.look()?;
        let run = target::readable(&mut tx, caller, slug).await?;
        task::get(&mut tx, run.agent_id, id).await?.ok_or(TaskError::NotFound(id))
    }
}
