//! `notify`: words for an agent's log of events.

use murmur_proto::v1::{PublishEventRequest, publish_event_request::Target};
use rmcp::model::ToolAnnotations;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Call, Murmur};
use crate::errors::Failure;

pub(super) struct Notify;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Args {
    /// The agent: yourself, one below you, or one above you.
    #[schemars(length(min = 1))]
    slug: String,
    /// What there is to say. At most 4 KiB; longer text is cut.
    #[schemars(length(min = 1))]
    text: String,
    /// Any id of your own: a repeat with the same id is told once.
    #[serde(default)]
    #[schemars(length(min = 1, max = 128))]
    event_id: Option<String>,
    /// Default: your own.
    #[serde(default)]
    workspace: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Answer {
    /// As it stands in the log.
    event_id: String,
    /// It stood there already.
    duplicate: bool,
}

impl Murmur for Notify {
    const NAME: &'static str = "notify";
    const TITLE: &'static str = "Tell an agent that something happened";
    const DESCRIPTION: &'static str = "Put a line into an agent's log of events: your parent's, say, when you found something that it should \
        know now. It is stored when this returns; a live session is pushed it, and an agent without one gets it with its next turn. It is \
        not encrypted end to end and gets no reply: to talk to an agent, use `send` or `request`.";
    type Args = Args;
    type Answer = Answer;

    fn annotations() -> ToolAnnotations {
        ToolAnnotations::new().read_only(false).destructive(false).idempotent(false).open_world(true)
    }

    async fn run(args: Args, call: &Call) -> Result<Answer, Failure> {
        let slug = call.slug(Some(args.slug), args.workspace.as_deref()).await?;
        let request =
            PublishEventRequest { target: Some(Target::Slug(slug)), text: args.text, ..PublishEventRequest::default() };
        let control = call.control().await?;
        let once = |event_id| {
            let mut events = control.events.clone();
            let request = PublishEventRequest { event_id, ..request.clone() };
            async move { events.publish_event(request).await }
        };
        let told = call.write(args.event_id, once).await?;
        Ok(Answer { event_id: told.event_id, duplicate: told.duplicate })
    }
}
