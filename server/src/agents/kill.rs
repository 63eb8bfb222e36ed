//! Ending an agent and everything below it, in one transaction (AGENTS-AND-TOOLS §3).

use murmur_core::phase::Phase;
use serde::{Deserialize, Serialize};

use super::{
    AgentError, Agents,
    end::begin_end,
    find::{Who, resolved},
};
use crate::{
    db::agent_run,
    idempotency::{Once, recall, remember},
    invalid::at_most,
    tokens::Principal,
};

const REASON_BYTES_MAX: usize = 1024;

/// What a kill did.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Killed {
    /// Whom it ended, leaves first.
    pub slugs: Vec<String>,
    /// How many of the subtree their nodes have still to stop.
    pub pending: u32,
}

impl Agents {
    /// Ends an agent and all below it, leaves first. From its commit on nothing is begun there. Returns whom this call ended.
    ///
    /// # Errors
    /// [`AgentError`].
    pub async fn kill(
        &self,
        principal: &Principal,
        slug: &str,
        reason: &str,
        once: Option<&Once>,
    ) -> Result<Killed, AgentError> {
        at_most("reason", reason, REASON_BYTES_MAX)?;
        let mut work = self.begin().await?;
        let now_ms = work.now_ms();
        if let Some(killed) = recall(&mut work, once, now_ms).await? {
            return Ok(killed);
        }
        let who = Who::of(&mut work, principal).await?;
        let top = resolved(&mut work, &who, slug).await?;
        who.require_power(&top.slug, "end")?;
        let said = if reason.is_empty() { "killed".to_owned() } else { format!("killed: {reason}") };
        let mut killed = Killed::default();
        // One that has ended may have been followed by another of its name, which is not meant.
        let subtree = match top.ended_ms {
            Some(_) => Vec::new(),
            None => agent_run::subtree(&mut work, who.workspace_id, &top.slug).await?,
        };
        for mut run in subtree {
            if run.phase == Phase::Destroying {
                killed.pending += 1;
                continue;
            }
            if begin_end(&mut work, &mut run, Phase::Canceled, &said).await? {
                killed.pending += 1;
            }
            killed.slugs.push(run.slug.to_string());
        }
        remember(&mut work, once, &killed, now_ms).await?;
        self.commit(work).await?;
        if !killed.slugs.is_empty() {
            tracing::info!(agent.slug = %top.slug, agents = killed.slugs.len(), "agent {} killed", top.slug);
        }
        Ok(killed)
    }
}
