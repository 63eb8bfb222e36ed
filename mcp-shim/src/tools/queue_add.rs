//! `queue_add`: work for an agent's next turn.

use murmur_proto::v1::AddFollowUpRequest;
use rmcp::model::ToolAnnotations;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Call, Murmur, Names};
use crate::errors::Failure;

pub(super) struct QueueAdd;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Args {
    /// The agent.
    #[schemars(length(min = 1))]
    slug: String,
    /// What it shall do. At most 64 KiB.
    #[schemars(length(min = 1))]
    description: String,
    /// Subjects of items that join its checklist.
    #[serde(default)]
    #[schemars(length(max = 100))]
    tasks: Vec<String>,
    /// Any key of your own: a repeat with the same key and content is queued once.
    #[serde(default)]
    #[schemars(length(min = 1))]
    client_msg_id: Option<String>,
    /// Default: your own.
    #[serde(default)]
    workspace: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Answer {
    /// It is stored.
    queued: bool,
    /// How many entries wait before it.
    position: u32,
}

impl Murmur for QueueAdd {
    const NAME: &'static str = "queue_add";
    const TITLE: &'static str = "Give an agent more work";
    const DESCRIPTION: &'static str = "Queue work for an agent; it takes it up after its present turn, and a sleeping one wakes for it. It is \
        stored when this returns. An ended agent is refused: `spawn` it again with resurrect=true. To talk to an agent, use `send` \
        or `request`.";
    type Args = Args;
    type Answer = Answer;
    const FIELDS: Names = &[("idempotency_key", "client_msg_id")];

    fn annotations() -> ToolAnnotations {
        ToolAnnotations::new().read_only(false).destructive(false).idempotent(false).open_world(true)
    }

    async fn run(args: Args, call: &Call) -> Result<Answer, Failure> {
        let slug = call.slug(Some(args.slug), args.workspace.as_deref()).await?;
        let request = AddFollowUpRequest {
            slug,
            description: args.description,
            tasks: args.tasks,
            idempotency_key: String::new(),
        };
        let control = call.control().await?;
        let once = |idempotency_key| {
            let mut queue = control.queue.clone();
            let request = AddFollowUpRequest { idempotency_key, ..request.clone() };
            async move { queue.add_follow_up(request).await }
        };
        let added = call.write(args.client_msg_id, once).await.map_err(name_the_key)?;
        Ok(Answer { queued: true, position: added.position })
    }
}

/// The key has another name here.
fn name_the_key(mut failure: Failure) -> Failure {
    failure.remedy = failure.remedy.replace("idempotency_key=", "client_msg_id=");
    failure
}
