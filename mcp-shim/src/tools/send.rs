//! `send`: hand over a message and go on.

use murmur_core::{limits::BODY_BYTES_MAX, reason::Reason};
use murmur_proto::node::v1::{SendFileRequest, SendRequest};
use rmcp::model::ToolAnnotations;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Call, Murmur, Names, Unread, received::FileShown};
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
    /// The message, as text. At most 196608 bytes. May be left out when file is given.
    #[serde(default)]
    #[schemars(length(min = 1))]
    text: Option<String>,
    /// Path of a file on this host to send along: a regular file, none under which secrets are kept. It is copied at once, so
    /// that you may change or delete it afterwards.
    #[serde(default)]
    #[schemars(length(min = 1))]
    file: Option<String>,
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
    /// The file that goes along; the recipient sees it when it is whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<FileShown>,
    #[serde(skip)]
    unread: u64,
}

impl Murmur for Send {
    const NAME: &'static str = "send";
    const TITLE: &'static str = "Send a message";
    const DESCRIPTION: &'static str = "Send an end-to-end encrypted message to another agent and go on at once. Returns when the \
        message is safe on this host's disk; it is delivered when the recipient is reachable, also if that is later. To answer a \
        request, pass its msg_id as in_reply_to. If you need the answer before you can go on, use `request` instead. With file, the \
        file goes along, of any type and up to 64 MiB by default: do not paste long content into text.";
    type Args = Args;
    type Answer = Answer;
    const FIELDS: Names = &[("path", "file"), ("body", "text")];

    fn annotations() -> ToolAnnotations {
        ToolAnnotations::new().read_only(false).destructive(false).idempotent(false).open_world(true)
    }

    async fn run(args: Args, call: &Call) -> Result<Answer, Failure> {
        let text = args.text.unwrap_or_default();
        check_text(&text)?;
        if text.is_empty() && args.file.is_none() {
            return Err(Failure::argument("argument `text` is missing; it is required unless `file` is given"));
        }
        if args.to.is_none() && args.in_reply_to.is_none() {
            let happened = "argument `to` is missing; it is required unless `in_reply_to` names the message to answer";
            return Err(Failure::argument(happened));
        }
        // With a key, a call whose answer got lost can be repeated without sending twice.
        let key = args.idempotency_key.unwrap_or_else(new_key);
        if let Some(file) = &args.file {
            let request = SendFileRequest {
                agent: call.speaker().await?,
                to: args.to.unwrap_or_default(),
                path: absolute(file)?,
                body: text.into_bytes().into(),
                in_reply_to: args.in_reply_to.unwrap_or_default(),
                ttl_seconds: args.ttl_seconds,
                idempotency_key: key.clone(),
                ..SendFileRequest::default()
            };
            return send_file(call, request, &key).await;
        }
        let request = SendRequest {
            agent: call.speaker().await?,
            to: args.to.unwrap_or_default(),
            body: text.into_bytes().into(),
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
            file: None,
            unread: sent.unread,
        })
    }

    fn unread(answer: &Answer) -> Unread {
        Unread::Counted(answer.unread)
    }
}

/// The node reads the file, from wherever it runs.
pub(super) fn absolute(path: &str) -> Result<String, Failure> {
    let absolute = std::path::absolute(path).ok().and_then(|path| path.to_str().map(str::to_owned));
    absolute.ok_or_else(|| Failure::argument("argument `file` must be a path, and the working directory must exist"))
}

async fn send_file(call: &Call, request: SendFileRequest, key: &str) -> Result<Answer, Failure> {
    let (node, mut files) = (&call.shared.node, call.node()?.files);
    let sent = match node.answer_slowly(files.send_file(request.clone())).await {
        Err(failure) if failure.unreachable => node.answer_slowly(files.send_file(request)).await,
        first => first,
    };
    let sent = sent.map_err(|failure| uncertain(failure, key))?;
    Ok(Answer {
        msg_id: sent.msg_id,
        conversation_id: sent.conversation_id,
        to: sent.to,
        recipient_online: sent.recipient_online,
        status: Status::Queued,
        file: sent.file.as_ref().map(FileShown::of),
        unread: sent.unread,
    })
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
    if failure.is_uncertain() {
        failure
            .remedy
            .push_str(&format!(" Repeat it with idempotency_key=\"{key}\", so that it cannot be sent twice."));
    }
    failure
}
