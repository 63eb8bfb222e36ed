//! What the functions of this room share.

use std::{path::Path, sync::Arc};

use murmur_core::id::WebhookId;
use murmur_crypto::at_rest::AtRestKey;

use super::{lists, secret};
use crate::{
    agents::Agents,
    clock::Clock,
    db::{Db, webhook::Webhook},
    limit::{Limiter, Rate},
    together::Line,
};

/// Sources of webhooks of this control plane.
pub struct Webhooks {
    pub(super) db: Db,
    pub(super) clock: Clock,
    pub(super) agents: Arc<Agents>,
    pub(super) key: AtRestKey,
    pub(super) rate: Limiter<WebhookId>,
    /// Deliveries that wait for the next transaction.
    pub(super) line: Line<Self>,
}

impl Webhooks {
    /// The room over a database, with its key from the data directory; `rate` bounds each source.
    ///
    /// # Errors
    /// When the key file cannot be read or made.
    pub(crate) fn open(db: Db, clock: Clock, agents: Arc<Agents>, data_dir: &Path, rate: Rate) -> anyhow::Result<Self> {
        let (key, line) = (secret::key(data_dir)?, Line::default());
        Ok(Self { db, clock, agents, key, rate: Limiter::new(rate), line })
    }
}

/// Whether a source takes what happens in a repository.
pub(super) fn takes_repo(webhook: &Webhook, repo: &str) -> bool {
    lists::repo_listed(&webhook.repos, repo)
}
