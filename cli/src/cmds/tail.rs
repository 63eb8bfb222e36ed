//! `tail`: follows what an agent sends and receives until interrupted, over the node's restarts. What went by while the node was away
//! is in `inbox` and `outbox`.

use murmur_proto::node::v1::{TailRequest, TailResponse, tail_response::Direction};
use serde_json::{Value, json};
use tonic::Streaming;

use super::follow::{Source, follow};
use crate::{
    args::Speaker,
    comeback::Comeback,
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
    // Whoever is not there to begin with is no reason to wait.
    let first = open(target, &speaker, backlog).await?;
    tokio::select! {
        ended = follow(Messages { target, speaker, output }, Some(first), Comeback::new()) => ended,
        // Interrupting is how one ends this; it is no failure.
        _ = tokio::signal::ctrl_c() => Ok(Exit::Ok),
    }
}

/// Begins to follow what an agent sends and receives.
pub(super) async fn open(target: &Target, speaker: &Speaker, backlog: u32) -> Result<Streaming<TailResponse>, Failure> {
    let request = TailRequest { agent: speaker.agent.clone(), backlog };
    Ok(target.node_as(speaker).await?.messages.tail(request).await?.into_inner())
}

struct Messages<'a> {
    target: &'a Target,
    speaker: Speaker,
    output: Output,
}

impl Source for Messages<'_> {
    type Item = TailResponse;

    async fn open(&self) -> Result<Streaming<TailResponse>, Failure> {
        open(self.target, &self.speaker, 0).await
    }

    fn take(&mut self, item: TailResponse) -> Result<bool, Failure> {
        show(&item, self.output)
    }
}

/// Whether somebody still reads.
fn show(item: &TailResponse, output: Output) -> Result<bool, Failure> {
    if output.is_json() { output::is_read(&json_of(item).to_string()) } else { output::is_read(&text_of(item)) }
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
