//! Whether a delivery is authentic. Before this nothing of its body is read.

use data_encoding::{BASE64, HEXLOWER_PERMISSIVE};
use murmur_crypto::{
    hash::sha256,
    mac::{hmac_sha256_holds, same_secret},
};

use super::{Head, secret::Clear};
use crate::db::webhook::Kind;

/// How old, or ahead, the time in a signature may be (Standard Webhooks).
const TOLERANCE_MS: u64 = 5 * 60 * 1000;
/// Signatures in one header that are tried.
const SIGNATURES_MAX: usize = 8;

/// What a delivery is known again by: the digest of what its sender's proof covers, so that no header that anybody can change makes a
/// repeat look new.
pub(super) type Digest = [u8; 32];

/// The digest of an authentic delivery; `None` for any other.
pub(super) fn authentic(kind: Kind, secrets: &[Clear], head: &Head, body: &[u8], now_ms: u64) -> Option<Digest> {
    let by_body = || digest(&[b"body", body]);
    match kind {
        Kind::GitHub => github(secrets, head, body).then(by_body),
        Kind::Generic => standard(secrets, head, body, now_ms),
        // A source that signs is not believed without a signature, even with the token.
        Kind::GitLab if head.webhook_signature.is_some() => standard(secrets, head, body, now_ms),
        Kind::GitLab => gitlab_token(secrets, head).then(by_body),
    }
}

/// `X-Hub-Signature-256: sha256=` and hex, over the body, keyed with the secret's text. The header with SHA-1 is not looked at.
fn github(secrets: &[Clear], head: &Head, body: &[u8]) -> bool {
    let hex = head.hub_signature_256.as_deref().and_then(|value| value.strip_prefix("sha256="));
    let Some(tag) = hex.and_then(|hex| HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).ok()) else { return false };
    // Every secret is tried, so that the time does not tell which one it was.
    secrets.iter().fold(false, |found, secret| hmac_sha256_holds(secret.text(), &[body], &tag) | found)
}

/// `X-Gitlab-Token`: the secret itself.
fn gitlab_token(secrets: &[Clear], head: &Head) -> bool {
    let Some(token) = head.gitlab_token.as_deref() else { return false };
    secrets.iter().fold(false, |found, secret| same_secret(secret.text(), token.as_bytes()) | found)
}

/// Standard Webhooks: `v1,` and base64 of HMAC-SHA256 over `{id}.{timestamp}.{body}`. The id is signed, so it is what a repeat is known by.
fn standard(secrets: &[Clear], head: &Head, body: &[u8], now_ms: u64) -> Option<Digest> {
    let (id, time) = (head.webhook_id.as_deref()?, head.webhook_timestamp.as_deref()?);
    let at_ms = time.parse::<u64>().ok()?.checked_mul(1000)?;
    if id.is_empty() || at_ms.abs_diff(now_ms) > TOLERANCE_MS {
        return None;
    }
    let signed: [&[u8]; 5] = [id.as_bytes(), b".", time.as_bytes(), b".", body];
    let signatures = head.webhook_signature.as_deref()?.split(' ').take(SIGNATURES_MAX);
    let tags: Vec<_> =
        signatures.filter_map(|signature| BASE64.decode(signature.strip_prefix("v1,")?.as_bytes()).ok()).collect();
    let mut holds = false;
    for key in secrets.iter().filter_map(Clear::key) {
        for tag in &tags {
            holds |= hmac_sha256_holds(&key, &signed, tag);
        }
    }
    holds.then(|| digest(&[b"id", id.as_bytes()]))
}

fn digest(parts: &[&[u8]]) -> Digest {
    sha256(&parts.join(&b'\n'))
}
