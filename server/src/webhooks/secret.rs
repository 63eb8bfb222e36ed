//! The secrets that senders sign with. A sender and the control plane both need them in clear, so they cannot be hashed: in the database
//! they are sealed under a key from a 0600 file beside it (ADR 17).

use std::{io, path::Path};

use data_encoding::{BASE64, HEXLOWER};
use murmur_core::id::WebhookId;
use murmur_crypto::at_rest::{AtRestKey, NotOpened};

use crate::{
    db::{Conn, DbError, webhook},
    files::{read_if_present, write_private},
    random::{self, RandomError},
};

/// File with the key under which secrets are sealed.
pub(super) const KEY_FILE: &str = "webhook.key";
/// What Standard Webhooks puts before every secret.
const PREFIX: &str = "whsec_";

/// A secret in clear.
pub(super) struct Clear(Vec<u8>);

impl Clear {
    /// As it was shown, which is what GitHub keys with and GitLab sends.
    pub(super) fn text(&self) -> &[u8] {
        &self.0
    }

    /// What Standard Webhooks keys with.
    pub(super) fn key(&self) -> Option<Vec<u8>> {
        BASE64.decode(self.0.strip_prefix(PREFIX.as_bytes())?).ok()
    }
}

/// Reads the key, or makes it.
pub(super) fn key(dir: &Path) -> anyhow::Result<AtRestKey> {
    let file = dir.join(KEY_FILE);
    if let Some(text) = read_if_present(&file)? {
        let bytes = HEXLOWER.decode(text.trim().as_bytes()).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        let bytes = bytes.ok_or_else(|| {
            let rule = format!(
                "{} must hold 64 hex digits; restore it, or remove it and rotate every webhook",
                file.display()
            );
            io::Error::new(io::ErrorKind::InvalidData, rule)
        })?;
        return Ok(AtRestKey::from_bytes(bytes));
    }
    let bytes = random::bytes::<32>()?;
    write_private(&file, &HEXLOWER.encode(&bytes))?;
    Ok(AtRestKey::from_bytes(bytes))
}

/// Makes a secret and its sealed form for a place.
pub(super) fn make(key: &AtRestKey, id: WebhookId, number: u64) -> Result<(String, Vec<u8>), RandomError> {
    let text = format!("{PREFIX}{}", BASE64.encode(&random::bytes::<32>()?));
    let sealed = key.seal(&place(id, number), text.as_bytes(), random::bytes()?);
    Ok((text, sealed))
}

/// The secrets of a source that are good now. One that cannot be opened is an error when none is left that can.
pub(super) async fn good(
    key: &AtRestKey,
    conn: &mut Conn,
    id: WebhookId,
    now_ms: u64,
) -> Result<Result<Vec<Clear>, NotOpened>, DbError> {
    let stored = webhook::secrets(conn, id, now_ms).await?;
    let (mut clear, mut failed) = (Vec::with_capacity(stored.len()), None);
    for secret in stored {
        match key.open(&place(id, secret.number), &secret.sealed) {
            Ok(text) => clear.push(Clear(text.to_vec())),
            Err(error) => failed = Some(error),
        }
    }
    Ok(match failed {
        Some(error) if clear.is_empty() => Err(error),
        _ => Ok(clear),
    })
}

fn place(id: WebhookId, number: u64) -> Vec<u8> {
    format!("webhook_secret||sealed||{id}/{number}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_made_once_and_a_broken_one_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let id = WebhookId::from_bytes([1; 16]);
        let (text, sealed) = make(&key(dir.path()).unwrap(), id, 1).unwrap();
        let again = key(dir.path()).unwrap();
        assert_eq!(again.open(&place(id, 1), &sealed).unwrap().as_slice(), text.as_bytes());
        assert!(again.open(&place(id, 2), &sealed).is_err());
        assert_eq!(Clear(text.into_bytes()).key().unwrap().len(), 32);

        std::fs::write(dir.path().join(KEY_FILE), "short").unwrap();
        assert!(key(dir.path()).err().unwrap().to_string().contains("64 hex digits"));
    }
}
