//! Links to a page about one agent.

use super::{
    AgentError, Agents,
    find::{Who, resolved},
    list::Detail,
};
use crate::{
    db::{
        agent_link,
        agent_run::{self, AgentRun},
        timeline,
    },
    links::LinkKey,
    tokens::Principal,
};

/// How long a link shows its agent.
const LIFE_MS: u64 = 24 * 3600 * 1000;
/// Entries of a page, newest.
const TIMELINE_MAX: u64 = 50;

/// A link, whom it shows, and until when.
pub struct Linked {
    /// Whoever has it is let in.
    pub key: LinkKey,
    /// Whom it shows.
    pub run: AgentRun,
    /// Unix milliseconds.
    pub expire_ms: u64,
}

impl Agents {
    /// Makes a link to an agent that the caller sees.
    ///
    /// # Errors
    /// [`AgentError`].
    pub async fn link(&self, principal: &Principal, slug: &str) -> Result<Linked, AgentError> {
        let mut tx = self.db.write().await?;
        let who = Who::of(&mut tx, principal).await?;
        let run = resolved(&mut tx, &who, slug).await?;
        let (key, now_ms) = (LinkKey::new()?, self.clock.now_ms());
        let expire_ms = now_ms + LIFE_MS;
        agent_link::insert(&mut tx, key, (run.workspace_id, run.agent_id), (now_ms, expire_ms)).await?;
        tx.commit().await?;
        Ok(Linked { key, run, expire_ms })
    }

    /// Whom a link shows, and what is around it; `None` for one that never was, or has expired.
    ///
    /// # Errors
    /// [`AgentError`].
    pub async fn linked(&self, key: LinkKey) -> Result<Option<Detail>, AgentError> {
        let mut tx = self.db.read().await?;
        let Some((workspace_id, id)) = agent_link::find(&mut tx, key, self.clock.now_ms()).await? else {
            return Ok(None);
        };
        let Some(run) = agent_run::get(&mut tx, workspace_id, id).await? else { return Ok(None) };
        let children = agent_run::children(&mut tx, id).await?;
        let last = timeline::last_seq(&mut tx, id).await?;
        let timeline = timeline::since(&mut tx, id, last.saturating_sub(TIMELINE_MAX)).await?;
        Ok(Some(Detail { run, children, timeline }))
    }
}
