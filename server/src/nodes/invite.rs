//! Recording invites. The secret never comes here, only its hash.

use murmur_core::{
    id::InviteId,
    limits::{INVITE_LIFE_MS_DEFAULT, INVITE_LIFE_MS_MAX},
    slug::{AccountName, Scope, WorkspaceName},
};

use super::{NodeError, Nodes};
use crate::{
    db::{account, invite},
    invalid::Invalid,
    random,
    tokens::{Principal, TokenError, target_workspace},
};

const USES_MAX: u32 = 1000;
const SCOPES_MAX: usize = 16;

/// An invite to record.
#[derive(Debug, Clone)]
pub struct InviteRequest {
    /// SHA-256 of the secret.
    pub secret_hash: [u8; 32],
    /// Whose node it will be.
    pub account: AccountName,
    /// What it may name its agents; empty for everything of the account.
    pub slug_scope: Vec<Scope>,
    /// 0 means 1.
    pub uses_max: u32,
    /// 0 means 24 hours.
    pub ttl_ms: u64,
    /// For an administrator of all workspaces.
    pub workspace: Option<WorkspaceName>,
}

impl Nodes {
    /// Records an invite; its id and when it expires.
    ///
    /// # Errors
    /// [`NodeError`].
    pub async fn create_invite(
        &self,
        caller: &Principal,
        request: InviteRequest,
    ) -> Result<(InviteId, u64), NodeError> {
        let now_ms = self.clock.now_ms();
        check_limits(&request)?;
        let mut tx = self.db.write().await?;
        let (workspace_id, workspace) = match target_workspace(&mut tx, caller, request.workspace.as_ref()).await {
            Err(TokenError::Invalid(invalid)) => return Err(invalid.into()),
            other => other?,
        };
        let slug_scope = scope_of(caller, &workspace, &request)?;
        account::ensure(&mut tx, workspace_id, &request.account, now_ms).await?;
        let life_ms = if request.ttl_ms == 0 { INVITE_LIFE_MS_DEFAULT } else { request.ttl_ms };
        let recorded = invite::Invite {
            id: InviteId::new_v7(now_ms, random::bytes()?),
            workspace_id,
            secret_hash: request.secret_hash,
            account: request.account,
            slug_scope,
            uses: 0,
            uses_max: u64::from(request.uses_max.max(1)),
            created_ms: now_ms,
            expire_ms: now_ms + life_ms,
        };
        match invite::insert(&mut tx, &recorded).await {
            Err(error) if error.is_duplicate() => {
                return Err(Invalid::new("secret_hash", "must be of a new secret").into());
            }
            other => other?,
        }
        tx.commit().await?;
        Ok((recorded.id, recorded.expire_ms))
    }
}

fn check_limits(request: &InviteRequest) -> Result<(), Invalid> {
    if request.uses_max > USES_MAX {
        return Err(Invalid::new("uses_max", format!("must be at most {USES_MAX}, got {}", request.uses_max)));
    }
    if request.ttl_ms > INVITE_LIFE_MS_MAX {
        return Err(Invalid::new("ttl_seconds", format!("must be at most {}", INVITE_LIFE_MS_MAX / 1000)));
    }
    if request.slug_scope.len() > SCOPES_MAX {
        return Err(Invalid::new("slug_scope", format!("must have at most {SCOPES_MAX} prefixes")));
    }
    Ok(())
}

fn scope_of(caller: &Principal, workspace: &WorkspaceName, request: &InviteRequest) -> Result<Vec<Scope>, NodeError> {
    let scope = if request.slug_scope.is_empty() {
        vec![Scope::account(workspace, &request.account)]
    } else {
        request.slug_scope.clone()
    };
    let whole = Scope::workspace(workspace);
    let account = Scope::account(workspace, &request.account);
    // A narrow scope does not make a node of somebody else's account one of the caller's.
    if caller.account.as_ref() != Some(&request.account) && !caller.reaches(&account) {
        return Err(NodeError::Beyond(account.to_string()));
    }
    match scope.iter().find(|scope| !whole.contains_scope(scope) || !caller.reaches(scope)) {
        Some(beyond) => Err(NodeError::Beyond(beyond.to_string())),
        None => Ok(scope),
    }
}
