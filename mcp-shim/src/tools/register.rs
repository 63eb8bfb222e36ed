//! `register`: be an agent, and have its messages pushed here.

use murmur_proto::node::v1::{RegisterRequest, RegisterResponse};
use rmcp::model::ToolAnnotations;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Call, Murmur, Names, Unread};
use crate::{
    binding::{Target, path_of},
    errors::Failure,
};

/// What the node takes of the two, in bytes.
const DESCRIPTION_BYTES_MAX: usize = 1024;
const GROUP_BYTES_MAX: usize = 63;

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
    const FIELDS: Names = &[("agent", "name"), ("move_here", "move")];

    fn annotations() -> ToolAnnotations {
        ToolAnnotations::new().read_only(false).destructive(false).idempotent(true).open_world(false)
    }

    async fn run(args: Args, call: &Call) -> Result<Answer, Failure> {
        let binding = &call.shared.binding;
        let agent = match args.name {
            Some(name) => name,
            None => binding.own_name().await?,
        };
        let (description, group) = (args.description.unwrap_or_default(), args.group.unwrap_or_default());
        check_words("description", &description, DESCRIPTION_BYTES_MAX)?;
        check_words("group", &group, GROUP_BYTES_MAX)?;
        let request = RegisterRequest { agent: agent.clone(), move_here: args.move_here, ..RegisterRequest::default() };
        let mut registered = register(call, request).await?;
        // A token speaks for its agent without naming it.
        let described = if agent.is_empty() { agent } else { path_of(&registered.slug) };
        if !binding.is_attached_as(&registered.slug) {
            let target = Target {
                agent: described.clone(),
                takeover: args.takeover,
                suffix: false,
                description: registered.description,
                group: registered.group,
            };
            binding.bind(target).await?;
        }
        // Only now: until the session is ours, the agent may be another's, who is not to be described by somebody that is refused.
        if !(description.is_empty() && group.is_empty()) {
            let request = RegisterRequest { agent: described, description, group, ..RegisterRequest::default() };
            registered = register(call, request).await?;
        }
        Ok(Answer { slug: registered.slug, agent_id: registered.agent_id, unread: registered.unread })
    }

    fn unread(answer: &Answer) -> Unread {
        Unread::Counted(answer.unread)
    }
}

async fn register(call: &Call, request: RegisterRequest) -> Result<RegisterResponse, Failure> {
    call.shared.node.answer(call.node()?.sessions.register(request)).await
}

/// Refuses what the node would refuse, before anything is done.
fn check_words(name: &str, text: &str, bytes_max: usize) -> Result<(), Failure> {
    if text.len() > bytes_max {
        return Err(Failure::argument(format!(
            "argument `{name}` must be at most {bytes_max} bytes, got {}",
            text.len()
        )));
    }
    if text.chars().any(char::is_control) {
        return Err(Failure::argument(format!("argument `{name}` must not hold control characters")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_node_would_refuse_is_refused_before_anything_is_done() {
        assert!(check_words("group", &"x".repeat(GROUP_BYTES_MAX), GROUP_BYTES_MAX).is_ok());
        for group in ["x".repeat(GROUP_BYTES_MAX + 1), "two\nlines".to_owned()] {
            assert!(check_words("group", &group, GROUP_BYTES_MAX).unwrap_err().happened.contains("`group`"));
        }
    }
}
