//! `inbox`: unread messages, or everything behind a cursor.
//!
//! They are looked at first and marked as read last, so that whatever fails in between, nothing is marked that was not shown.

use murmur_proto::node::v1::{ListInboxRequest, ListInboxResponse, MarkReadRequest};
use serde_json::{Value, json};

use crate::{
    args::Speaker,
    connect::Target,
    exit::Exit,
    failure::Failure,
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
    let agent = speaker.agent.clone();
    let mut node = target.node_as(&speaker).await?;
    let request = ListInboxRequest { agent: agent.clone(), after, limit, peek: true, all, from };
    let mut page = node.messages.list_inbox(request).await?.into_inner();
    if !peek {
        page.unread = page.unread_behind;
    }
    if !show(&page, output)? || peek || page.messages.is_empty() {
        return Ok(Exit::Ok);
    }
    let request = MarkReadRequest { agent, cursors: page.messages.iter().map(|message| message.cursor).collect() };
    node.messages.mark_read(request).await.map_err(|status| {
        let failure = Failure::from(status);
        let what = format!("what is shown could not be marked as read: {}", failure.what);
        Failure { what, ..failure }.remedy("The next `inbox` shows it again.")
    })?;
    Ok(Exit::Ok)
}

/// Whether somebody reads it.
fn show(page: &ListInboxResponse, output: Output) -> Result<bool, Failure> {
    let ListInboxResponse { messages, next_after, unread, unread_behind: _ } = page;
    let value = json!({
        "messages": messages.iter().map(view::message_json).collect::<Vec<Value>>(),
        "next_after": next_after,
        "unread": unread,
    });
    output.is_shown(&value, || {
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
