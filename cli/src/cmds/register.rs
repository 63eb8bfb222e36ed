//! `register`: makes sure that an agent exists. It gets mail from then on, whether or not somebody listens.

use clap::builder::NonEmptyStringValueParser;
use murmur_proto::node::v1::{RegisterRequest, RegisterResponse};
use serde_json::json;

use crate::{
    args::Speaker,
    connect::Target,
    failure::Failure,
    output::{Outcome, Output},
    text,
    view::some,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Name or path under your account [default: --agent, else `me`]
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    name: Option<String>,
    #[command(flatten)]
    speaker: Speaker,
    /// What others read about it
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    description: String,
    /// The group it is listed under
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    group: String,
    /// Take `name-2`, `name-3`, … when another node has the name
    #[arg(long)]
    suffix: bool,
    /// Bring it here when another node of your account has it; what nobody has read there is sent again to here
    #[arg(long = "move", conflicts_with = "suffix")]
    move_here: bool,
}

pub(crate) async fn run(target: &Target, args: Args, output: Output) -> Outcome {
    let Args { name, speaker, description, group, suffix, move_here } = args;
    let name = named(name, &speaker)?;
    let request = RegisterRequest { agent: name.clone(), description, group, suffix_when_taken: suffix, move_here };
    let answer = target.node_for(&speaker).await?.sessions.register(request).await?.into_inner();
    let RegisterResponse { slug, agent_id, created, unread, description, group } = &answer;
    let value = json!({
        "slug": slug,
        "agent_id": agent_id,
        "created": created,
        "unread": unread,
        "description": some(description),
        "group": some(group),
    });
    output.show(&value, || {
        let done = match (*created, move_here) {
            (true, _) => "registered",
            (false, true) => "registered here",
            (false, false) => "already registered",
        };
        let unread = if *unread > 0 { format!(", {unread} unread") } else { String::new() };
        let changed = if is_plain(&name) { "" } else { " (a name has only a-z, 0-9 and `-`)" };
        format!("{done}: {}{unread}{changed}", text::clean_line(slug))
    })
}

/// Whether a name is taken as it was typed.
fn is_plain(typed: &str) -> bool {
    let is_kept = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'/');
    typed.trim_start_matches("./").bytes().all(is_kept)
}

/// The name is the agent; naming two different ones is a mistake.
pub(super) fn named(name: Option<String>, speaker: &Speaker) -> Result<String, Failure> {
    match name {
        Some(name) if !speaker.agent.is_empty() && speaker.agent != name && speaker.agent_token_file.is_none() => {
            Err(Failure::usage(format!(
                "two agents are named: `{name}` and, by --agent or MURMUR_AGENT, `{}`",
                speaker.agent
            ))
            .remedy("Name one of them."))
        }
        Some(name) => Ok(name),
        None => Ok(speaker.agent.clone()),
    }
}
