//! `request TO TEXT`: the reply goes to stdout; no reply in time is exit code 6, and the request's id is kept for later.

use std::time::Duration;

use murmur_core::reason::Reason;
use murmur_proto::node::v1::{RequestAccepted, RequestOutcome, RequestRequest, request_response::Item};
use serde_json::json;

use super::body;
use crate::{
    args::Speaker,
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
    /// How long to wait for the reply, at most 7d
    #[arg(long, value_parser = duration::parse, default_value = "5m", value_name = "TIME")]
    timeout: Duration,
    /// Your own key: a repeat with the same key and text asks nothing new
    #[arg(long, value_name = "KEY", default_value = "", hide_default_value = true)]
    idempotency_key: String,
}

pub(crate) async fn run(target: &Target, args: Args, output: Output) -> Outcome {
    let Args { to, text, speaker, timeout, idempotency_key } = args;
    let request = RequestRequest {
        agent: speaker.agent.clone(),
        to,
        body: body::read(text)?.into(),
        content_type: String::new(),
        timeout_ms: u64::try_from(timeout.as_millis()).map_err(|_| Failure::usage("--timeout is too long"))?,
        idempotency_key,
    };
    let mut items = target.node_as(&speaker).await?.messages.request(request).await?.into_inner();
    let mut accepted = None;
    while let Some(response) = items.message().await? {
        match response.item {
            Some(Item::Accepted(item)) => accepted = Some(item),
            Some(Item::Outcome(outcome)) => return finish(&accepted.unwrap_or_default(), &outcome, timeout, output),
            // From a newer node; the outcome is what counts.
            None => {}
        }
    }
    Err(Failure::new(Exit::Unavailable, "the node ended the call before the reply came")
        .remedy("The request is still on its way; a reply arrives in `murmurctl inbox`."))
}

fn finish(accepted: &RequestAccepted, outcome: &RequestOutcome, timeout: Duration, output: Output) -> Outcome {
    let RequestAccepted { msg_id, to, .. } = accepted;
    let to = text::clean_line(to);
    if let Some(reply) = &outcome.reply {
        let value = json!({
            "msg_id": msg_id,
            "to": accepted.to,
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
