//! Workspaces: made by an owner who keeps the root key.

use murmur_core::slug::{Scope, WorkspaceName};
use murmur_crypto::cert::{Origin, RootCertificate};

use super::{Directory, DirectoryError};
use crate::{
    db::workspace::{self, Mode, Workspace},
    invalid::Invalid,
    tokens::Principal,
};

impl Directory {
    /// Creates a workspace of an owner. The same name with the same root answers what is there.
    ///
    /// # Errors
    /// [`DirectoryError`].
    pub async fn create_workspace(
        &self,
        name: WorkspaceName,
        root_certificate: Vec<u8>,
    ) -> Result<Workspace, DirectoryError> {
        let now_ms = self.clock.now_ms();
        let root = checked_root(&name, &root_certificate, now_ms)?;
        let mut tx = self.db.write().await?;
        if let Some(existing) = workspace::by_name(&mut tx, &name).await? {
            let same = existing.root_certificate == root_certificate;
            return if same { Ok(existing) } else { Err(DirectoryError::WorkspaceExists(name)) };
        }
        let id = root.workspace_id();
        let created = Workspace { id, name, mode: Mode::Owner, root_certificate, created_ms: now_ms };
        match workspace::insert(&mut tx, &created).await {
            Err(error) if error.is_duplicate() => return Err(DirectoryError::WorkspaceExists(created.name)),
            other => other?,
        }
        tx.commit().await?;
        tracing::info!(workspace.id = %id, workspace.name = %created.name, "workspace {} created", created.name);
        Ok(created)
    }

    /// The caller's own workspace, or the one that an administrator names.
    ///
    /// # Errors
    /// [`DirectoryError`].
    pub async fn workspace(&self, caller: &Principal, named: &str) -> Result<Workspace, DirectoryError> {
        let not_found = || DirectoryError::WorkspaceNotFound(named.to_owned());
        let mut tx = self.db.read().await?;
        let found = match &caller.workspace {
            Some((id, own)) if named.is_empty() || own.as_str() == named => workspace::get(&mut tx, *id).await?,
            Some(_) => None,
            None if named.is_empty() => return Err(DirectoryError::NoWorkspace),
            None => workspace::by_name(&mut tx, &named.parse().map_err(|_| not_found())?).await?,
        };
        found.ok_or_else(not_found)
    }
}

/// Reads a root certificate and checks that it is one for this name.
fn checked_root(name: &WorkspaceName, bytes: &[u8], now_ms: u64) -> Result<RootCertificate, Invalid> {
    let wrong = |rule: String| Invalid::new("root_certificate", rule);
    let root = RootCertificate::decode(bytes.to_vec()).map_err(|error| wrong(error.to_string()))?;
    let claims = root.certificate().claims();
    let whole = Scope::workspace(name);
    if !claims.slug_scope.iter().all(|scope| scope.starts_with(whole.as_str())) || claims.slug_scope.is_empty() {
        return Err(wrong(format!("slug_scope must lie inside {whole}")));
    }
    if claims.origin != Origin::Owner {
        return Err(wrong("origin must be OWNER in owner mode".into()));
    }
    if now_ms > claims.not_after_ms {
        return Err(wrong("must not have expired".into()));
    }
    Ok(root)
}
