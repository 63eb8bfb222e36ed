//! What the functions of this room share.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use governor::{
    DefaultKeyedRateLimiter, Quota, RateLimiter,
    clock::{Clock as _, DefaultClock},
};
use murmur_core::{
    id::{AgentId, NodeId, WorkspaceId},
    slug::AccountName,
};
use tokio::sync::watch;

use super::{AgentError, bells::Bells, orders::Streams, output::Relay, work::Work};
use crate::{
    clock::Clock,
    db::{Db, DbError, agent_run::AgentRun},
    hub::Hub,
    tokens::Tokens,
};

/// Accounts whose spawn rate is remembered before quiet ones are forgotten.
const ACCOUNTS_MAX: usize = 10_000;

/// What can be set.
#[derive(Debug, Clone, Copy)]
pub struct AgentsConfig {
    /// How long a node may be away before what it ran is given up.
    pub node_lost_ms: u64,
    /// How long agents that have ended are kept; 0: for ever.
    pub keep_ms: u64,
    /// Spawn calls a minute of one account.
    pub spawn_per_minute: NonZeroU32,
    /// Live agents of one account that were spawned.
    pub agents_live_max: u32,
    /// Live agents directly below one.
    pub children_max: u32,
}

/// The agents of this control plane.
pub struct Agents {
    pub(super) db: Db,
    pub(super) clock: Clock,
    pub(super) hub: Arc<Hub>,
    pub(super) tokens: Arc<Tokens>,
    pub(super) config: AgentsConfig,
    pub(super) changed: Bells<AgentId>,
    pub(super) moved: Bells<WorkspaceId>,
    pub(super) ordered: Bells<NodeId>,
    fed: Bells<NodeId>,
    published: watch::Sender<()>,
    /// Wakes the keeper.
    pub(super) due: watch::Sender<()>,
    pub(super) streams: Streams,
    pub(super) relay: Relay,
    spawns: DefaultKeyedRateLimiter<(WorkspaceId, AccountName)>,
}

impl Agents {
    /// The room over a database.
    #[must_use]
    pub fn new(db: Db, clock: Clock, hub: Arc<Hub>, tokens: Arc<Tokens>, config: AgentsConfig) -> Self {
        let spawns = RateLimiter::keyed(Quota::per_minute(config.spawn_per_minute));
        Self {
            db,
            clock,
            hub,
            tokens,
            config,
            changed: Bells::default(),
            moved: Bells::default(),
            ordered: Bells::default(),
            fed: Bells::default(),
            published: watch::Sender::new(()),
            due: watch::Sender::new(()),
            streams: Streams::default(),
            relay: Relay::default(),
            spawns,
        }
    }

    /// Begins a change. It is undone unless it goes through [`Agents::commit`].
    ///
    /// # Errors
    /// [`DbError`].
    pub(crate) async fn begin(&self) -> Result<Work, DbError> {
        Ok(Work::new(self.db.write().await?, self.clock.now_ms()))
    }

    /// Until when an agent is kept at least, Unix milliseconds; `None` while it lives, or for ever.
    pub(crate) fn kept_until(&self, run: &AgentRun) -> Option<u64> {
        run.ended_ms.filter(|_| self.config.keep_ms > 0).map(|ended_ms| ended_ms + self.config.keep_ms)
    }

    /// The bell of a node's events. Take it before the first look.
    pub(crate) fn listen_fed(&self, node_id: NodeId) -> watch::Receiver<()> {
        self.fed.listen(node_id)
    }

    /// The bell of all events. Take it before the first look.
    pub(crate) fn listen_published(&self) -> watch::Receiver<()> {
        self.published.subscribe()
    }

    /// Lets whoever was given work on the way take it up, makes the change durable, then wakes whoever waits for it.
    ///
    /// # Errors
    /// [`DbError`] when it is not durable.
    pub(crate) async fn commit(&self, mut work: Work) -> Result<(), DbError> {
        while let Some((workspace_id, id)) = work.next_drain() {
            match self.drain(&mut work, workspace_id, id).await {
                Ok(()) => {}
                Err(AgentError::Db(error)) => return Err(error),
                // It has begun to end in the same change, and takes no work any more.
                Err(error) => tracing::debug!(agent.id = %id, %error, "an event wakes nobody"),
            }
        }
        let wakes = work.commit().await?;
        self.tokens.forget(&wakes.revoked);
        for workspace_id in &wakes.directory {
            self.hub.ring(*workspace_id);
        }
        for agent_id in &wakes.agents {
            self.changed.ring(agent_id);
        }
        for workspace_id in &wakes.workspaces {
            self.moved.ring(workspace_id);
        }
        for node_id in &wakes.nodes {
            self.ordered.ring(node_id);
        }
        for node_id in &wakes.fed {
            self.fed.ring(node_id);
        }
        if wakes.published {
            self.published.send_replace(());
        }
        if wakes.keeper {
            self.due.send_replace(());
        }
        Ok(())
    }

    /// Counts a spawn.
    pub(super) fn check_rate(&self, workspace_id: WorkspaceId, account: &AccountName) -> Result<(), AgentError> {
        if self.spawns.len() > ACCOUNTS_MAX {
            self.spawns.retain_recent();
        }
        let checked = self.spawns.check_key(&(workspace_id, account.clone()));
        checked.map_err(|until| {
            let wait: Duration = until.wait_time_from(DefaultClock::default().now());
            let rule = format!("at most {} spawns a minute for an account", self.config.spawn_per_minute);
            AgentError::Limit { name: "rate", rule, retry_after: Some(wait) }
        })
    }
}
