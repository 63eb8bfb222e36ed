//! `send TO [TEXT|-]`.

use std::time::Duration;

use murmur_core::limits::TTL_SECONDS_MAX;
use murmur_proto::node::v1::{Delivery, SendFileRequest, SendRequest, SendResponse};
use serde_json::json;

use super::{
    body,
    send_file::{self, FileArgs},
    wait::{self, WaitFor},
};
use crate::{
    args::Speaker,
    connect::Target,
    duration,
    failure::Failure,
    output::{Outcome, Output},
    text, view,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Slug of the recipient, such as `bob`, `./bob` or `/w/local/u/me/bob`
    to: String,
    /// The text; `-` or nothing reads stdin
    text: Option<String>,
    #[command(flatten)]
    speaker: Speaker,
    #[command(flatten)]
    file: FileArgs,
    /// Return as soon as the node has its own copy of the file, and let it travel in the background
    #[arg(long, requires = "file")]
    no_wait: bool,
    /// Id of the received message that this answers
    #[arg(long, value_name = "MSG_ID", default_value = "", hide_default_value = true)]
    in_reply_to: String,
    /// Give up on delivery after this time, at most 7d
    #[arg(long, value_parser = duration::parse, default_value = "24h", value_name = "TIME")]
    ttl: Duration,
    /// Your own key: a repeat with the same key and text sends nothing new
    #[arg(long, value_name = "KEY", default_value = "", hide_default_value = true)]
    idempotency_key: String,
    /// Return only when the message got this far
    #[arg(long, value_name = "STATE")]
    wait: Option<WaitFor>,
    /// How long to wait with --wait
    #[arg(long, value_parser = duration::parse, default_value = "30s", value_name = "TIME", requires = "wait")]
    timeout: Duration,
}

pub(crate) async fn run(target: &Target, args: Args, output: Output) -> Outcome {
    let Args { to, text, speaker, file, no_wait, in_reply_to, ttl, idempotency_key, wait, timeout } = args;
    if let Some(path) = &file.file {
        if wait.is_some() {
            return Err(Failure::usage("--wait is for messages without a file")
                .remedy("A file is followed until it has arrived; --no-wait leaves it to the node."));
        }
        let request = SendFileRequest {
            agent: speaker.agent.clone(),
            to,
            body: body::read_if_given(text)?.into(),
            in_reply_to,
            ttl_seconds: ttl_seconds(ttl)?,
            idempotency_key,
            ..file.request(path)?
        };
        return send_file::run(&mut target.node_as(&speaker).await?, request, no_wait, output).await;
    }
    let request = SendRequest {
        agent: speaker.agent.clone(),
        to,
        body: body::read(text)?.into(),
        content_type: String::new(),
        in_reply_to,
        ttl_seconds: ttl_seconds(ttl)?,
        idempotency_key,
    };
    let mut node = target.node_as(&speaker).await?;
    let sent = node.messages.send(request).await?.into_inner();
    let delivery = match wait {
        Some(wait) => wait::until(&mut node, &speaker.agent, &sent.msg_id, wait, timeout).await?.into_iter().next(),
        None => None,
    };
    show(&sent, delivery.as_ref(), output)
}

fn ttl_seconds(ttl: Duration) -> Result<u32, Failure> {
    let seconds = u32::try_from(ttl.as_secs()).ok().filter(|seconds| (1..=TTL_SECONDS_MAX).contains(seconds));
    seconds.ok_or_else(|| Failure::usage("--ttl must be from 1s to 7d"))
}

fn show(sent: &SendResponse, delivery: Option<&Delivery>, output: Output) -> Outcome {
    let SendResponse { msg_id, conversation_id, to, recipient_online, unread } = sent;
    let value = json!({
        "msg_id": msg_id,
        "conversation_id": conversation_id,
        "to": to,
        "recipient_online": recipient_online,
        "unread": unread,
        "delivery": delivery.map(view::delivery_json),
    });
    output.show(&value, || {
        let state = delivery.map_or("sent", |delivery| view::state(delivery.state()));
        let note = match (delivery, recipient_online) {
            (None, false) => "; nobody is listening there now, the message waits",
            _ => "",
        };
        format!("{state} {msg_id} to {}{note}", text::clean_line(to))
    })
}
