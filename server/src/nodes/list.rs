//! Listing and watching nodes: all of the workspace for whoever may read its directory, itself for a node.

use murmur_proto::v1::Scope;
use tokio::sync::watch::Receiver;

use super::{NodeError, Nodes, room::visible};
use crate::{
    db::{
        meta,
        node::{self, Node},
    },
    page::Page,
    tokens::{Principal, check},
};

impl Nodes {
    /// Nodes that the caller may see, and the token of the next page.
    ///
    /// # Errors
    /// [`NodeError`].
    pub async fn list(
        &self,
        caller: &Principal,
        page_size: u32,
        page_token: &str,
    ) -> Result<(Vec<Node>, String), NodeError> {
        require_reader(caller)?;
        let page = Page::new("ListNodes", page_size, page_token)?;
        let mut tx = self.db.read().await?;
        if let Some(id) = caller.node_id {
            return Ok((vec![self.seen(visible(&mut tx, caller, id).await?)], String::new()));
        }
        let nodes = node::page(&mut tx, caller.workspace_id(), &page.after, page.limit()).await?;
        let (nodes, next) = page.cut(nodes, |node| node.id.to_vec());
        Ok((nodes.into_iter().map(|node| self.seen(node)).collect(), next))
    }

    /// The bell for [`Nodes::changed_since`]; take it first.
    ///
    /// # Errors
    /// [`NodeError::Refused`].
    pub fn listen(&self, caller: &Principal) -> Result<Receiver<()>, NodeError> {
        require_reader(caller)?;
        Ok(self.hub.listen(caller.workspace_id()))
    }

    /// Nodes that the caller may see and that changed after a revision, and the newest revision.
    ///
    /// # Errors
    /// [`NodeError`].
    pub async fn changed_since(&self, caller: &Principal, revision: u64) -> Result<(Vec<Node>, u64), NodeError> {
        let mut tx = self.db.read().await?;
        self.tokens.still_holds(&mut tx, caller).await?;
        let end = meta::revision(&mut tx).await?;
        let mut nodes = node::changed_since(&mut tx, caller.workspace_id(), revision).await?;
        nodes.retain(|node| caller.node_id.is_none_or(|own| own == node.id));
        Ok((nodes, end))
    }

    /// A live session knows better than the database when its node was last heard of.
    fn seen(&self, node: Node) -> Node {
        Node { last_seen_ms: self.registry.last_seen_ms(node.id).or(node.last_seen_ms), ..node }
    }
}

/// A node sees itself, whatever its token may; others are not in the contract's scope of these calls.
fn require_reader(caller: &Principal) -> Result<(), NodeError> {
    match caller.node_id {
        Some(_) => Ok(()),
        None => Ok(check(Scope::DirectoryRead, Some(caller))?),
    }
}
