//! Agents that have moved to another node: what nobody has read here goes back to its senders, which send it after them
//! (PROTOCOL §4.5, AGENT_MOVED).
//!
//! The agent's keys stay, so that it can say so, and so that what it sent from here is still delivered and acknowledged. A message with
//! a file stays readable here as well: its sender sends the file again only if it still has it.

use std::sync::Arc;

use murmur_core::{code::Code, id::AgentId};

use super::{Post, inbox::receipt_of};
use crate::store::{
    StoreError, Tx,
    ack::{self, AckRow, STATUS_FAILED},
    agents, inbox, stream,
    transfer::TransferState,
};

/// Messages given back in one transaction.
const BATCH: u32 = 256;

/// Gives back what is unread of every agent that the directory has on another node.
pub(super) async fn give_back(post: Arc<Post>) {
    let given = async {
        let unread = post.store.read(agents::with_unread).await?;
        let snapshot = post.directory.snapshot();
        for agent in unread.into_iter().filter(|agent| snapshot.lives_elsewhere(*agent)) {
            give_back_of(&post, agent).await?;
        }
        Ok::<_, StoreError>(())
    };
    if let Err(error) = given.await {
        tracing::warn!(%error, "unread messages of agents that moved are not given back before the next start");
    }
}

/// The same of one agent.
pub(super) async fn give_back_to_senders(post: Arc<Post>, agent: AgentId) {
    if let Err(error) = give_back_of(&post, agent).await {
        tracing::warn!(%error, agent.id = %agent, "unread messages of an agent that moved are not given back before the next start");
    }
}

async fn give_back_of(post: &Post, agent: AgentId) -> Result<(), StoreError> {
    give_back_files(post, agent).await?;
    loop {
        let now_ms = post.clock.now_ms();
        let rows = post.store.write(move |tx| take(tx, agent, now_ms)).await?;
        if rows.is_empty() {
            return Ok(());
        }
        tracing::info!(agent.id = %agent, messages = rows.len(), "an agent has moved: what it did not read here goes back");
        post.acknowledge(rows);
    }
}

async fn give_back_files(post: &Post, agent: AgentId) -> Result<(), StoreError> {
    loop {
        let now_ms = post.clock.now_ms();
        let take = move |tx: Tx<'_>| {
            let mut given = Vec::new();
            for (read, stream_id) in inbox::give_back_files(tx, agent, BATCH)? {
                given.push((refusals(tx, agent, read, now_ms)?, stream::incoming(tx, stream_id)?));
            }
            Ok::<_, StoreError>(given)
        };
        let given = post.store.write(take).await?;
        if given.is_empty() {
            return Ok(());
        }
        tracing::info!(agent.id = %agent, messages = given.len(), "an agent has moved: files that it did not read here go back");
        for (rows, file) in given {
            if let Some(file) = file.filter(|file| file.state.is_open()) {
                // Its sender goes on at the other node, and hears nothing of this end.
                post.end_incoming(&file, TransferState::Failed, Code::AgentMoved, true).await?;
            }
            post.acknowledge(rows);
        }
    }
}

/// Takes some unread messages out of an inbox, and refuses them for the place where they are.
fn take(tx: Tx<'_>, agent: AgentId, now_ms: u64) -> Result<Vec<AckRow>, StoreError> {
    let mut rows = Vec::new();
    for read in inbox::give_back(tx, agent, now_ms, BATCH)? {
        rows.extend(refusals(tx, agent, read, now_ms)?);
    }
    Ok(rows)
}

/// Takes back what was said of a message.
fn refusals(tx: Tx<'_>, agent: AgentId, read: inbox::ReadRow, now_ms: u64) -> Result<Vec<AckRow>, StoreError> {
    let refusal = AckRow { status: STATUS_FAILED, code: Code::AgentMoved.number(), ..receipt_of(agent, read) };
    let mut rows = ack::under_every_name(tx, refusal)?;
    for row in &mut rows {
        row.id = ack::insert(tx, row, now_ms)?;
    }
    Ok(rows)
}
