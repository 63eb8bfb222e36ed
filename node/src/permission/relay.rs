//! Asking agents of other hosts: a request by message, end-to-end encrypted like any other, whose reply is the answer. The post takes the
//! reply of the agent that was asked alone, and keeps the request over restarts.

use std::sync::Arc;

use murmur_core::{id::MessageId, slug::Slug};
use tracing::{info, warn};

use super::{AnswerError, Answerer, PermissionRow, Permissions, question_text, table};
use crate::{
    post::{Draft, LocalAgent, PendingReply},
    store::StoreError,
};

impl Permissions {
    /// Asks agents of other hosts. Returns those that were asked.
    pub(super) async fn relay(self: &Arc<Self>, asker: &LocalAgent, row: &PermissionRow, far: Vec<Slug>) -> Vec<Slug> {
        let mut asked = Vec::new();
        for slug in far {
            let life_ms = row.expires_ms.saturating_sub(self.clock.now_ms()).max(1);
            let draft = Draft { to: slug.to_string(), body: question(row).into(), ..Draft::default() };
            let (sent, pending) = match self.post.request(asker, draft, life_ms).await {
                Ok(accepted) => accepted,
                // The others may answer all the same.
                Err(error) => {
                    warn!(%error, "{slug} is not asked for a permission");
                    continue;
                }
            };
            let number = row.number;
            if let Err(error) = self.store.write(move |tx| table::relayed(tx, number, sent.msg_id)).await {
                warn!(%error, "a permission request is forgotten when this node restarts");
            }
            self.await_answer(row.clone(), pending);
            asked.push(slug);
        }
        asked
    }

    /// Waits again for answers to what an earlier run of this node asked.
    pub(super) async fn resume_relays(self: &Arc<Self>) -> Result<(), StoreError> {
        let now_ms = self.clock.now_ms();
        for (row, msg_id) in self.store.read(move |tx| table::open_relays(tx, now_ms)).await? {
            match self.awaited_again(&row, msg_id, now_ms).await {
                Ok(pending) => self.await_answer(row, pending),
                Err(error) => info!(%error, "the answer to a permission request is not waited for"),
            }
        }
        Ok(())
    }

    async fn awaited_again(
        &self,
        row: &PermissionRow,
        msg_id: MessageId,
        now_ms: u64,
    ) -> Result<PendingReply, crate::post::QueryError> {
        let asker = LocalAgent { agent_id: row.agent, slug: row.slug.clone() };
        self.post.await_reply(&asker, msg_id, row.expires_ms.saturating_sub(now_ms).max(1)).await
    }

    fn await_answer(self: &Arc<Self>, row: PermissionRow, pending: PendingReply) {
        let permissions = Arc::clone(self);
        self.tasks.spawn(async move {
            let outcome = tokio::select! {
                outcome = pending.wait() => outcome,
                () = permissions.stop.cancelled() => return,
            };
            let reply = match outcome {
                Ok(outcome) => outcome.reply,
                Err(error) => return warn!(%error, "the answer to a permission request cannot be read"),
            };
            let Some(reply) = reply else { return };
            let Some(allow) = verdict(&reply.body, &row.request_id) else {
                return info!("a reply of {} to a permission request is neither allow nor deny", reply.from);
            };
            let answerer = Answerer::Agent(reply.from);
            match permissions.answer(&answerer, &[], &row.request_id, Some(&row.slug), allow).await {
                Ok(_) => {}
                Err(AnswerError::Answered { .. }) => info!("{answerer} was not the first to answer"),
                Err(error) => info!(%error, "an answer of {answerer} does not count"),
            }
        });
    }
}

/// What the agent of the other host is asked.
fn question(row: &PermissionRow) -> String {
    let PermissionRow { request_id, slug, tool_name, .. } = row;
    format!(
        "Permission request {request_id} of {slug}: it wants to use the tool {tool_name}.\n{}\n\
         Reply to this message with `allow {request_id}` or `deny {request_id}`, and nothing else.",
        question_text(row)
    )
}

/// What a reply says. The id may be left out, since the reply says which request it answers; a wrong one is no answer.
fn verdict(body: &[u8], request_id: &str) -> Option<bool> {
    let text = std::str::from_utf8(body).ok()?.to_ascii_lowercase();
    let mut words = text.split_ascii_whitespace();
    let allow = match words.next()? {
        "allow" | "yes" | "y" => true,
        "deny" | "no" | "n" => false,
        _ => return None,
    };
    match (words.next(), words.next()) {
        (None, _) => Some(allow),
        (Some(id), None) if id == request_id => Some(allow),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_an_answer_or_none() {
        for (text, says) in [
            ("allow abcde", Some(true)),
            ("  Deny ABCDE \n", Some(false)),
            ("yes", Some(true)),
            ("no abcde", Some(false)),
            ("allow", Some(true)),
            ("allow fghij", None),
            ("allow abcde, and also rm -rf", None),
            ("do not allow abcde", None),
            ("", None),
            ("\u{202e}allow", None),
        ] {
            assert_eq!(verdict(text.as_bytes(), "abcde"), says, "{text}");
        }
        assert_eq!(verdict(b"\xff", "abcde"), None);
    }
}
