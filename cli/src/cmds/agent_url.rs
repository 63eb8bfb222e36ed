//! `agent-url [SLUG]`: a page about an agent, for people.

use murmur_proto::v1::CreateAgentLinkRequest;
use serde_json::json;

use crate::{
    args::Caller,
    connect::Target,
    output::{Outcome, Output},
    text::clean_line,
    time,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The agent [default: the calling one]
    #[arg(default_value = "", hide_default_value = true)]
    slug: String,
    #[command(flatten)]
    caller: Caller,
}

pub(crate) async fn run(target: &Target, args: Args, output: Output) -> Outcome {
    let Args { slug, caller } = args;
    let mut agents = target.control_as(&caller).await?.agents;
    let made = agents.create_agent_link(CreateAgentLinkRequest { slug }).await?.into_inner();
    let value = json!({
        "url": made.url,
        "slug": made.slug,
        "expires_at": time::rfc3339(made.expire_time.as_ref()),
    });
    output.show(&value, || {
        let until = time::ahead(made.expire_time.as_ref());
        format!("{}\nanybody with the link sees {}; it ends {until}", clean_line(&made.url), clean_line(&made.slug))
    })
}
