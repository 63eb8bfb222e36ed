//! What an authentic delivery writes, together with others that come at once: all of one, or nothing of it and its sender tries again.

use super::{Answer, TakeError, Took, Webhooks, check, report::Report, route};
use crate::{
    agents::{AgentError, Agents, Work},
    db::{
        DbError,
        webhook::Webhook,
        webhook_delivery::{self, Delivery, Outcome},
    },
    together::{Line, Writer},
};

/// How long a repeat is known.
const KEPT_MS: u64 = 7 * 24 * 3600 * 1000;
/// What senders call their deliveries, as far as it is kept.
pub(super) const LABEL_CHARS_MAX: usize = 100;

/// What is known of a delivery once it is authentic.
pub(crate) struct Authentic {
    pub(super) webhook: Webhook,
    pub(super) digest: check::Digest,
    /// The sender's own name of it.
    pub(super) delivery: String,
    /// The sender's own type of it.
    pub(super) event: String,
    /// When it came, Unix milliseconds.
    pub(super) now_ms: u64,
}

/// What is to be made of a delivery.
pub(crate) enum Says {
    /// Events.
    Report(Box<Report>),
    /// Nothing, and why.
    Nothing(Outcome, String),
}

impl Writer for Webhooks {
    type Call = (Authentic, Says);
    type Done = Answer;
    type Error = TakeError;

    fn line(&self) -> &Line<Self> {
        &self.line
    }

    fn agents(&self) -> &Agents {
        &self.agents
    }

    async fn write(&self, work: &mut Work, (known, says): &Self::Call) -> Result<Result<Answer, TakeError>, DbError> {
        let written = match says {
            Says::Report(report) => tell(work, known, report).await,
            Says::Nothing(outcome, why) => settle(work, known, *outcome, why).await.map_err(AgentError::from),
        };
        match written {
            Err(AgentError::Db(error)) => Err(error),
            written => Ok(written.map_err(TakeError::from)),
        }
    }
}

/// Events into logs, the pull request and the record of the delivery.
async fn tell(work: &mut Work, known: &Authentic, report: &Report) -> Result<Answer, AgentError> {
    let Authentic { webhook, digest, now_ms, .. } = known;
    let since_ms = now_ms.saturating_sub(KEPT_MS);
    let before = webhook_delivery::outcome(work, webhook.id, digest, since_ms).await?;
    if before.is_some_and(Outcome::is_final) {
        let detail = "the same delivery was taken before".to_owned();
        return Ok(Answer { took: Took::Repeat, detail, agents: 0 });
    }
    let handed = route::hand_on(work, webhook, report).await?;
    let (outcome, detail) = match (&report.told, handed.withheld) {
        (None, _) if report.pull.is_none() && report.push.is_none() => (Outcome::Dropped, report.silence),
        (None, _) => (Outcome::Accepted, report.silence),
        (Some(_), true) => (Outcome::Withheld, "its author is on no list"),
        (Some(_), false) => (Outcome::Accepted, ""),
    };
    webhook_delivery::put(work, webhook.id, &known.row(outcome, detail, handed.agents)).await?;
    webhook_delivery::forget(work, since_ms).await?;
    Ok(Answer { took: Took::New(outcome), detail: detail.to_owned(), agents: handed.agents })
}

/// Writes down a delivery that says nothing to anybody.
async fn settle(work: &mut Work, known: &Authentic, outcome: Outcome, detail: &str) -> Result<Answer, DbError> {
    let before = webhook_delivery::outcome(work, known.webhook.id, &known.digest, 0).await?;
    if !before.is_some_and(Outcome::is_final) {
        webhook_delivery::put(work, known.webhook.id, &known.row(outcome, detail, 0)).await?;
    }
    Ok(Answer { took: Took::New(outcome), detail: detail.to_owned(), agents: 0 })
}

impl Authentic {
    fn row(&self, outcome: Outcome, detail: &str, agents: u64) -> Delivery {
        Delivery {
            digest: self.digest,
            delivery: label(&self.delivery),
            event: label(&self.event),
            outcome,
            detail: detail.to_owned(),
            agents,
            received_ms: self.now_ms,
        }
    }
}

/// What a stranger named, as it can be shown on one line.
fn label(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(LABEL_CHARS_MAX).collect()
}
