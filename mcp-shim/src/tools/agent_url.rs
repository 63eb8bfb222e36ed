//! `agent_url`: a page about an agent, for people.

use murmur_proto::v1::CreateAgentLinkRequest;
use rmcp::model::ToolAnnotations;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Call, Murmur};
use crate::{errors::Failure, render};

pub(super) struct AgentUrl;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Args {
    /// The agent. Default: you.
    #[serde(default)]
    slug: Option<String>,
    /// Default: your own.
    #[serde(default)]
    workspace: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Answer {
    /// Whoever has it sees the page.
    url: String,
    slug: String,
    /// The link ends then.
    expires_at: String,
}

impl Murmur for AgentUrl {
    const NAME: &'static str = "agent_url";
    const TITLE: &'static str = "Page about an agent";
    const DESCRIPTION: &'static str = "Make a link to a web page that shows a person how an agent is doing: phase, progress, checklist, \
        queue, cost, pull requests, what happened. Anybody with the link sees it, for a day. To look yourself, use `status`.";
    type Args = Args;
    type Answer = Answer;

    fn annotations() -> ToolAnnotations {
        ToolAnnotations::new().read_only(false).destructive(false).idempotent(false).open_world(false)
    }

    async fn run(args: Args, call: &Call) -> Result<Answer, Failure> {
        let slug = call.slug(args.slug, args.workspace.as_deref()).await?;
        let mut agents = call.control().await?.agents;
        let made = call.answer(agents.create_agent_link(CreateAgentLinkRequest { slug })).await?;
        let expires_at = render::time(made.expire_time.as_ref()).unwrap_or_default();
        Ok(Answer { url: made.url, slug: made.slug, expires_at })
    }
}
