//! A delivery to try a source with: made and signed as its sender would, so that whoever posts it to the address goes the sender's way.

use data_encoding::{BASE64, HEXLOWER};
use jiff::Timestamp;
use murmur_core::slug::WorkspaceName;
use murmur_crypto::mac::hmac_sha256;
use serde_json::{Value, json};

use super::{
    WebhookError, Webhooks,
    secret::{self, Clear},
};
use crate::{
    db::webhook::{Kind, Webhook},
    invalid::{Invalid, words},
    random,
    tokens::Principal,
};

/// Nobody works there, so by default nobody is told.
const BRANCH: &str = "murmur-webhook-test";
const CHECK: &str = "murmur-webhook-test";
const TEXT: &str = "A test of the webhook; nothing was checked.";
const NAME_BYTES_MAX: usize = 255;

/// Where the sample says that something happened; empty for nowhere that anybody works.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// `owner/name`.
    pub repo: String,
    /// Its branch.
    pub branch: String,
}

/// A delivery that was not made yet.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Whose it is.
    pub webhook: Webhook,
    /// Beside those that every POST has.
    pub headers: Vec<(&'static str, String)>,
    /// As it is signed.
    pub body: Vec<u8>,
}

impl Webhooks {
    /// Makes and signs a sample: a check that ended neutral, or for a source of another kind the nearest to it.
    ///
    /// # Errors
    /// [`WebhookError`].
    pub async fn sample(
        &self,
        caller: &Principal,
        workspace: Option<&WorkspaceName>,
        named: &str,
        place: Place,
    ) -> Result<Sample, WebhookError> {
        words("repo", &place.repo, NAME_BYTES_MAX)?;
        words("branch", &place.branch, NAME_BYTES_MAX)?;
        let now_ms = self.clock.now_ms();
        let mut tx = self.db.read().await?;
        let webhook = self.named(&mut tx, caller, workspace, named).await?;
        let secrets = secret::good(&self.key, &mut tx, webhook.id, now_ms).await?;
        drop(tx);
        // The newest: a sender that still has the one before it is another question.
        let secret = secrets.ok().and_then(|secrets| secrets.into_iter().next_back());
        let secret = secret.ok_or(WebhookError::Sealed)?;
        let repo = if place.repo.is_empty() { repo_of(&webhook) } else { place.repo };
        let branch = if place.branch.is_empty() { BRANCH.to_owned() } else { place.branch };
        if repo.split_once('/').is_none_or(|(owner, name)| owner.is_empty() || name.is_empty()) {
            return Err(Invalid::new("repo", "must be owner/name").into());
        }
        // What names a delivery, and what it tells of: never the same twice.
        let id = now_ms;
        let body = body(webhook.kind, (&repo, &branch), (id, now_ms)).to_string().into_bytes();
        let headers = headers(webhook.kind, &secret, &body, now_ms)?;
        Ok(Sample { webhook, headers, body })
    }
}

/// A repository that the source lists, or one that fits what it lists.
fn repo_of(webhook: &Webhook) -> String {
    match webhook.repos.first().map(String::as_str) {
        None | Some("*") => "murmur/webhook-test".to_owned(),
        Some(listed) => listed.replace('*', "webhook-test"),
    }
}

fn body(kind: Kind, (repo, branch): (&str, &str), (id, now_ms): (u64, u64)) -> Value {
    let sha = HEXLOWER.encode(&[0; 20]);
    let at = Timestamp::from_millisecond(i64::try_from(now_ms).unwrap_or_default()).unwrap_or_default().to_string();
    match kind {
        Kind::GitHub => json!({
            "action": "completed",
            "check_run": {
                "id": id, "name": CHECK, "head_sha": sha, "status": "completed", "conclusion": "neutral",
                "completed_at": at, "pull_requests": [], "check_suite": {"id": id, "head_branch": branch},
                "output": {"title": TEXT, "summary": null},
            },
            "repository": {"full_name": repo},
            "sender": {"login": "murmur", "type": "Bot"},
        }),
        Kind::GitLab => json!({
            "object_kind": "pipeline",
            "object_attributes": {
                "id": id, "name": CHECK, "ref": branch, "tag": false, "sha": sha, "status": "skipped", "finished_at": at,
            },
            "user": {"username": "murmur"},
            "project": {"path_with_namespace": repo},
        }),
        Kind::Generic => json!({"repo": repo, "branch": branch, "text": TEXT, "time": at}),
    }
}

fn headers(kind: Kind, secret: &Clear, body: &[u8], now_ms: u64) -> Result<Vec<(&'static str, String)>, WebhookError> {
    let id = format!("murmur-test-{}", HEXLOWER.encode(&random::bytes::<8>()?));
    let mut headers = vec![("content-type", "application/json".to_owned())];
    if kind == Kind::GitHub {
        let tag = HEXLOWER.encode(&hmac_sha256(secret.text(), &[body]));
        headers.extend([
            ("x-github-event", "check_run".to_owned()),
            ("x-github-delivery", id),
            ("x-hub-signature-256", format!("sha256={tag}")),
        ]);
        return Ok(headers);
    }
    let time = (now_ms / 1000).to_string();
    let key = secret.key().ok_or(WebhookError::Sealed)?;
    let tag = BASE64.encode(&hmac_sha256(&key, &[id.as_bytes(), b".", time.as_bytes(), b".", body]));
    headers.extend([("webhook-id", id), ("webhook-timestamp", time), ("webhook-signature", format!("v1,{tag}"))]);
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use murmur_core::id::{WebhookId, WorkspaceId};

    use super::*;

    #[test]
    fn a_sample_names_a_repository_that_is_listed() {
        let of = |repos: &[&str]| {
            let repos = repos.iter().map(|repo| (*repo).to_owned()).collect();
            repo_of(&Webhook {
                id: WebhookId::from_bytes([1; 16]),
                workspace_id: WorkspaceId::from_bytes([1; 16]),
                name: "code".to_owned(),
                kind: Kind::GitHub,
                repos,
                events: Vec::new(),
                actors: Vec::new(),
                created_ms: 0,
                last_delivery_ms: None,
                old_secret_ms: None,
            })
        };
        assert_eq!(of(&["acme/shop", "acme/lab"]), "acme/shop");
        assert_eq!(of(&["acme/*"]), "acme/webhook-test");
        assert_eq!(of(&["*"]), "murmur/webhook-test");
        assert_eq!(of(&[]), "murmur/webhook-test");
    }
}
