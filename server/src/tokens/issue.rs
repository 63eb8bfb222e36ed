//! Issuing tokens: always a subset of what the issuer has.

use murmur_core::{
    id::{AgentId, NodeId, TokenId, WorkspaceId},
    slug::{AccountName, Scope as SlugScope, WorkspaceName},
    token::{Token as Bearer, TokenKind},
};
use murmur_proto::v1::Scope;

use super::{Principal, ScopeSet, TokenError, Tokens};
use crate::{
    db::{Conn, account, agent, token, workspace},
    invalid::{Invalid, words},
    random,
};

const HOUR_MS: u64 = 3600 * 1000;
const DAY_MS: u64 = 24 * HOUR_MS;
/// Life of a node's token, unless an installation says otherwise; the node renews it at two thirds.
pub const NODE_LIFE_MS: u64 = 90 * DAY_MS;
const LABEL_BYTES_MAX: usize = 128;

/// What a caller asks for.
#[derive(Debug, Clone)]
pub struct IssueRequest {
    /// Whom the token is to speak for: user, agent or ci.
    pub kind: TokenKind,
    /// What it is to do.
    pub scopes: ScopeSet,
    /// Where; `None` for the caller's own prefix.
    pub slug_prefix: Option<SlugScope>,
    /// 0 for the kind's default.
    pub ttl_ms: u64,
    /// For an administrator of all workspaces.
    pub workspace: Option<WorkspaceName>,
    /// Whose it is to be; `None` for the caller's own.
    pub account: Option<AccountName>,
    /// For kind agent.
    pub agent_id: Option<AgentId>,
    /// For people.
    pub label: String,
}

/// A new token. Its text is shown this once.
pub struct Issued {
    /// The token.
    pub token: Bearer,
    /// Unix milliseconds; `None`: never.
    pub expire_ms: Option<u64>,
}

impl Tokens {
    /// Issues a token that may at most what the caller may.
    ///
    /// # Errors
    /// [`TokenError`].
    pub async fn issue(&self, caller: &Principal, request: IssueRequest) -> Result<Issued, TokenError> {
        let now_ms = self.clock.now_ms();
        let (ttl_default, ttl_max) = life_ms(request.kind)?;
        check_fields(caller, &request, ttl_max)?;
        let mut tx = self.db.write().await?;
        let parent = token::get(&mut tx, caller.token_id).await?.ok_or(TokenError::CallerRevoked)?;
        if parent.revoked_ms.is_some() {
            return Err(TokenError::CallerRevoked);
        }
        let (workspace_id, name) = target_workspace(&mut tx, caller, request.workspace.as_ref()).await?;
        let slug_prefix = prefix(caller, &request, &name)?;
        let node_id = match request.agent_id {
            Some(id) => Some(node_of_agent(&mut tx, workspace_id, id, &slug_prefix).await?),
            None => None,
        };
        let account = request.account.or_else(|| caller.account.clone());
        if let Some(account) = &account {
            account::ensure(&mut tx, workspace_id, account, now_ms).await?;
        }
        let wanted = now_ms + if request.ttl_ms == 0 { ttl_default } else { request.ttl_ms };
        let expire_ms = Some(caller.expire_ms.map_or(wanted, |own| own.min(wanted)));
        let (bearer, stored) = make(now_ms, request.kind)?;
        let stored = token::Token {
            workspace_id: Some(workspace_id),
            account,
            node_id,
            agent_id: request.agent_id,
            scopes: request.scopes,
            slug_prefix: Some(slug_prefix),
            parent_id: Some(caller.token_id),
            label: request.label,
            expire_ms,
            ..stored
        };
        token::insert(&mut tx, &stored).await?;
        tx.commit().await?;
        Ok(Issued { token: bearer, expire_ms })
    }
}

/// Issues a node's token inside the transaction that enrols it or renews its token.
pub(crate) async fn issue_for_node(
    conn: &mut Conn,
    workspace_id: WorkspaceId,
    node_id: NodeId,
    account: &AccountName,
    now_ms: u64,
    life_ms: u64,
) -> Result<Bearer, TokenError> {
    let (bearer, stored) = make(now_ms, TokenKind::Node)?;
    let stored = token::Token {
        workspace_id: Some(workspace_id),
        account: Some(account.clone()),
        node_id: Some(node_id),
        scopes: [Scope::Node, Scope::DirectoryRead].into_iter().collect(),
        expire_ms: Some(now_ms.saturating_add(life_ms)),
        ..stored
    };
    token::insert(conn, &stored).await?;
    Ok(bearer)
}

/// A new token of a kind, and its row with nothing but id and hash.
pub(super) fn make(now_ms: u64, kind: TokenKind) -> Result<(Bearer, token::Token), TokenError> {
    let id = TokenId::new_v7(now_ms, random::bytes()?);
    let bearer = Bearer::from_parts(kind, id, random::bytes()?);
    let stored = token::Token {
        id,
        workspace_id: None,
        kind,
        secret_hash: bearer.hash(),
        account: None,
        node_id: None,
        agent_id: None,
        scopes: ScopeSet::default(),
        slug_prefix: None,
        parent_id: None,
        label: String::new(),
        created_ms: now_ms,
        expire_ms: None,
        revoked_ms: None,
    };
    Ok((bearer, stored))
}

/// Default and longest life of a kind.
fn life_ms(kind: TokenKind) -> Result<(u64, u64), Invalid> {
    match kind {
        TokenKind::User => Ok((12 * HOUR_MS, 30 * DAY_MS)),
        TokenKind::Agent => Ok((7 * DAY_MS, 7 * DAY_MS)),
        TokenKind::Ci => Ok((DAY_MS, 90 * DAY_MS)),
        TokenKind::Node => Err(Invalid::new("kind", "must not be NODE: a node's token comes from EnrollNode")),
        TokenKind::Admin => Err(Invalid::new("kind", "must not be ADMIN: there is the bootstrap token alone")),
    }
}

fn check_fields(caller: &Principal, request: &IssueRequest, ttl_max: u64) -> Result<(), TokenError> {
    if request.scopes.is_empty() {
        return Err(Invalid::new("scopes", "must name at least one scope").into());
    }
    if let Some(scope) = request.scopes.iter().find(|scope| !caller.scopes.allows(*scope)) {
        return Err(TokenError::Beyond(format!("the caller itself lacks {}", scope.as_str_name())));
    }
    if request.ttl_ms > ttl_max {
        return Err(Invalid::new("ttl_seconds", format!("must be at most {}", ttl_max / 1000)).into());
    }
    if (request.kind == TokenKind::Agent) != request.agent_id.is_some() {
        return Err(Invalid::new("agent_id", "must be set for kind AGENT and no other").into());
    }
    Ok(words("label", &request.label, LABEL_BYTES_MAX)?)
}

/// The caller's own workspace, or the one that an administrator of all names.
pub(crate) async fn target_workspace(
    conn: &mut Conn,
    caller: &Principal,
    named: Option<&WorkspaceName>,
) -> Result<(WorkspaceId, WorkspaceName), TokenError> {
    match (&caller.workspace, named) {
        (Some(own), None) => Ok(own.clone()),
        (Some(own), Some(named)) if own.1 == *named => Ok(own.clone()),
        (Some(_), Some(named)) => Err(TokenError::WorkspaceNotFound(named.to_string())),
        (None, None) => {
            Err(Invalid::new("workspace", "must be named by an administrator, who has none of their own").into())
        }
        (None, Some(named)) => match workspace::by_name(conn, named).await? {
            Some(found) => Ok((found.id, found.name)),
            None => Err(TokenError::WorkspaceNotFound(named.to_string())),
        },
    }
}

fn prefix(caller: &Principal, request: &IssueRequest, workspace: &WorkspaceName) -> Result<SlugScope, TokenError> {
    let whole = SlugScope::workspace(workspace);
    let own = caller.slug_prefix.as_ref().unwrap_or(&whole);
    let wanted = request.slug_prefix.clone().unwrap_or_else(|| own.clone());
    if !own.contains_scope(&wanted) || !whole.contains_scope(&wanted) {
        return Err(TokenError::Beyond(format!("slug prefix `{wanted}` is outside the caller's `{own}`")));
    }
    let foreign = request.account.as_ref().filter(|account| caller.account.as_ref() != Some(account));
    match foreign.map(|account| SlugScope::account(workspace, account)) {
        Some(scope) if !own.contains_scope(&scope) => {
            Err(TokenError::Beyond(format!("account scope `{scope}` is outside the caller's `{own}`")))
        }
        Some(_) | None => Ok(wanted),
    }
}

/// The node that an agent's token is bound to.
async fn node_of_agent(
    conn: &mut Conn,
    workspace_id: WorkspaceId,
    id: AgentId,
    prefix: &SlugScope,
) -> Result<NodeId, TokenError> {
    let found = agent::live(conn, workspace_id, id).await?;
    let found = found.ok_or_else(|| TokenError::AgentNotFound(id.to_string()))?;
    let below = SlugScope::below(&found.slug);
    if !prefix.contains(&found.slug) && *prefix != below {
        return Err(TokenError::Beyond(format!("agent {} is outside slug prefix `{prefix}`", found.slug)));
    }
    Ok(found.node_id)
}
