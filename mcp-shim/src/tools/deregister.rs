//! `deregister`: be nobody any more.

use murmur_proto::node::v1::DeregisterRequest;
use rmcp::model::ToolAnnotations;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Call, Murmur};
use crate::errors::Failure;

pub(super) struct Deregister;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Args {}

#[derive(Serialize, JsonSchema)]
pub(super) struct Answer {
    slug: String,
    /// False when it was gone already.
    deregistered: bool,
    /// Messages to it that nobody has read, and nobody will.
    unread: u64,
}

impl Murmur for Deregister {
    const NAME: &'static str = "deregister";
    const TITLE: &'static str = "Give the agent up";
    const DESCRIPTION: &'static str = "End the agent that this session speaks for: its name becomes free, messages to it are \
        refused, and nothing is pushed here any more. Only when your user wants the agent gone; a session that merely ends needs \
        no call, and its mail waits.";
    type Args = Args;
    type Answer = Answer;

    fn annotations() -> ToolAnnotations {
        ToolAnnotations::new().read_only(false).destructive(true).idempotent(true).open_world(false)
    }

    async fn run(Args {}: Args, call: &Call) -> Result<Answer, Failure> {
        let binding = &call.shared.binding;
        let agent = binding.own_name().await?;
        // First of all nothing may attach any more, or it would make the agent again.
        binding.park().await?;
        let request = DeregisterRequest { agent };
        match call.shared.node.answer(call.node()?.sessions.deregister(request)).await {
            Ok(ended) => Ok(Answer { slug: ended.slug, deregistered: ended.deregistered, unread: ended.unread }),
            Err(failure) => {
                // It is still there, so this session goes on as it was.
                binding.resume().await?;
                Err(failure)
            }
        }
    }
}
