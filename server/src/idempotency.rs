//! Idempotency keys: a write that is repeated with its key is answered as the first time, and done once.
//!
//! In the transaction of the write, before anything else: [`recall`]; an answer there is the answer. After the write, before the commit:
//! [`remember`]. Refusals are not kept, so that a call that was refused can be repeated with its key once the cause is gone.

use murmur_core::limits::{IDEMPOTENCY_KEY_BYTES_MAX, IDEMPOTENCY_MS};
use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};

use crate::{
    db::{
        Conn, DbError,
        idempotency::{self, Answered, Key},
    },
    invalid::{Invalid, words},
    tokens::Principal,
};

/// Whose call it is, its key, and what it asks for.
#[derive(Debug, Clone)]
pub struct Once {
    caller: String,
    method: &'static str,
    key: String,
    digest: [u8; 32],
}

/// Why a repeat is not answered.
#[derive(Debug, thiserror::Error)]
pub enum OnceError {
    /// The key came with another request before.
    #[error("idempotency key `{0}` was used for another request")]
    Conflict(String),
    /// The database failed.
    #[error("reading or writing an idempotency key")]
    Db(#[from] DbError),
    /// An answer cannot be written or read.
    #[error("keeping the answer of an idempotency key")]
    Answer(#[from] serde_json::Error),
}

impl Once {
    /// A call with a key; `None` when the key is empty. `request` are the request's bytes as the contract encodes them.
    ///
    /// # Errors
    /// [`Invalid`] for a key that is too long or not on one line.
    pub(crate) fn new(
        caller: &Principal,
        method: &'static str,
        key: &str,
        request: &[u8],
    ) -> Result<Option<Self>, Invalid> {
        words("idempotency_key", key, IDEMPOTENCY_KEY_BYTES_MAX)?;
        let once =
            || Self { caller: name(caller), method, key: key.to_owned(), digest: Sha256::digest(request).into() };
        Ok((!key.is_empty()).then(once))
    }

    fn key(&self) -> Key<'_> {
        Key { caller: self.caller.as_bytes(), method: self.method, key: &self.key }
    }
}

/// Keys belong to an agent or an account rather than to one of its tokens, so that they outlast a renewed token.
fn name(caller: &Principal) -> String {
    match (caller.agent_id, caller.workspace_id(), &caller.account) {
        (Some(id), ..) => format!("agent:{id}"),
        (None, Some(workspace_id), Some(account)) => format!("account:{workspace_id}/{account}"),
        (None, _, _) => format!("token:{}", caller.token_id),
    }
}

/// What the call was answered within the last day; `None` for a first call, and for one without a key.
///
/// # Errors
/// [`OnceError::Conflict`] when the key came with another request.
pub(crate) async fn recall<T: DeserializeOwned>(
    conn: &mut Conn,
    once: Option<&Once>,
    now_ms: u64,
) -> Result<Option<T>, OnceError> {
    let Some(once) = once else { return Ok(None) };
    let since_ms = now_ms.saturating_sub(IDEMPOTENCY_MS);
    let Some(found) = idempotency::get(conn, once.key(), since_ms).await? else { return Ok(None) };
    if found.digest != once.digest {
        return Err(OnceError::Conflict(once.key.clone()));
    }
    Ok(Some(serde_json::from_slice(&found.answer)?))
}

/// Keeps the answer of a call with a key, and forgets those of more than a day ago.
///
/// # Errors
/// [`OnceError`].
pub(crate) async fn remember<T: Serialize + Sync>(
    conn: &mut Conn,
    once: Option<&Once>,
    answer: &T,
    now_ms: u64,
) -> Result<(), OnceError> {
    let Some(once) = once else { return Ok(()) };
    idempotency::forget(conn, now_ms.saturating_sub(IDEMPOTENCY_MS)).await?;
    let answered = Answered { digest: once.digest, answer: serde_json::to_vec(answer)? };
    Ok(idempotency::put(conn, once.key(), &answered, now_ms).await?)
}
