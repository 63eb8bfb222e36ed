//! `register`: be an agent, and have its messages pushed here.

use murmur_proto::node::v1::RegisterRequest;
use rmcp::model::ToolAnnotations;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Call, Murmur, Unread};
use crate::{
    binding::{Target, path_of},
    errors::Failure,
};

pub(super) struct Register;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Args {
    /// The name to be known by, such as `reviewer`; left out, the one that you have.
    #[serde(default)]
    #[schemars(length(min = 1))]
    name: Option<String>,
    /// What you do, for other agents to read. Left out, it stays.
    #[serde(default)]
    description: Option<String>,
    /// The group to be listed under. Left out, it stays.
    #[serde(default)]
    group: Option<String>,
    /// End another live session of this agent, if there is one.
    #[serde(default)]
    takeover: bool,
    /// Bring the agent here when it lives on another host of your account. What it did not read there is sent again to here. Without
    /// this, a name that another host has is refused.
    #[serde(default, rename = "move")]
    move_here: bool,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Answer {
    /// Your absolute slug.
    slug: String,
    agent_id: String,
    /// Messages that wait for you.
    unread: u64,
}

impl Murmur for Register {
    const NAME: &'static str = "register";
    const TITLE: &'static str = "Be an agent";
    const DESCRIPTION: &'static str = "Choose under which name this session sends and receives, or describe it to others. You have \
        a name already when the session starts, so call this only to change something, to take the agent over from another \
        session (takeover=true), to bring it here from another host (move=true), or after `deregister`. Safe to repeat.";
    type Args = Args;
    type Answer = Answer;

    fn annotations() -> ToolAnnotations {
        ToolAnnotations::new().read_only(false).destructive(false).idempotent(true).open_world(false)
    }

    async fn run(args: Args, call: &Call) -> Result<Answer, Failure> {
        let binding = &call.shared.binding;
        let agent = match args.name {
            Some(name) => name,
            None => binding.own_name().await?,
        };
        let request = RegisterRequest {
            agent: agent.clone(),
            description: args.description.unwrap_or_default(),
            group: args.group.unwrap_or_default(),
            suffix_when_taken: false,
            move_here: args.move_here,
        };
        let registered = call.shared.node.answer(call.node()?.sessions.register(request)).await?;
        if !binding.is_attached_as(&registered.slug) {
            let target = Target {
                // A token speaks for its agent without naming it.
                agent: if agent.is_empty() { agent } else { path_of(&registered.slug) },
                takeover: args.takeover,
                suffix: false,
                description: registered.description,
                group: registered.group,
            };
            binding.bind(target).await?;
        }
        Ok(Answer { slug: registered.slug, agent_id: registered.agent_id, unread: registered.unread })
    }

    fn unread(answer: &Answer) -> Unread {
        Unread::Counted(answer.unread)
    }
}
