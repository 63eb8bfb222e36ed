//! Reading and clearing queues.

use murmur_core::{
    id::AgentId,
    limits::{FOLLOW_UPS_MAX, TURN_BYTES_MAX},
};

use super::{Queue, QueueError, room::holding};
use crate::{
    db::{
        Conn, DbError,
        follow_up::{self, FollowUp},
    },
    page::Page,
    target,
    tokens::Principal,
};

const PAGE_DEFAULT: u32 = 50;

impl Queue {
    /// What waits, oldest first, and the token of the next page. A page may hold fewer than were asked for although another follows.
    ///
    /// # Errors
    /// [`QueueError`].
    pub async fn list(
        &self,
        caller: &Principal,
        slug: &str,
        (page_size, page_token): (u32, &str),
    ) -> Result<(Vec<FollowUp>, String), QueueError> {
        let size_max = u32::try_from(FOLLOW_UPS_MAX).unwrap_or(u32::MAX);
        let page = Page::of("ListFollowUps", page_size, page_token, PAGE_DEFAULT, size_max)?;
        let after = page.after_number()?;
        let mut tx = self.db.read().await?;
        let run = target::readable(&mut tx, caller, slug).await?;
        let now_ms = self.clock.now_ms();
        let held_by = holding(&mut tx, run.agent_id, run.incarnation, now_ms).await?;
        let entries = follow_up::page(&mut tx, run.agent_id, held_by, after, page.limit()).await?;
        let bytes =
            |entry: &FollowUp| entry.description.len() + entry.tasks.iter().map(|s| s.as_str().len()).sum::<usize>();
        Ok(page.cut_to(as_waiting(entries), |entry| entry.position.to_be_bytes().to_vec(), bytes, TURN_BYTES_MAX))
    }

    /// Drops what waits, and says how much it was. What the current turn holds stays.
    ///
    /// # Errors
    /// [`QueueError`].
    pub async fn clear(&self, caller: &Principal, slug: &str) -> Result<u64, QueueError> {
        let mut work = self.agents.begin().await?;
        let now_ms = work.now_ms();
        let (run, _) = target::writable(&mut work, caller, slug).await?;
        let held_by = holding(&mut work, run.agent_id, run.incarnation, now_ms).await?;
        let cleared = follow_up::remove_waiting(&mut work, run.agent_id, held_by).await?;
        // How much waits is part of its status.
        work.touch(&run);
        self.agents.commit(work).await?;
        Ok(cleared)
    }
}

/// The first entries that wait for an agent in this incarnation, oldest first.
///
/// # Errors
/// [`DbError`].
pub async fn waiting(
    conn: &mut Conn,
    agent_id: AgentId,
    incarnation: u32,
    now_ms: u64,
    limit: u32,
) -> Result<Vec<FollowUp>, DbError> {
    let held_by = holding(conn, agent_id, incarnation, now_ms).await?;
    Ok(as_waiting(follow_up::page(conn, agent_id, held_by, 0, limit).await?))
}

/// How many entries an agent has in its queue, those of an open turn included.
///
/// # Errors
/// [`DbError`].
pub async fn count(conn: &mut Conn, agent_id: AgentId) -> Result<usize, DbError> {
    follow_up::count(conn, agent_id).await
}

/// How many entries wait for an agent in this incarnation.
///
/// # Errors
/// [`DbError`].
pub async fn count_waiting(conn: &mut Conn, agent_id: AgentId, incarnation: u32, now_ms: u64) -> Result<u64, DbError> {
    let held_by = holding(conn, agent_id, incarnation, now_ms).await?;
    follow_up::count_waiting(conn, agent_id, held_by).await
}

/// Entries of a turn that no longer holds them were handed out before.
fn as_waiting(entries: Vec<FollowUp>) -> Vec<FollowUp> {
    let seen = |entry: FollowUp| FollowUp { redelivered: entry.redelivered || entry.turn_id.is_some(), ..entry };
    entries.into_iter().map(seen).collect()
}
