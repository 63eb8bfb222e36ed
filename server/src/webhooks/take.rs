//! Taking a delivery: authentic, listed, what it says it is, and then one transaction.

use murmur_core::id::WebhookId;
use serde_json::{Map, Value};

use super::{
    TakeError, Webhooks, check, generic, github, gitlab, lists, report::Report, room::takes_repo, route, secret,
};
use crate::db::{
    webhook::{self, Kind, Webhook},
    webhook_delivery::{self, Delivery, Outcome},
};

/// How long a repeat is known.
const KEPT_MS: u64 = 7 * 24 * 3600 * 1000;
/// What senders call their deliveries, as far as it is kept.
const LABEL_CHARS_MAX: usize = 100;

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

/// What is known of a delivery once it is authentic.
struct Authentic<'a> {
    webhook: &'a Webhook,
    digest: check::Digest,
    delivery: &'a str,
    event: String,
}

impl Webhooks {
    /// Takes what was posted to a source's address. `id` is the last part of the address.
    ///
    /// # Errors
    /// [`TakeError`].
    pub async fn take(&self, id: &str, head: &Head, body: &[u8]) -> Result<Answer, TakeError> {
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
        let known = Authentic { webhook: &webhook, digest, delivery: delivery_of(head), event: event.to_owned() };
        let body = match parsed {
            Ok(body) => body,
            Err(error) => return self.refuse(&known, format!("the body is no JSON object: {error}"), now_ms).await,
        };
        if webhook.kind == Kind::GitHub && github::is_ping(&known.event, &body) {
            return Ok(Answer { took: Took::Ping, detail: "hello".into(), agents: 0 });
        }
        if !lists::event_listed(webhook.kind, &webhook.events, &known.event) {
            let why = format!("type `{}` is not listed", known.event);
            return self.settle(&known, Outcome::Dropped, why, now_ms).await;
        }
        match read(&known, head, body) {
            Ok(report) => self.tell(&known, report, now_ms).await,
            Err(why) => self.refuse(&known, why, now_ms).await,
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

    /// Events into logs, the pull request and the record of the delivery: all of it, or nothing and the sender tries again.
    async fn tell(&self, known: &Authentic<'_>, report: Report, now_ms: u64) -> Result<Answer, TakeError> {
        let Authentic { webhook, digest, .. } = known;
        if !takes_repo(webhook, &report.repo) {
            let why = format!("repository `{}` is not listed", report.repo);
            return self.settle(known, Outcome::Dropped, why, now_ms).await;
        }
        let mut work = self.agents.begin().await?;
        let since_ms = now_ms.saturating_sub(KEPT_MS);
        let before = webhook_delivery::outcome(&mut work, webhook.id, digest, since_ms).await?;
        if before.is_some_and(Outcome::is_final) {
            let detail = "the same delivery was taken before".to_owned();
            return Ok(Answer { took: Took::Repeat, detail, agents: 0 });
        }
        let handed = route::hand_on(&mut work, webhook, &report).await?;
        let (outcome, detail) = match (&report.told, handed.withheld) {
            (None, _) if report.pull.is_none() && report.push.is_none() => {
                (Outcome::Dropped, report.silence.to_owned())
            }
            (None, _) => (Outcome::Accepted, report.silence.to_owned()),
            (Some(_), true) => (Outcome::Withheld, "its author is on no list".to_owned()),
            (Some(_), false) => (Outcome::Accepted, String::new()),
        };
        let row = known.row(outcome, detail.clone(), handed.agents, now_ms);
        webhook_delivery::put(&mut work, webhook.id, &row).await?;
        webhook_delivery::forget(&mut work, since_ms).await?;
        self.agents.commit(work).await?;
        Ok(Answer { took: Took::New(outcome), detail, agents: handed.agents })
    }

    /// Writes down a delivery that says nothing to anybody.
    async fn settle(
        &self,
        known: &Authentic<'_>,
        outcome: Outcome,
        detail: String,
        now_ms: u64,
    ) -> Result<Answer, TakeError> {
        let mut tx = self.db.write().await?;
        let before = webhook_delivery::outcome(&mut tx, known.webhook.id, &known.digest, 0).await?;
        if !before.is_some_and(Outcome::is_final) {
            let row = known.row(outcome, detail.clone(), 0, now_ms);
            webhook_delivery::put(&mut tx, known.webhook.id, &row).await?;
            tx.commit().await?;
        }
        Ok(Answer { took: Took::New(outcome), detail, agents: 0 })
    }

    async fn refuse(&self, known: &Authentic<'_>, why: String, now_ms: u64) -> Result<Answer, TakeError> {
        self.settle(known, Outcome::Invalid, why.clone(), now_ms).await?;
        Err(TakeError::Malformed(why))
    }
}

impl Authentic<'_> {
    fn row(&self, outcome: Outcome, detail: String, agents: u64, now_ms: u64) -> Delivery {
        Delivery {
            digest: self.digest,
            delivery: label(self.delivery),
            event: label(&self.event),
            outcome,
            detail,
            agents,
            received_ms: now_ms,
        }
    }
}

fn read(known: &Authentic<'_>, head: &Head, body: Map<String, Value>) -> Result<Report, String> {
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

/// What a stranger named, as it can be shown on one line.
fn label(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(LABEL_CHARS_MAX).collect()
}

fn is_json(content_type: &str) -> bool {
    let kind = content_type.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/json")
}
