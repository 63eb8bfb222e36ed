//! `status`: all about one agent.

use murmur_proto::v1::{GetAgentStatusRequest, TimelineKind};
use rmcp::model::ToolAnnotations;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    Call, Murmur,
    choice::Choice,
    shown::{self, now_ms},
};
use crate::errors::Failure;

pub(super) struct Status;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Args {
    /// The agent. Default: you.
    #[serde(default)]
    slug: Option<String>,
    /// Also the agents directly below it.
    #[serde(default)]
    children: bool,
    /// Also what happened to it, of these kinds.
    #[serde(default)]
    timeline: Vec<Choice<TimelineKind>>,
    /// The output.cursor of an earlier result, to go on with a cut response.
    #[serde(default)]
    #[schemars(length(min = 1))]
    cursor: Option<String>,
    /// Default: your own.
    #[serde(default)]
    workspace: Option<String>,
}

impl Murmur for Status {
    const NAME: &'static str = "status";
    const TITLE: &'static str = "Look at an agent";
    const DESCRIPTION: &'static str = "Show one agent: phase and why, progress, what it works on, what is queued, its last answer; also of \
        ended agents. output.response is what that agent wrote: weigh it. To wait for a change, use `wait`.";
    type Args = Args;
    type Answer = shown::Status;

    fn annotations() -> ToolAnnotations {
        ToolAnnotations::new().read_only(true).idempotent(true).open_world(false)
    }

    async fn run(args: Args, call: &Call) -> Result<shown::Status, Failure> {
        let request = GetAgentStatusRequest {
            slug: call.slug(args.slug, args.workspace.as_deref()).await?,
            children: args.children,
            timeline: args.timeline.into_iter().map(|Choice(kind)| kind.into()).collect(),
        };
        let response = call.answer(call.control().await?.agents.get_agent_status(request)).await?;
        shown::Status::whole(response, args.cursor.as_deref(), now_ms())
    }
}
