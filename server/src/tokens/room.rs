//! Verifying, revoking and listing tokens.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use murmur_core::{
    id::{TokenId, WorkspaceId},
    token::Token as Bearer,
};

use super::{AuthError, Principal, TokenError};
use crate::{
    clock::Clock,
    db::{
        Conn, Db, DbError, Source,
        token::{self, Standing},
        workspace,
    },
    page::Page,
};

/// How long a verified token is believed without asking the database.
const CACHE_LIFE_MS: u64 = 30_000;
/// Entries of the cache; a full one starts empty again.
const CACHE_ENTRIES_MAX: usize = 10_000;

struct Cached {
    secret_hash: [u8; 32],
    principal: Arc<Principal>,
    read_ms: u64,
}

/// What was verified lately.
#[derive(Default)]
struct Cache {
    entries: HashMap<TokenId, Cached>,
    /// Raised whenever tokens are forgotten: what was read before that may be of before their end.
    generation: u64,
}

/// The tokens of this control plane.
pub struct Tokens {
    pub(super) db: Db,
    pub(super) clock: Clock,
    cache: Mutex<Cache>,
}

impl Tokens {
    /// The room over a database.
    #[must_use]
    pub fn new(db: Db, clock: Clock) -> Self {
        Self { db, clock, cache: Mutex::default() }
    }

    /// Who holds this token.
    ///
    /// # Errors
    /// [`AuthError`].
    pub async fn verify(&self, text: &str) -> Result<Arc<Principal>, AuthError> {
        let bearer = Bearer::parse(text)?;
        let now_ms = self.clock.now_ms();
        let principal = match self.cached(&bearer, now_ms) {
            Some(principal) => principal,
            None => {
                let generation = self.cache().generation;
                self.remember(self.read(&bearer, now_ms).await?, generation)
            }
        };
        if principal.expire_ms.is_some_and(|expire_ms| now_ms >= expire_ms) {
            return Err(AuthError::Expired);
        }
        Ok(principal)
    }

    /// Revokes a token and all that derive from it, and says how many this call ended. Of a workspace's callers only those
    /// whose prefix covers the token's may.
    ///
    /// # Errors
    /// [`TokenError`].
    pub async fn revoke(&self, caller: &Principal, id: TokenId) -> Result<usize, TokenError> {
        let mut tx = self.db.write().await?;
        let visible =
            |found: &token::Token| caller.workspace_id().is_none() || caller.workspace_id() == found.workspace_id;
        let found = token::get(&mut tx, id).await?.filter(visible);
        let found = found.ok_or_else(|| TokenError::NotFound(id.to_string()))?;
        if !reaches(caller, &found) {
            return Err(TokenError::Beyond("the token's slug prefix is outside the caller's".into()));
        }
        let ended = token::revoke_tree(&mut tx, id, self.clock.now_ms()).await?;
        tx.commit().await?;
        self.forget(&ended);
        Ok(ended.len())
    }

    /// Tokens that the caller may see, which are its own and those that its prefix covers, and the token of the next page. A
    /// page may hold fewer than were asked for although another follows.
    ///
    /// # Errors
    /// [`TokenError`].
    pub async fn list(
        &self,
        caller: &Principal,
        page_size: u32,
        page_token: &str,
    ) -> Result<(Vec<token::Token>, String), TokenError> {
        let page = Page::new("ListTokens", page_size, page_token)?;
        let mut tx = self.db.read().await?;
        let tokens = token::page(&mut tx, caller.workspace_id(), &page.after, page.limit()).await?;
        let (mut tokens, next) = page.cut(tokens, |token| token.id.to_vec());
        tokens.retain(|token| token.id == caller.token_id || reaches(caller, token));
        Ok((tokens, next))
    }

    /// Whether a caller's token still holds, for streams that outlast its first check. Asks the database every time.
    ///
    /// # Errors
    /// [`AuthError`].
    pub(crate) async fn still_holds(&self, conn: &mut Conn, caller: &Principal) -> Result<(), AuthError> {
        self.holds(conn, caller).await
    }

    /// As [`Tokens::still_holds`], asked in place: little enough to be asked for every item of a stream.
    ///
    /// # Errors
    /// [`AuthError`].
    pub(crate) async fn holds_now(&self, caller: &Principal) -> Result<(), AuthError> {
        self.holds(&mut self.db.look()?, caller).await
    }

    async fn holds(&self, source: &mut impl Source, caller: &Principal) -> Result<(), AuthError> {
        let standing = token::standing(source, caller.token_id).await?;
        let Standing { expire_ms, revoked } = standing.ok_or(AuthError::Unknown)?;
        let expired = expire_ms.is_some_and(|expire_ms| self.clock.now_ms() >= expire_ms);
        match revoked {
            true => Err(AuthError::Revoked),
            false if expired => Err(AuthError::Expired),
            false => Ok(()),
        }
    }

    /// Drops tokens from the cache, once their revocation is durable.
    pub(crate) fn forget(&self, ids: &[TokenId]) {
        let mut cache = self.cache();
        cache.generation += 1;
        for id in ids {
            cache.entries.remove(id);
        }
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cached(&self, bearer: &Bearer, now_ms: u64) -> Option<Arc<Principal>> {
        let cache = self.cache();
        let entry = cache.entries.get(&bearer.id())?;
        let fresh = now_ms.saturating_sub(entry.read_ms) < CACHE_LIFE_MS;
        (fresh && bearer.matches(&entry.secret_hash)).then(|| Arc::clone(&entry.principal))
    }

    async fn read(&self, bearer: &Bearer, now_ms: u64) -> Result<Cached, AuthError> {
        let mut tx = self.db.read().await?;
        let stored = token::get(&mut tx, bearer.id()).await?.ok_or(AuthError::Unknown)?;
        if !bearer.matches(&stored.secret_hash) || bearer.kind() != stored.kind {
            return Err(AuthError::Unknown);
        }
        if stored.revoked_ms.is_some() {
            return Err(AuthError::Revoked);
        }
        let workspace = match stored.workspace_id {
            Some(id) => Some((id, self.workspace_name(&mut tx, id).await?)),
            None => None,
        };
        let secret_hash = stored.secret_hash;
        let principal = Arc::new(Principal {
            token_id: stored.id,
            kind: stored.kind,
            workspace,
            account: stored.account,
            node_id: stored.node_id,
            agent_id: stored.agent_id,
            scopes: stored.scopes,
            slug_prefix: stored.slug_prefix,
            expire_ms: stored.expire_ms,
        });
        Ok(Cached { secret_hash, principal, read_ms: now_ms })
    }

    /// Keeps what was read, unless tokens were forgotten since `generation`: one of them may be what was read.
    fn remember(&self, entry: Cached, generation: u64) -> Arc<Principal> {
        let principal = Arc::clone(&entry.principal);
        let mut cache = self.cache();
        if cache.generation == generation {
            if cache.entries.len() >= CACHE_ENTRIES_MAX {
                cache.entries.clear();
            }
            cache.entries.insert(principal.token_id, entry);
        }
        principal
    }

    async fn workspace_name(
        &self,
        conn: &mut Conn,
        id: WorkspaceId,
    ) -> Result<murmur_core::slug::WorkspaceName, DbError> {
        let found = workspace::get(conn, id).await?;
        found.map(|workspace| workspace.name).ok_or(DbError::Corrupt { column: "token.workspace_id" })
    }
}

/// Whether a token lies where the caller may act.
fn reaches(caller: &Principal, found: &token::Token) -> bool {
    match &found.slug_prefix {
        Some(prefix) => caller.reaches(prefix),
        None => caller.slug_prefix.is_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_token_that_is_revoked_while_it_is_read_is_not_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(&dir.path().join("server.db"), "epoch").await.unwrap();
        let tokens = Tokens::new(db, Clock::system());
        let file = dir.path().join("admin.token");
        assert!(tokens.bootstrap(&file).await.unwrap().unwrap());
        let text = std::fs::read_to_string(file).unwrap();
        let bearer = Bearer::parse(text.trim()).unwrap();

        let generation = tokens.cache().generation;
        let read = tokens.read(&bearer, tokens.clock.now_ms()).await.unwrap();
        let admin = Arc::clone(&read.principal);
        assert_eq!(tokens.revoke(&admin, admin.token_id).await.unwrap(), 1);
        tokens.remember(read, generation);
        assert!(matches!(tokens.verify(text.trim()).await, Err(AuthError::Revoked)));
    }
}
