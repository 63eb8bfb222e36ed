//! Taking a delivery: authentic, listed, what it says it is, and then one transaction (`deliver`).

use std::sync::Arc;

use murmur_core::id::WebhookId;
use serde_json::{Map, Value};

use super::{
    TakeError, Webhooks, check,
    deliver::{Authentic, LABEL_CHARS_MAX, Says},
    generic, github, gitlab, lists,
    report::Report,
    room::takes_repo,
    secret,
};
use crate::{
    db::{
        webhook::{self, Kind, Webhook},
        webhook_delivery::Outcome,
    },
    together,
};

/// The headers of a delivery that mean something, as they came.
#[derive(Debug, Clone, Default)]
pub struct Head {
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// `X-Hub-Signature-256`.
    pub hub_signature_256: Option<String>,
    /// `X-GitHub-Event`.
    pub github_event: Option<String>,
    /// `X-GitHub-Delivery`.
    pub github_delivery: Option<String>,
    /// `X-Gitlab-Token`.
    pub gitlab_token: Option<String>,
    /// `X-Gitlab-Event-UUID`.
    pub gitlab_uuid: Option<String>,
    /// `webhook-id`.
    pub webhook_id: Option<String>,
    /// `webhook-timestamp`.
    pub webhook_timestamp: Option<String>,
    /// `webhook-signature`.
    pub webhook_signature: Option<String>,
}

/// What became of a delivery that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Took {
    /// As the sources' own record says.
    New(Outcome),
    /// The same was taken before.
    Repeat,
    /// The first delivery of a hook, which only says hello.
    Ping,
}

/// What the sender is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// What became of it.
    pub took: Took,
    /// Why, for people.
    pub detail: String,
    /// Agents in whose logs something was written.
    pub agents: u64,
}

impl Webhooks {
    /// Takes what was posted to a source's address. `id` is the last part of the address.
    ///
    /// # Errors
    /// [`TakeError`].
    pub async fn take(self: &Arc<Self>, id: &str, head: &Head, body: &[u8]) -> Result<Answer, TakeError> {
        let now_ms = self.clock.now_ms();
        let id = id.parse::<WebhookId>().ok();
        let (webhook, secrets) = self.source(id, now_ms).await?.ok_or(TakeError::Unauthentic)?;
        let digest = check::authentic(webhook.kind, &secrets, head, body, now_ms).ok_or(TakeError::Unauthentic)?;
        self.rate.check(&webhook.id).map_err(TakeError::Limited)?;
        let content_type = head.content_type.as_deref().unwrap_or_default();
        if !is_json(content_type) {
            return Err(TakeError::ContentType(content_type.chars().take(LABEL_CHARS_MAX).collect()));
        }
        let parsed = serde_json::from_slice(body);
        let event = match &parsed {
            Ok(body) => event_of(webhook.kind, head, body),
            Err(_) => head.github_event.as_deref().unwrap_or_default(),
        };
        let (delivery, event) = (delivery_of(head).to_owned(), event.to_owned());
        let known = Authentic { webhook, digest, delivery, event, now_ms };
        let body = match parsed {
            Ok(body) => body,
            Err(error) => return self.refuse(known, format!("the body is no JSON object: {error}")).await,
        };
        if known.webhook.kind == Kind::GitHub && github::is_ping(&known.event, &body) {
            return Ok(Answer { took: Took::Ping, detail: "hello".into(), agents: 0 });
        }
        if !lists::event_listed(known.webhook.kind, &known.webhook.events, &known.event) {
            let why = format!("type `{}` is not listed", known.event);
            return self.write(known, Says::Nothing(Outcome::Dropped, why)).await;
        }
        match read(&known, head, body) {
            Ok(report) => self.tell(known, report).await,
            Err(why) => self.refuse(known, why).await,
        }
    }

    /// The source of an id with its secrets.
    async fn source(
        &self,
        id: Option<WebhookId>,
        now_ms: u64,
    ) -> Result<Option<(Webhook, Vec<secret::Clear>)>, TakeError> {
        let Some(id) = id else { return Ok(None) };
        let mut tx = self.db.read().await?;
        let Some(webhook) = webhook::by_id(&mut tx, id).await? else { return Ok(None) };
        let secrets = secret::good(&self.key, &mut tx, id, now_ms).await??;
        Ok(Some((webhook, secrets)))
    }

    /// What a report comes to.
    async fn tell(self: &Arc<Self>, known: Authentic, report: Report) -> Result<Answer, TakeError> {
        if takes_repo(&known.webhook, &report.repo) {
            return self.write(known, Says::Report(Box::new(report))).await;
        }
        let why = format!("repository `{}` is not listed", report.repo);
        self.write(known, Says::Nothing(Outcome::Dropped, why)).await
    }

    async fn refuse(self: &Arc<Self>, known: Authentic, why: String) -> Result<Answer, TakeError> {
        self.write(known, Says::Nothing(Outcome::Invalid, why.clone())).await?;
        Err(TakeError::Malformed(why))
    }

    /// Writes, in one transaction with whatever else comes now.
    async fn write(self: &Arc<Self>, known: Authentic, says: Says) -> Result<Answer, TakeError> {
        together::write(self, (known, says)).await?
    }
}

fn read(known: &Authentic, head: &Head, body: Map<String, Value>) -> Result<Report, String> {
    // A type that is listed is understood.
    let nobody = || Err(format!("type `{}` is not understood", known.event));
    match known.webhook.kind {
        Kind::GitHub => {
            github::read(&known.event, body).map_or_else(nobody, |read| read.map_err(|error| error.to_string()))
        }
        Kind::GitLab => {
            gitlab::read(&known.event, body).map_or_else(nobody, |read| read.map_err(|error| error.to_string()))
        }
        Kind::Generic => {
            let id = head.webhook_id.as_deref().unwrap_or_default();
            generic::read(&known.webhook.name, id, body).map_err(|error| error.to_string())
        }
    }
}

/// The sender's own type of a delivery.
fn event_of<'a>(kind: Kind, head: &'a Head, body: &'a Map<String, Value>) -> &'a str {
    match kind {
        Kind::GitHub => head.github_event.as_deref().unwrap_or_default(),
        Kind::GitLab => gitlab::kind(body),
        Kind::Generic => generic::kind(body),
    }
}

/// The sender's own name of a delivery.
fn delivery_of(head: &Head) -> &str {
    let named = [&head.webhook_id, &head.github_delivery, &head.gitlab_uuid];
    named.into_iter().find_map(Option::as_deref).unwrap_or_default()
}

fn is_json(content_type: &str) -> bool {
    let kind = content_type.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/json")
}
