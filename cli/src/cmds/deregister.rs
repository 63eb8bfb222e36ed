//! `deregister`: ends an agent.

use clap::builder::NonEmptyStringValueParser;
use murmur_proto::node::v1::{DeregisterRequest, DeregisterResponse};
use serde_json::json;

use super::register::named;
use crate::{
    args::Speaker,
    connect::Target,
    output::{Outcome, Output},
    text,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Name or path under your account [default: --agent, else `me`]
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    name: Option<String>,
    #[command(flatten)]
    speaker: Speaker,
}

pub(crate) async fn run(target: &Target, args: Args, output: Output) -> Outcome {
    let Args { name, speaker } = args;
    let request = DeregisterRequest { agent: named(name, &speaker)? };
    let answer = target.node_as(&speaker).await?.sessions.deregister(request).await?.into_inner();
    let DeregisterResponse { slug, deregistered, unread } = &answer;
    output.show(&json!({"slug": slug, "deregistered": deregistered, "unread": unread}), || {
        let done = if *deregistered { "deregistered" } else { "was not registered" };
        let lost = match unread {
            0 => String::new(),
            1 => "; 1 message to it stays unread".to_owned(),
            count => format!("; {count} messages to it stay unread"),
        };
        format!("{done}: {}{lost}", text::clean_line(slug))
    })
}
