//! A node's own token is renewed while the node runs: the new one is on the node's disk before the old one ends.

use murmur_core::{
    id::{NodeId, TokenId, WorkspaceId},
    token::Token as Bearer,
};

use super::{NodeError, Nodes};
use crate::{
    db::{Conn, DbError, node, token},
    tokens::{Principal, issue_for_node},
};

/// How long a token holds after a session was opened with the one that replaced it: calls that are under way end by then.
const REPLACED_LIFE_MS: u64 = 10 * 60 * 1000;

/// A node's new token, shown this once, and when it ends, Unix milliseconds.
pub struct Renewed {
    /// The token.
    pub token: Bearer,
    /// When it ends.
    pub expire_ms: u64,
}

impl Nodes {
    /// Issues a token that is to replace the caller's. Any that was issued for that before and never used is revoked.
    ///
    /// # Errors
    /// [`NodeError`].
    pub async fn renew_token(
        &self,
        caller: &Principal,
        (workspace_id, id): (WorkspaceId, NodeId),
    ) -> Result<Renewed, NodeError> {
        let now_ms = self.clock.now_ms();
        let mut tx = self.db.write().await?;
        // The wait for the writer may have been long enough for a revocation.
        self.tokens.still_holds(&mut tx, caller).await?;
        let found = node::get(&mut tx, workspace_id, id).await?;
        let node = found.ok_or_else(|| NodeError::NodeNotFound(id.to_string()))?;
        let mut ended = Vec::new();
        for other in token::live_of_node(&mut tx, workspace_id, id).await? {
            if is_later(other, caller.token_id) {
                ended.extend(token::revoke_tree(&mut tx, other, now_ms).await?);
            }
        }
        let life_ms = self.token_life_ms;
        let token = issue_for_node(&mut tx, workspace_id, id, &node.account, now_ms, life_ms).await?;
        tx.commit().await?;
        self.tokens.forget(&ended);
        tracing::info!(node.id = %id, "node {} has a new token", node.name);
        Ok(Renewed { token, expire_ms: now_ms.saturating_add(life_ms) })
    }
}

/// Notes that a node has opened a session with a token: earlier ones end soon. Returns when this one is to be renewed, and which others
/// have changed.
pub(super) async fn taken_into_use(
    conn: &mut Conn,
    (workspace_id, node_id): (WorkspaceId, NodeId),
    used: TokenId,
    now_ms: u64,
) -> Result<(Option<u64>, Vec<TokenId>), DbError> {
    let mut replaced = Vec::new();
    for other in token::live_of_node(conn, workspace_id, node_id).await? {
        if is_later(used, other) {
            token::shorten(conn, other, now_ms.saturating_add(REPLACED_LIFE_MS)).await?;
            replaced.push(other);
        }
    }
    let found = token::get(conn, used).await?;
    let renew_ms = found.and_then(|token| {
        let expire_ms = token.expire_ms?;
        Some(token.created_ms.saturating_add(expire_ms.saturating_sub(token.created_ms) / 3 * 2))
    });
    Ok((renew_ms, replaced))
}

/// Ids of tokens begin with the time of their making.
fn is_later(one: TokenId, other: TokenId) -> bool {
    one.as_bytes() > other.as_bytes()
}
