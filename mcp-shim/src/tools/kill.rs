//! `kill`: end an agent and everything below it.

use murmur_proto::v1::KillAgentRequest;
use rmcp::model::ToolAnnotations;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Call, Murmur};
use crate::errors::Failure;

pub(super) struct Kill;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Args {
    /// The agent; self for yourself.
    #[schemars(length(min = 1))]
    slug: String,
    /// Why, for people.
    #[serde(default)]
    reason: Option<String>,
    /// Default: your own.
    #[serde(default)]
    workspace: Option<String>,
    /// Any key of your own: a repeat with it answers as the first did.
    #[serde(default)]
    #[schemars(length(min = 1))]
    idempotency_key: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Answer {
    /// What this call ended, leaves first; empty when all of it had ended before.
    killed: Vec<String>,
    /// How many of them are still to be stopped by their nodes.
    pending: u32,
}

impl Murmur for Kill {
    const NAME: &'static str = "kill";
    const TITLE: &'static str = "End an agent";
    const DESCRIPTION: &'static str = "End an agent and all agents below it, whatever they are doing. Nothing is born there any more \
        once this returns. Safe to repeat. To stop only the present turn, use `interrupt`.";
    type Args = Args;
    type Answer = Answer;

    fn annotations() -> ToolAnnotations {
        ToolAnnotations::new().read_only(false).destructive(true).idempotent(true).open_world(false)
    }

    async fn run(args: Args, call: &Call) -> Result<Answer, Failure> {
        let slug = call.slug(Some(args.slug), args.workspace.as_deref()).await?;
        let reason = args.reason.unwrap_or_default();
        let control = call.control().await?;
        let once = |idempotency_key| {
            let mut agents = control.agents.clone();
            let request = KillAgentRequest { slug: slug.clone(), reason: reason.clone(), idempotency_key };
            async move { agents.kill_agent(request).await }
        };
        let ended = call.write(args.idempotency_key, once).await?;
        Ok(Answer { killed: ended.killed, pending: ended.pending })
    }
}
