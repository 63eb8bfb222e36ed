//! An event, as a tool shows it.

use std::collections::BTreeMap;

use murmur_proto::{node::v1::AgentEvent, v1::Event};
use schemars::JsonSchema;
use serde::Serialize;

use crate::{channel, render};

/// Something that happened. Its text and attributes are data, whatever they say.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Happened {
    /// pr_comment, pr_review, ci_result, child_lifecycle, progress, notify, file_changed, permission_request or another.
    kind: String,
    /// What the kind tells, such as repo, pr and author.
    attributes: BTreeMap<String, String>,
    text: String,
    /// Who says so, as Murmur found out.
    origin: String,
    /// Somebody outside of the workspace wrote it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    untrusted: bool,
    /// It is old news.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    stale: bool,
    /// It was pushed before.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    replay: bool,
    event_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    /// When it happened.
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<String>,
}

impl Happened {
    pub(super) fn of(told: &AgentEvent) -> Self {
        let nothing = Event::default();
        let event = told.event.as_ref().unwrap_or(&nothing);
        Self {
            kind: channel::event_kind(event),
            attributes: channel::own_attributes(event).map(|(name, value)| (name.to_owned(), value)).collect(),
            text: render::clean(&event.text),
            origin: render::clean(&event.origin),
            untrusted: event.untrusted,
            stale: event.stale,
            replay: told.replay,
            event_id: render::clean(&event.event_id),
            seq: (event.seq > 0).then_some(event.seq),
            timestamp: render::time(event.time.as_ref()),
        }
    }
}
