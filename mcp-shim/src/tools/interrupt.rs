//! `interrupt`: stop the present turn and go on with what is queued.

use murmur_proto::v1::InterruptAgentRequest;
use rmcp::model::ToolAnnotations;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Call, Murmur};
use crate::errors::Failure;

pub(super) struct Interrupt;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Args {
    /// The agent.
    #[schemars(length(min = 1))]
    slug: String,
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
    /// False when the turn ended by itself first.
    interrupted: bool,
}

impl Murmur for Interrupt {
    const NAME: &'static str = "interrupt";
    const TITLE: &'static str = "Stop a turn";
    const DESCRIPTION: &'static str = "Stop the turn that an agent is working on, cleanly. It lives on and takes what is queued next. To \
        correct its course, `queue_add` what it shall do instead and then interrupt it.";
    type Args = Args;
    type Answer = Answer;

    fn annotations() -> ToolAnnotations {
        ToolAnnotations::new().read_only(false).destructive(true).idempotent(true).open_world(false)
    }

    async fn run(args: Args, call: &Call) -> Result<Answer, Failure> {
        let slug = call.slug(Some(args.slug), args.workspace.as_deref()).await?;
        let control = call.control().await?;
        let once = |idempotency_key| {
            let mut agents = control.agents.clone();
            let request = InterruptAgentRequest { slug: slug.clone(), idempotency_key };
            async move { agents.interrupt_agent(request).await }
        };
        let interrupted = call.write(args.idempotency_key, once).await?.interrupted;
        Ok(Answer { interrupted })
    }
}
