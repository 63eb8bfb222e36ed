//! Requests that came lately: whoever answers one need not wait until it is read back.

use std::time::Duration;

use moka::sync::Cache;
use murmur_core::{
    id::{AgentId, MessageId},
    slug::Slug,
};

use super::types::{InboxMessage, MessageKind};

/// Requests that are remembered, some 200 bytes each.
const REQUESTS_MAX: u64 = 4_096;
/// For how long: much shorter than a request is kept after it was read.
const REMEMBERED: Duration = Duration::from_secs(600);

/// What an answer needs of the message that it answers.
#[derive(Debug, Clone)]
pub(super) struct Answered {
    /// Its place in the inbox.
    pub(super) cursor: u64,
    pub(super) kind: MessageKind,
    pub(super) from: Slug,
    pub(super) from_agent_id: AgentId,
}

impl From<&InboxMessage> for Answered {
    fn from(message: &InboxMessage) -> Self {
        let InboxMessage { cursor, kind, ref from, from_agent_id, .. } = *message;
        Self { cursor, kind, from: from.clone(), from_agent_id }
    }
}

/// The last requests, by who was asked.
pub(super) struct Requested(Cache<(AgentId, MessageId), Answered>);

impl Default for Requested {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(REQUESTS_MAX).time_to_live(REMEMBERED).build())
    }
}

impl Requested {
    /// Remembers a message that was committed, if it is a request.
    pub(super) fn note(&self, recipient: AgentId, message: &InboxMessage) {
        if message.kind == MessageKind::Request {
            // Should somebody else use the same id, the first one counts, as in the store.
            self.0.entry((recipient, message.msg_id)).or_insert_with(|| message.into());
        }
    }

    /// A request that came lately.
    pub(super) fn get(&self, recipient: AgentId, msg_id: MessageId) -> Option<Answered> {
        self.0.get(&(recipient, msg_id))
    }
}
