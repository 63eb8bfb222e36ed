//! `inbox`: unread messages, or everything behind a cursor.

use murmur_proto::node::v1::{ListInboxRequest, ListInboxResponse};
use serde_json::{Value, json};

use crate::{
    args::Speaker,
    connect::Target,
    output::{Outcome, Output},
    view,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    speaker: Speaker,
    /// Read ones too
    #[arg(long)]
    all: bool,
    /// Leave them unread
    #[arg(long)]
    peek: bool,
    /// How many at most
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000), value_name = "N")]
    limit: u32,
    /// Only those from this agent
    #[arg(long, value_name = "SLUG", default_value = "", hide_default_value = true)]
    from: String,
    /// Only those behind this cursor, read or not
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "CURSOR")]
    after: u64,
}

pub(crate) async fn run(target: &Target, args: Args, output: Output) -> Outcome {
    let Args { speaker, all, peek, limit, from, after } = args;
    let request = ListInboxRequest { agent: speaker.agent.clone(), after, limit, peek, all, from };
    let response = target.node_as(&speaker).await?.messages.list_inbox(request).await?.into_inner();
    let ListInboxResponse { messages, next_after, unread } = &response;
    let value = json!({
        "messages": messages.iter().map(view::message_json).collect::<Vec<Value>>(),
        "next_after": next_after,
        "unread": unread,
    });
    output.show(&value, || {
        let mut parts: Vec<_> = messages.iter().map(view::message_text).collect();
        if messages.is_empty() {
            parts.push("no messages".into());
        }
        if *next_after > 0 {
            parts.push(format!("more with --after {next_after}"));
        } else if *unread > 0 {
            parts.push(format!("{unread} unread"));
        }
        parts.join("\n\n")
    })
}
