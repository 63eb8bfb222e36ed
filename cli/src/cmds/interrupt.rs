//! `interrupt SLUG`: stops an agent's present turn; what is queued comes next.

use murmur_proto::v1::InterruptAgentRequest;
use serde_json::json;

use crate::{
    args::{self, Caller},
    connect::Target,
    output::{Outcome, Output},
    text::clean_line,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The agent
    slug: String,
    #[command(flatten)]
    caller: Caller,
    /// Your own key: a repeat with it answers as the first did
    #[arg(long, value_name = "KEY", value_parser = args::key)]
    idempotency_key: Option<String>,
}

pub(crate) async fn run(target: &Target, args: Args, output: Output) -> Outcome {
    let Args { slug, caller, idempotency_key } = args;
    let idempotency_key = idempotency_key.unwrap_or_default();
    let request = InterruptAgentRequest { slug: slug.clone(), idempotency_key };
    let answer = target.control_as(&caller).await?.agents.interrupt_agent(request).await?.into_inner();
    output.show(&json!({"interrupted": answer.interrupted}), || {
        let slug = clean_line(&slug);
        if answer.interrupted { format!("interrupted {slug}") } else { format!("the turn of {slug} had just ended") }
    })
}
