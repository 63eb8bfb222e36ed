//! `send`: hand over a message and go on.

use murmur_core::{limits::BODY_BYTES_MAX, reason::Reason};
use murmur_proto::node::v1::SendRequest;
use rmcp::model::ToolAnnotations;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Call, Murmur, Unread};
use crate::errors::Failure;

pub(super) struct Send;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Args {
    /// The recipient's slug, as `peers` shows it; a bare name finds an agent of your own account. May be left out when
    /// in_reply_to is given.
    #[serde(default)]
    #[schemars(length(min = 1))]
    to: Option<String>,
    /// The message, as text. At most 196608 bytes.
    #[schemars(length(min = 1))]
    text: String,
    /// The msg_id of the received message that this answers. Needed to answer a request.
    #[serde(default)]
    #[schemars(length(min = 1))]
    in_reply_to: Option<String>,
    /// How long it may take to arrive, in seconds, before it is given up.
    #[serde(default = "ttl_seconds")]
    #[schemars(range(min = 1, max = 604_800))]
    ttl_seconds: u32,
    /// Any key of your own, at most 128 bytes. A repeat with the same key and text is not sent twice.
    #[serde(default)]
    #[schemars(length(min = 1))]
    idempotency_key: Option<String>,
}

fn ttl_seconds() -> u32 {
    murmur_core::limits::TTL_SECONDS_DEFAULT
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Status {
    /// On this host's disk, on its way.
    Queued,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Answer {
    msg_id: String,
    conversation_id: String,
    /// Whom the slug was found to mean.
    to: String,
    /// Mail waits when it is offline.
    recipient_online: bool,
    status: Status,
    #[serde(skip)]
    unread: u64,
}

impl Murmur for Send {
    const NAME: &'static str = "send";
    const TITLE: &'static str = "Send a message";
    const DESCRIPTION: &'static str = "Send an end-to-end encrypted message to another agent and go on at once. Returns when the \
        message is safe on this host's disk; it is delivered when the recipient is reachable, also if that is later. To answer a \
        request, pass its msg_id as in_reply_to. If you need the answer before you can go on, use `request` instead.";
    type Args = Args;
    type Answer = Answer;

    fn annotations() -> ToolAnnotations {
        ToolAnnotations::new().read_only(false).destructive(false).idempotent(false).open_world(true)
    }

    async fn run(args: Args, call: &Call) -> Result<Answer, Failure> {
        check_text(&args.text)?;
        if args.to.is_none() && args.in_reply_to.is_none() {
            let happened = "argument `to` is missing; it is required unless `in_reply_to` names the message to answer";
            return Err(Failure::argument(happened));
        }
        // With a key, a call whose answer got lost can be repeated without sending twice.
        let key = args.idempotency_key.unwrap_or_else(new_key);
        let request = SendRequest {
            agent: call.speaker().await?,
            to: args.to.unwrap_or_default(),
            body: args.text.into_bytes().into(),
            content_type: String::new(),
            in_reply_to: args.in_reply_to.unwrap_or_default(),
            ttl_seconds: args.ttl_seconds,
            idempotency_key: key.clone(),
        };
        let mut messages = call.node()?.messages;
        let node = &call.shared.node;
        let sent = match node.answer(messages.send(request.clone())).await {
            Err(failure) if failure.unreachable => node.answer(messages.send(request)).await,
            first => first,
        };
        let sent = sent.map_err(|failure| uncertain(failure, &key))?;
        Ok(Answer {
            msg_id: sent.msg_id,
            conversation_id: sent.conversation_id,
            to: sent.to,
            recipient_online: sent.recipient_online,
            status: Status::Queued,
            unread: sent.unread,
        })
    }

    fn unread(answer: &Answer) -> Unread {
        Unread::Counted(answer.unread)
    }
}

/// Refuses here what the node would refuse, and what would not even reach it.
pub(super) fn check_text(text: &str) -> Result<(), Failure> {
    if text.len() <= BODY_BYTES_MAX {
        return Ok(());
    }
    Err(Failure::new(
        Reason::BodyTooLarge,
        format!("argument `text` must be at most {BODY_BYTES_MAX} bytes, got {}", text.len()),
        "Shorten it, split it into several messages, or put it where the recipient can read it and send the place.",
    ))
}

/// A key of ours, for callers without one.
pub(super) fn new_key() -> String {
    uuid::Uuid::now_v7().to_string()
}

/// Says how to repeat a call of which nobody knows whether it was taken.
pub(super) fn uncertain(mut failure: Failure, key: &str) -> Failure {
    if failure.unreachable || failure.reason == Reason::NodeDown {
        failure
            .remedy
            .push_str(&format!(" Repeat it with idempotency_key=\"{key}\", so that it cannot be sent twice."));
    }
    failure
}
