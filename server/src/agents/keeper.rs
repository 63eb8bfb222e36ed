//! What happens by itself: agents of nodes that stay away are given up, budgets of time run out, and whoever waits for a node gets one.
//!
//! Timers are read from the rows, so that they survive a restart; between two of them nothing is looked at.

use murmur_core::phase::Phase;
use tokio_util::sync::CancellationToken;

use super::{
    AgentError, Agents,
    end::begin_end,
    place::{Nodes, place},
};
use crate::db::agent_run;

impl Agents {
    /// Works until `stop` is cancelled.
    pub async fn keep(&self, stop: &CancellationToken) {
        let (mut due, mut nodes) = (self.due.subscribe(), self.hub.listen(None));
        loop {
            due.borrow_and_update();
            nodes.borrow_and_update();
            let next = match self.catch_up().await {
                Ok(next) => next,
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::error!(error, "what is due for agents could not be done");
                    // Tried again with the next change, or in a minute.
                    Some(self.clock.now_ms() + 60_000)
                }
            };
            let timer = async {
                match next {
                    Some(at_ms) => self.clock.sleep_until(at_ms).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = timer => {}
                changed = due.changed() => if changed.is_err() { return },
                changed = nodes.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Does what is due, and says when something is due next.
    async fn catch_up(&self) -> Result<Option<u64>, AgentError> {
        let now_ms = self.clock.now_ms();
        let lost_before = now_ms.saturating_sub(self.config.node_lost_ms);
        let mut tx = self.db.read().await?;
        let has_lost = !agent_run::lost(&mut tx, lost_before).await?.is_empty();
        let has_overdue = !agent_run::overdue(&mut tx, now_ms).await?.is_empty();
        let (mut nodes, mut has_news) = (Nodes::default(), false);
        for run in agent_run::waiting(&mut tx).await? {
            has_news |= nodes.is_news(&mut tx, &run).await?;
        }
        drop(tx);
        if has_lost || has_overdue || has_news {
            self.do_due(lost_before).await?;
        }
        let mut tx = self.db.read().await?;
        let deadline = agent_run::next_deadline(&mut tx).await?;
        let lost = agent_run::first_offline(&mut tx).await?.map(|since_ms| since_ms + self.config.node_lost_ms);
        Ok([deadline, lost].into_iter().flatten().min())
    }

    async fn do_due(&self, lost_before: u64) -> Result<(), AgentError> {
        let mut work = self.begin().await?;
        for (workspace_id, id) in agent_run::lost(&mut work, lost_before).await? {
            let Some(mut run) = agent_run::get(&mut work, workspace_id, id).await? else { continue };
            let away_s = self.config.node_lost_ms / 1000;
            let why = format!("node_lost: node {} was away for more than {away_s} s", run.node_name);
            // One that was being ended is not waited for: its node is told to end what still runs when it says what does.
            let (end, why) = match run.end_as {
                Some(end) => (end, run.end_reason.clone()),
                None => (Phase::Failed, why),
            };
            work.end_unseen(&mut run, end, &why).await?;
            tracing::warn!(agent.slug = %run.slug, "agent {} was lost with its node", run.slug);
        }
        let now_ms = work.now_ms();
        for mut run in agent_run::overdue(&mut work, now_ms).await? {
            if let (Phase::Destroying, Some(end)) = (run.phase, run.end_as) {
                tracing::warn!(agent.slug = %run.slug, "node {} does not tell of the end of {}", run.node_name, run.slug);
                let why = run.end_reason.clone();
                work.end_unseen(&mut run, end, &why).await?;
                continue;
            }
            begin_end(&mut work, &mut run, Phase::Failed, "budget: its time is used up").await?;
        }
        let mut nodes = Nodes::default();
        for mut run in agent_run::waiting(&mut work).await? {
            place(&mut work, &mut run, &mut nodes).await?;
        }
        self.commit(work).await?;
        Ok(())
    }
}
