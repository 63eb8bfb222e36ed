//! `request TO TEXT`, with `--file` about a file: the reply goes to stdout; no reply in time is exit code 6, and the request's id is kept for later.
//!
//! A node that restarts meanwhile is waited for: what it had accepted is waited for by its id, and what it may not have accepted is
//! asked again under the same key, so that it is asked once.

use std::time::{Duration, Instant};

use murmur_core::{limits::TTL_SECONDS_MAX, reason::Reason};
use murmur_proto::{
    client::NodeClient,
    node::v1::{AwaitReplyRequest, RequestAccepted, RequestOutcome, RequestRequest, request_response::Item},
};
use serde_json::json;

use super::{
    body,
    files::file_json,
    once,
    send_file::{FILE_OPTIONS, FileArgs},
};
use crate::{
    args::{self, Speaker},
    comeback::Comeback,
    connect::Target,
    duration,
    exit::Exit,
    failure::{Failure, OwnReason},
    output::{Outcome, Output},
    text, view,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Slug of the recipient
    to: String,
    /// The text; `-` or nothing reads stdin
    text: Option<String>,
    #[command(flatten)]
    speaker: Speaker,
    #[command(flatten)]
    file: FileArgs,
    /// How long to wait for the reply, at most 7d
    #[arg(long, value_parser = duration::parse, default_value = "5m", value_name = "TIME")]
    timeout: Duration,
    /// Your own key: a repeat with the same key and text asks nothing new
    #[arg(long, value_name = "KEY", value_parser = args::key)]
    idempotency_key: Option<String>,
}

pub(crate) async fn run(target: &Target, args: Args, output: Output) -> Outcome {
    let Args { to, text, speaker, file, timeout, idempotency_key } = args;
    let request = RequestRequest {
        agent: speaker.agent.clone(),
        to,
        body: if file.file.is_some() { body::text_if_given(text)? } else { body::message(text)? }.into(),
        content_type: String::new(),
        timeout_ms: timeout_ms(timeout)?,
        idempotency_key: once::key(idempotency_key)?,
        file: file.file.as_deref().map(|path| file.attachment(path)).transpose()?,
    };
    let asked = Asked { target, speaker: &speaker, request: &request, timeout };
    let mut accepted = None;
    let answer = tokio::select! {
        answer = asked.answer(&mut accepted) => Some(answer),
        _ = tokio::signal::ctrl_c() => None,
    };
    let done = match answer {
        Some(Ok(outcome)) => asked.finish(&accepted.clone().unwrap_or_default(), &outcome, output),
        Some(Err(failure)) => Err(failure.with_options(&FILE_OPTIONS)),
        None => Err(asked.interrupted(accepted.as_ref())),
    };
    done.map_err(|failure| match &accepted {
        Some(accepted) => failure.about(&accepted.msg_id),
        None => failure,
    })
}

fn timeout_ms(timeout: Duration) -> Result<u64, Failure> {
    let is_possible = timeout <= Duration::from_secs(TTL_SECONDS_MAX.into());
    let timeout_ms = u64::try_from(timeout.as_millis()).ok().filter(|_| is_possible);
    timeout_ms.ok_or_else(|| Failure::field("--timeout", "must be at most 7d"))
}

/// A question, and how long an answer is waited for.
struct Asked<'a> {
    target: &'a Target,
    speaker: &'a Speaker,
    request: &'a RequestRequest,
    timeout: Duration,
}

impl Asked<'_> {
    /// Asks and waits, over the node's restarts; `accepted` is known from when the node has taken the question.
    async fn answer(&self, accepted: &mut Option<RequestAccepted>) -> Result<RequestOutcome, Failure> {
        let Self { target, speaker, request, timeout } = self;
        // Whoever is not there to begin with is no reason to wait.
        let mut node = target.node_as(speaker).await?;
        let (until, mut comeback) = (Instant::now() + *timeout, Comeback::new());
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let failure = match attempt(&mut node, request, accepted, left).await {
                Ok(outcome) => return Ok(outcome),
                Err(failure) => failure,
            };
            let reopened = comeback.reopen(failure, async || target.node_as(speaker).await);
            node = match tokio::time::timeout_at(until.into(), reopened).await {
                Ok(node) => node?,
                Err(_) => return Err(self.lost(accepted.as_ref())),
            };
        }
    }

    /// Where a reply arrives for whoever does not wait.
    fn inbox(&self) -> String {
        format!("`murmurctl inbox{}`", self.speaker.options())
    }

    /// The node went away, and was not back when the time was over.
    fn lost(&self, accepted: Option<&RequestAccepted>) -> Failure {
        let Some(accepted) = accepted else {
            return Failure::new(
                Exit::Unavailable,
                "the node went away before it answered whether it took the request",
            )
            .reason(Reason::NodeDown)
            .remedy(self.repeat());
        };
        Failure::new(Exit::Unavailable, format!("the node went away with request {}", accepted.msg_id))
            .reason(Reason::NodeDown)
            .remedy(format!("It is on the node's disk; a reply arrives in {}.", self.inbox()))
    }

    /// A person does not wait any longer.
    fn interrupted(&self, accepted: Option<&RequestAccepted>) -> Failure {
        let failure = |what: String| Failure::new(Exit::Interrupted, what).own_reason(OwnReason::Interrupted);
        match accepted {
            Some(accepted) => failure(format!("interrupted; request {} goes on its way", accepted.msg_id))
                .remedy(format!("A reply arrives in {}.", self.inbox())),
            None => failure("interrupted before the node answered whether it took the request".to_owned())
                .remedy(self.repeat()),
        }
    }

    fn repeat(&self) -> String {
        format!("Repeat it with --idempotency-key {}: then it is asked once.", self.request.idempotency_key)
    }

    fn finish(&self, accepted: &RequestAccepted, outcome: &RequestOutcome, output: Output) -> Outcome {
        let RequestAccepted { msg_id, to, .. } = accepted;
        let to = text::clean_line(to);
        if let Some(reply) = &outcome.reply {
            let value = json!({
                "msg_id": msg_id,
                "to": accepted.to,
                "file": accepted.file.as_ref().map(file_json),
                "delivery": view::state(outcome.delivery()),
                "reply": view::message_json(reply),
                "unread": outcome.unread,
            });
            return output.show(&value, || view::body_text(reply));
        }
        let state = view::state(outcome.delivery());
        if outcome.timed_out {
            let timeout = duration::show(self.timeout);
            let what = format!("{to} did not reply within {timeout} (request {msg_id} is {state})");
            return Err(Failure::new(Exit::Timeout, what)
                .reason(Reason::RequestTimedOut)
                .remedy(format!("A late reply still arrives in {}.", self.inbox())));
        }
        let why = view::some(&outcome.failure).unwrap_or("no reason given");
        let exit = if why == Reason::PolicyDenied.as_str() { Exit::Refused } else { Exit::Failed };
        Err(Failure::new(exit, format!("request {msg_id} to {to} is {state}: {why}"))
            .remedy(format!("`murmurctl message {msg_id}{}` tells more.", self.speaker.options())))
    }
}

/// Asks, or waits for the reply to what was asked.
async fn attempt(
    node: &mut NodeClient,
    request: &RequestRequest,
    accepted: &mut Option<RequestAccepted>,
    left: Duration,
) -> Result<RequestOutcome, Failure> {
    let ended = || Failure::new(Exit::Unavailable, "the node ended the call before the reply came");
    if let Some(accepted) = accepted {
        let timeout_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1);
        let (agent, msg_id) = (request.agent.clone(), accepted.msg_id.clone());
        let again = AwaitReplyRequest { agent, msg_id, timeout_ms };
        let answer = node.messages.await_reply(again).await?.into_inner().message().await?;
        return answer.and_then(|answer| answer.outcome).ok_or_else(ended);
    }
    let mut items = node.messages.request(request.clone()).await?.into_inner();
    while let Some(response) = items.message().await? {
        match response.item {
            Some(Item::Accepted(item)) => *accepted = Some(item),
            Some(Item::Outcome(outcome)) => return Ok(outcome),
            // From a newer node; the outcome is what counts.
            None => {}
        }
    }
    Err(ended())
}
