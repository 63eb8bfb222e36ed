//! Stopping a turn.

use murmur_core::phase::Phase;
use murmur_proto::v1;

use super::{
    AgentError, Agents,
    find::{Who, live},
};
use crate::{
    db::node_order::{self, Kind},
    idempotency::{Once, recall, remember},
    tokens::Principal,
};

impl Agents {
    /// Orders the current turn to be stopped; false when it ended by itself first.
    ///
    /// # Errors
    /// [`AgentError`].
    pub async fn interrupt(&self, principal: &Principal, slug: &str, once: Option<&Once>) -> Result<bool, AgentError> {
        let mut work = self.begin().await?;
        let now_ms = work.now_ms();
        if let Some(interrupted) = recall(&mut work, once, now_ms).await? {
            return Ok(interrupted);
        }
        let who = Who::of(&mut work, principal).await?;
        let run = live(&mut work, &who, slug).await?;
        who.require_power(&run.slug, "interrupt")?;
        match run.phase {
            Phase::Running if !run.interactive => {}
            Phase::TaskComplete | Phase::ChecksPending => return Ok(false),
            phase => return Err(AgentError::NotRunning { slug: run.slug, phase }),
        }
        // A repeat stops the same turn.
        if !node_order::is_open(&mut work, run.agent_id, Kind::Interrupt).await? {
            let item = v1::order::Item::Interrupt(v1::InterruptTurn {});
            work.order(&run, Kind::Interrupt, item).await?;
        }
        remember(&mut work, once, &true, now_ms).await?;
        self.commit(work).await?;
        Ok(true)
    }
}
