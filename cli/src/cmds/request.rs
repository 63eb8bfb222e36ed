//! `request TO TEXT`, with `--file` about a file: the reply goes to stdout; no reply in time is exit code 6, and the request's id is kept for later.
//!
//! A node that restarts meanwhile is waited for: what it had accepted is waited for by its id, and what it may not have accepted is
//! asked again under the same key, so that it is asked once.

use std::time::{Duration, Instant};

use data_encoding::BASE32_NOPAD;
use murmur_core::reason::Reason;
use murmur_proto::{
    client::NodeClient,
    node::v1::{AwaitReplyRequest, RequestAccepted, RequestOutcome, RequestRequest, request_response::Item},
};
use serde_json::json;

use super::{body, files::file_json, send_file::FileArgs};
use crate::{
    args::Speaker,
    comeback::Comeback,
    connect::Target,
    duration,
    exit::Exit,
    failure::Failure,
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
    #[arg(long, value_name = "KEY", default_value = "", hide_default_value = true)]
    idempotency_key: String,
}

pub(crate) async fn run(target: &Target, args: Args, output: Output) -> Outcome {
    let Args { to, text, speaker, file, timeout, idempotency_key } = args;
    let request = RequestRequest {
        agent: speaker.agent.clone(),
        to,
        body: if file.file.is_some() { body::read_if_given(text)? } else { body::read(text)? }.into(),
        content_type: String::new(),
        timeout_ms: u64::try_from(timeout.as_millis()).map_err(|_| Failure::usage("--timeout is too long"))?,
        idempotency_key: if idempotency_key.is_empty() { new_key()? } else { idempotency_key },
        file: file.file.as_deref().map(|path| file.attachment(path)).transpose()?,
    };
    // Whoever is not there to begin with is no reason to wait.
    let mut node = target.node_as(&speaker).await?;
    let (until, mut comeback, mut accepted) = (Instant::now() + timeout, Comeback::new(), None);
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let failure = match attempt(&mut node, &request, &mut accepted, left).await {
            Ok(outcome) => return finish(&accepted.unwrap_or_default(), &outcome, timeout, output),
            Err(failure) => failure,
        };
        let reopened = comeback.reopen(failure, async || target.node_as(&speaker).await);
        node = match tokio::time::timeout_at(until.into(), reopened).await {
            Ok(node) => node?,
            Err(_) => return Err(lost(accepted.as_ref(), &request)),
        };
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

fn new_key() -> Result<String, Failure> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| Failure::failed(format!("no randomness: {error}")))?;
    Ok(BASE32_NOPAD.encode(&bytes))
}

/// The node went away, and was not back when the time was over.
fn lost(accepted: Option<&RequestAccepted>, request: &RequestRequest) -> Failure {
    match accepted {
        Some(accepted) => {
            Failure::new(Exit::Unavailable, format!("the node went away with request {}", accepted.msg_id))
                .remedy("It is on the node's disk; a reply arrives in `murmurctl inbox`.")
        }
        None => Failure::new(Exit::Unavailable, "the node went away before it answered whether it took the request")
            .remedy(format!("Repeat it with --idempotency-key {}: then it is asked once.", request.idempotency_key)),
    }
}

fn finish(accepted: &RequestAccepted, outcome: &RequestOutcome, timeout: Duration, output: Output) -> Outcome {
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
        let what = format!("{to} did not reply within {} (request {msg_id} is {state})", duration::show(timeout));
        let mut failure = Failure::new(Exit::Timeout, what).remedy(Reason::RequestTimedOut.hint());
        failure.reason = Some(Reason::RequestTimedOut);
        return Err(failure);
    }
    let why = view::some(&outcome.failure).unwrap_or("no reason given");
    let exit = if why == Reason::PolicyDenied.as_str() { Exit::Refused } else { Exit::Failed };
    Err(Failure::new(exit, format!("request {msg_id} to {to} is {state}: {why}"))
        .remedy(format!("`murmurctl message {msg_id}` tells more.")))
}
