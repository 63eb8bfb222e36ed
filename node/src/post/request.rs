//! Requests: a message whose sender waits for the reply (PROTOCOL §5.8).

use std::sync::Arc;

use murmur_core::{
    id::MessageId,
    limits::{REQUEST_TIMEOUT_MS_DEFAULT, TTL_SECONDS_MAX},
};
use tracing::Instrument as _;

use super::{
    Post,
    error::{QueryError, SendError},
    pending::PendingReply,
    types::{Draft, LocalAgent, Sent},
};
use crate::store::request;

impl Post {
    /// Sends a message and gives something to wait for the reply with. `timeout_ms` 0 means five minutes, counted from now.
    ///
    /// # Errors
    /// [`SendError`]; nothing was accepted then.
    pub async fn request(
        self: &Arc<Self>,
        from: &LocalAgent,
        draft: Draft,
        timeout_ms: u64,
    ) -> Result<(Sent, PendingReply), SendError> {
        let timeout_ms = checked_timeout(timeout_ms).map_err(|rule| SendError::Field { field: "timeout_ms", rule })?;
        let span = murmur_telemetry::hot_span!("post.send");
        async {
            let accepted = self.accept(from, draft, Some(timeout_ms)).await?;
            // Registered before the commit: however fast the reply is, it finds its waiter.
            let mut pending = PendingReply::new(self, from.agent_id, accepted.msg_id, timeout_ms, true);
            let sent = self.commit(from, accepted).await?;
            if sent.msg_id != pending.msg_id() {
                pending = PendingReply::new(self, from.agent_id, sent.msg_id, timeout_ms, false);
            }
            Ok((sent, pending))
        }
        .instrument(span)
        .await
    }

    /// Waits again for the reply to an earlier request.
    ///
    /// # Errors
    /// [`QueryError::RequestNotFound`] when the agent made no such request.
    pub async fn await_reply(
        self: &Arc<Self>,
        from: &LocalAgent,
        msg_id: MessageId,
        timeout_ms: u64,
    ) -> Result<PendingReply, QueryError> {
        let request = self.store.read(move |tx| request::get(tx, msg_id)).await?;
        request.filter(|request| request.requester == from.agent_id).ok_or(QueryError::RequestNotFound { msg_id })?;
        let timeout_ms = checked_timeout(timeout_ms).unwrap_or(u64::from(TTL_SECONDS_MAX) * 1000);
        Ok(PendingReply::new(self, from.agent_id, msg_id, timeout_ms, false))
    }
}

fn checked_timeout(timeout_ms: u64) -> Result<u64, String> {
    let max = u64::from(TTL_SECONDS_MAX) * 1000;
    match timeout_ms {
        0 => Ok(REQUEST_TIMEOUT_MS_DEFAULT),
        asked if asked <= max => Ok(asked),
        _ => Err(format!("must be at most {max}")),
    }
}
