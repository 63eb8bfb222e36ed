//! `kill SLUG`: ends an agent and everything below it.

use murmur_proto::v1::KillAgentRequest;
use serde_json::json;

use crate::{
    args::{self, Caller},
    connect::Target,
    output::{Outcome, Output},
    text::clean_line,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The agent; everything below it ends, too
    slug: String,
    /// Why, for whoever looks at it later
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
    #[command(flatten)]
    caller: Caller,
    /// Your own key: a repeat with it answers as the first did
    #[arg(long, value_name = "KEY", value_parser = args::key)]
    idempotency_key: Option<String>,
}

pub(crate) async fn run(target: &Target, args: Args, output: Output) -> Outcome {
    let Args { slug, reason, caller, idempotency_key } = args;
    let request = KillAgentRequest { slug: slug.clone(), reason, idempotency_key: idempotency_key.unwrap_or_default() };
    let answer = target.control_as(&caller).await?.agents.kill_agent(request).await?.into_inner();
    let value = json!({"killed": answer.killed, "pending": answer.pending});
    output.show(&value, || {
        if answer.killed.is_empty() {
            return format!("{} had ended already", clean_line(&slug));
        }
        let mut lines: Vec<_> = answer.killed.iter().map(|slug| format!("killed {}", clean_line(slug))).collect();
        if answer.pending > 0 {
            let are = if answer.pending == 1 { "is" } else { "are" };
            lines.push(format!("{} of them {are} still to be stopped by their nodes", answer.pending));
        }
        lines.join("\n")
    })
}
