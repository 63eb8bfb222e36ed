//! `clear_queue`: drop what no turn has taken yet.

use murmur_proto::v1::ClearQueueRequest;
use rmcp::model::ToolAnnotations;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Call, Murmur};
use crate::errors::Failure;

pub(super) struct ClearQueue;

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
    /// How many entries were dropped.
    cleared: u32,
}

impl Murmur for ClearQueue {
    const NAME: &'static str = "clear_queue";
    const TITLE: &'static str = "Drop queued work";
    const DESCRIPTION: &'static str =
        "Drop the work that waits for an agent's next turn. The present turn is untouched.";
    type Args = Args;
    type Answer = Answer;

    fn annotations() -> ToolAnnotations {
        ToolAnnotations::new().read_only(false).destructive(true).idempotent(true).open_world(false)
    }

    async fn run(args: Args, call: &Call) -> Result<Answer, Failure> {
        let request = ClearQueueRequest { slug: call.slug(args.slug, args.workspace.as_deref()).await? };
        let cleared = call.answer(call.control().await?.queue.clear_queue(request)).await?.cleared;
        Ok(Answer { cleared })
    }
}
