//! `send TO [TEXT|-]`: a node that goes away under the call is waited for and asked again under the same key, so that it is sent once.

use std::time::{Duration, Instant};

use murmur_core::limits::TTL_SECONDS_MAX;
use murmur_proto::{
    client::NodeClient,
    node::v1::{Delivery, SendFileRequest, SendRequest, SendResponse},
};
use serde_json::json;

use super::{
    body,
    once::{self, BACK_WITHIN, Once},
    send_file::{FileArgs, SendFile},
    wait::{Wait, WaitFor},
};
use crate::{
    args::{self, Speaker},
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
    #[arg(long, value_name = "KEY", value_parser = args::key)]
    idempotency_key: Option<String>,
    /// Return only when the message got this far
    #[arg(long, value_name = "STATE")]
    wait: Option<WaitFor>,
    /// How long to wait with --wait
    #[arg(long, value_parser = duration::parse, default_value = "30s", value_name = "TIME", requires = "wait")]
    timeout: Duration,
}

pub(crate) async fn run(target: &Target, args: Args, output: Output) -> Outcome {
    let Args { to, text, speaker, file, no_wait, in_reply_to, ttl, idempotency_key, wait, timeout } = args;
    let idempotency_key = once::key(idempotency_key)?;
    if let Some(path) = &file.file {
        if wait.is_some() {
            return Err(Failure::usage("--wait is for messages without a file")
                .remedy("A file is followed until it has arrived; --no-wait leaves it to the node."));
        }
        let request = SendFileRequest {
            agent: speaker.agent.clone(),
            to,
            body: body::text_if_given(text)?.into(),
            in_reply_to,
            ttl_seconds: ttl_seconds(ttl)?,
            idempotency_key,
            ..file.request(path)?
        };
        return SendFile { target, speaker: &speaker, request, no_wait }.run(output).await;
    }
    let request = SendRequest {
        agent: speaker.agent.clone(),
        to,
        body: body::message(text)?.into(),
        content_type: String::new(),
        in_reply_to,
        ttl_seconds: ttl_seconds(ttl)?,
        idempotency_key,
    };
    // Whoever is not there to begin with is no reason to wait.
    let mut node = target.node_as(&speaker).await?;
    let until = Instant::now() + if wait.is_some() { timeout } else { BACK_WITHIN };
    let once = Once { target, speaker: &speaker, key: &request.idempotency_key, until };
    let send = async |node: &mut NodeClient| Ok(node.messages.send(request.clone()).await?.into_inner());
    let sent = once.call(&mut node, send).await?;
    let delivery = match wait {
        Some(state) => {
            let wait = Wait { target, speaker: &speaker, msg_id: &sent.msg_id, state, timeout };
            wait.until(node).await?.into_iter().next()
        }
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
