//! Reading the directory in batches, from a revision on: what a watch is made of.

use std::{fmt, str::FromStr};

use tokio::sync::watch::Receiver;

use super::{
    Directory, DirectoryError,
    room::{own_workspace, readable_workspace},
};
use crate::{
    db::{
        agent::{self, Agent},
        meta,
        node::{self, Node, State},
    },
    tokens::Principal,
};

/// Where a watch stands: the database and the last revision seen. Printed `<epoch>.<revision>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResumeToken {
    epoch: String,
    revision: u64,
}

impl fmt::Display for ResumeToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.revision)
    }
}

impl FromStr for ResumeToken {
    type Err = DirectoryError;

    /// A token that cannot be read is of no use to anybody, so it counts as stale.
    fn from_str(text: &str) -> Result<Self, DirectoryError> {
        let (epoch, revision) = text.rsplit_once('.').ok_or(DirectoryError::ResumeTokenStale)?;
        let revision = revision.parse().map_err(|_| DirectoryError::ResumeTokenStale)?;
        Ok(Self { epoch: epoch.to_owned(), revision })
    }
}

/// What changed up to a point.
#[derive(Debug)]
pub struct Batch {
    /// Nodes that ever were approved.
    pub nodes: Vec<Node>,
    /// Agents; ended ones only when the watcher may have known them.
    pub agents: Vec<Agent>,
    /// Where the batch ends.
    pub end: ResumeToken,
}

impl Batch {
    /// Whether nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty() && self.agents.is_empty()
    }
}

impl Directory {
    /// The bell of the caller's workspace. Take it before the first batch.
    ///
    /// # Errors
    /// [`DirectoryError::NoWorkspace`].
    pub fn listen(&self, caller: &Principal) -> Result<Receiver<()>, DirectoryError> {
        Ok(self.hub.listen(Some(own_workspace(caller)?)))
    }

    /// Everything that changed since a token; everything there is without one.
    ///
    /// # Errors
    /// [`DirectoryError::ResumeTokenStale`] when the resume token is of another database, of a future that was rolled back, or from
    /// before the end of an agent that was let go since; [`DirectoryError::Auth`] once the caller's own token no longer holds.
    pub async fn batch(&self, caller: &Principal, since: Option<&ResumeToken>) -> Result<Batch, DirectoryError> {
        let mut tx = self.db.read().await?;
        self.tokens.still_holds(&mut tx, caller).await?;
        let workspace_id = readable_workspace(&mut tx, caller).await?;
        let end = ResumeToken { epoch: meta::epoch(&mut tx).await?, revision: meta::revision(&mut tx).await? };
        let pruned = meta::pruned_revision(&mut tx).await?;
        let is_stale =
            |since: &ResumeToken| since.epoch != end.epoch || since.revision > end.revision || since.revision < pruned;
        if since.is_some_and(is_stale) {
            return Err(DirectoryError::ResumeTokenStale);
        }
        let after = since.map_or(0, |since| since.revision);
        let mut nodes = node::changed_since(&mut tx, Some(workspace_id), after).await?;
        nodes.retain(|node| node.state != State::Pending);
        let mut agents = agent::changed_since(&mut tx, workspace_id, after).await?;
        if since.is_none() {
            agents.retain(|agent| agent.ended_ms.is_none());
        }
        Ok(Batch { nodes, agents, end })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resume_token_reads_back_and_nonsense_is_stale() {
        let token = ResumeToken { epoch: "e".into(), revision: 7 };
        assert_eq!(token.to_string().parse::<ResumeToken>().unwrap(), token);
        for text in ["", "e", "e.", "e.x"] {
            assert!(matches!(text.parse::<ResumeToken>(), Err(DirectoryError::ResumeTokenStale)), "{text}");
        }
    }
}
