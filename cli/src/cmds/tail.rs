//! `tail`: follows what an agent sends and receives until interrupted.

use murmur_proto::node::v1::{TailRequest, TailResponse, tail_response::Direction};
use serde_json::{Value, json};

use crate::{
    args::Speaker,
    connect::Target,
    exit::Exit,
    failure::Failure,
    output::{self, Outcome, Output},
    text, time, view,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    speaker: Speaker,
    /// First show this many earlier messages
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1000), value_name = "N")]
    backlog: u32,
}

pub(crate) async fn run(target: &Target, args: Args, output: Output) -> Outcome {
    let Args { speaker, backlog } = args;
    let request = TailRequest { agent: speaker.agent.clone(), backlog };
    let mut items = target.node_as(&speaker).await?.messages.tail(request).await?.into_inner();
    loop {
        // Interrupting is how one ends this; it is no failure.
        let item = tokio::select! {
            item = items.message() => item?,
            _ = tokio::signal::ctrl_c() => return Ok(Exit::Ok),
        };
        let Some(item) = item else {
            return Err(
                Failure::new(Exit::Unavailable, "the node ended the call").remedy("Call again when the node is back.")
            );
        };
        show(&item, output)?;
    }
}

fn show(item: &TailResponse, output: Output) -> Outcome {
    if output.is_json() { output::line(&json_of(item).to_string()) } else { output::line(&text_of(item)) }
}

/// One message that went by, for programs.
pub(super) fn json_of(item: &TailResponse) -> Value {
    let message = item.message.clone().unwrap_or_default();
    let is_out = item.direction() == Direction::Out;
    json!({
        "direction": if is_out { "out" } else { "in" },
        "state": is_out.then(|| view::state(item.state())),
        "message": view::message_json(&message),
    })
}

/// The same for people.
pub(super) fn text_of(item: &TailResponse) -> String {
    let message = item.message.clone().unwrap_or_default();
    if item.direction() != Direction::Out {
        return view::message_text(&message);
    }
    let (when, state) = (time::rfc3339(message.created_time.as_ref()).unwrap_or_default(), view::state(item.state()));
    let head = format!("{} to {} {when} [{state}]", view::kind(&message), text::clean_line(&message.to));
    format!("{}\n{}", output::bold(&head), view::said(&message))
}
