//! Redeeming an invite. The caller has no token: it proves itself by the invite's secret and by a signature of the key that
//! it enrols.

use murmur_core::{
    id::{NodeId, WorkspaceId},
    limits::NODE_NAME_BYTES_MAX,
    token::Token as Bearer,
};
use murmur_crypto::{enroll, keys::PublicKey};

use super::{NodeError, Nodes};
use crate::{
    broker_link::is_user_key,
    db::{
        Conn, DbError, account,
        invite::{self, Invite},
        meta,
        node::{self, Node, State},
        token, workspace,
    },
    invalid::{Invalid, words},
    random,
    tokens::issue_for_node,
};

const VERSION_BYTES_MAX: usize = 64;

/// What a node sends.
#[derive(Debug, Clone)]
pub struct Enrolment {
    /// SHA-256 of the invite's secret.
    pub secret_hash: [u8; 32],
    /// Its Ed25519 key.
    pub public_key: [u8; 32],
    /// Its nkey.
    pub broker_public_key: String,
    /// The host's name.
    pub name: String,
    /// By the key, over secret and nkey.
    pub proof: [u8; 64],
    /// Of its program.
    pub version: String,
}

/// What it gets.
pub struct Enrolled {
    /// Itself.
    pub node: Node,
    /// Its token, shown this once.
    pub token: Bearer,
    /// Where it belongs.
    pub workspace: workspace::Workspace,
}

impl Nodes {
    /// Enrols a node, or answers the same node again to the same key.
    ///
    /// # Errors
    /// [`NodeError`].
    pub async fn enroll(&self, request: Enrolment) -> Result<Enrolled, NodeError> {
        check_fields(&request)?;
        let now_ms = self.clock.now_ms();
        let mut tx = self.db.write().await?;
        let invite = invite::by_secret_hash(&mut tx, &request.secret_hash).await?;
        let invite = invite.ok_or(NodeError::InviteInvalid("nobody knows it"))?;
        let existing = node::by_public_key(&mut tx, invite.workspace_id, &request.public_key).await?;
        redeem(&mut tx, &invite, existing.as_ref(), now_ms).await?;
        let node = match existing {
            Some(node) => renewed(&mut tx, node, &invite, request).await?,
            None => self.created(&mut tx, &invite, request).await?,
        };
        node::put(&mut tx, &node).await?;
        account::ensure(&mut tx, node.workspace_id, &node.account, now_ms).await?;
        let replaced = revoke_tokens(&mut tx, &node, now_ms).await?;
        let life_ms = self.token_life_ms;
        let token = issue_for_node(&mut tx, node.workspace_id, node.id, &node.account, now_ms, life_ms).await?;
        let workspace = workspace::get(&mut tx, node.workspace_id).await?;
        let workspace = workspace.ok_or(DbError::Corrupt { column: "invite.workspace_id" })?;
        tx.commit().await?;
        self.tokens.forget(&replaced);
        self.hub.ring(node.workspace_id);
        tracing::info!(node.id = %node.id, node.name = %node.name, "node {} enrolled", node.name);
        Ok(Enrolled { node, token, workspace })
    }

    async fn created(&self, conn: &mut Conn, invite: &Invite, request: Enrolment) -> Result<Node, NodeError> {
        let now_ms = self.clock.now_ms();
        Ok(Node {
            id: NodeId::new_v7(now_ms, random::bytes()?),
            workspace_id: invite.workspace_id,
            invite_id: invite.id,
            name: request.name,
            account: invite.account.clone(),
            state: State::Pending,
            public_key: request.public_key,
            broker_public_key: request.broker_public_key,
            certificate: None,
            serial: 0,
            slug_scope: invite.slug_scope.clone(),
            version: request.version,
            online: false,
            route: String::new(),
            created_ms: now_ms,
            last_seen_ms: None,
            revision: meta::next_revision(conn).await?,
        })
    }
}

/// A repeat by the same key: the identity stays, what the node says about itself is taken over.
async fn renewed(conn: &mut Conn, node: Node, invite: &Invite, request: Enrolment) -> Result<Node, NodeError> {
    if node.state == State::Revoked || node.account != invite.account {
        return Err(NodeError::InviteInvalid("its key belongs to a node of another account, or a revoked one"));
    }
    // What the broker knows of the one before could not be taken back any more.
    if node.broker_public_key != request.broker_public_key {
        return Err(Invalid::new("broker_public_key", "must be the one that this node enrolled with before").into());
    }
    Ok(Node {
        invite_id: invite.id,
        name: request.name,
        version: request.version,
        revision: meta::next_revision(conn).await?,
        ..node
    })
}

/// Counts a use, unless this key has used this very invite before.
async fn redeem(conn: &mut Conn, invite: &Invite, existing: Option<&Node>, now_ms: u64) -> Result<(), NodeError> {
    if now_ms >= invite.expire_ms {
        return Err(NodeError::InviteExpired);
    }
    if existing.is_some_and(|node| node.invite_id == invite.id) {
        return Ok(());
    }
    if invite::count_use(conn, invite.workspace_id, invite.id).await? { Ok(()) } else { Err(NodeError::InviteUsed) }
}

/// The node's earlier tokens end with the answer that carries a new one.
async fn revoke_tokens(conn: &mut Conn, node: &Node, now_ms: u64) -> Result<Vec<murmur_core::id::TokenId>, DbError> {
    let workspace_id: WorkspaceId = node.workspace_id;
    let mut ended = Vec::new();
    for id in token::live_of_node(conn, workspace_id, node.id).await? {
        ended.extend(token::revoke_tree(conn, id, now_ms).await?);
    }
    Ok(ended)
}

fn check_fields(request: &Enrolment) -> Result<(), Invalid> {
    let key =
        PublicKey::from_bytes(&request.public_key).map_err(|error| Invalid::new("public_key", error.to_string()))?;
    if !is_user_key(&request.broker_public_key) {
        return Err(Invalid::new("broker_public_key", "must be a user nkey, starting with U"));
    }
    words("name", &request.name, NODE_NAME_BYTES_MAX)?;
    words("version", &request.version, VERSION_BYTES_MAX)?;
    if request.name.is_empty() {
        return Err(Invalid::new("name", "must be printable text"));
    }
    if !enroll::holds(&key, &request.secret_hash, &request.broker_public_key, &request.proof) {
        return Err(Invalid::new("proof", "must be the identity key's signature over secret and broker key"));
    }
    Ok(())
}
