//! Acknowledgements that are said again, because the broker has lost its store.
//!
//! A sender publishes again what it has no receipt for. What it knows to be delivered it only waits for, and would never hear that it was
//! read, or given back, when the frame that said so was lost. Which frames were fetched before the loss nobody knows. So every message
//! that its sender may still remember is acknowledged again, as it stands: the newest first, and to no node more than the broker
//! keeps for it. To hear a receipt twice changes nothing. How far this has come is on disk, so that a restart goes on.

use std::{collections::HashMap, convert::Infallible, sync::Arc, time::Duration};

use murmur_core::{
    id::AgentId,
    limits::{ACK_ITEMS_MAX, DEDUP_RETENTION_MS},
    subject::Route,
};
use tokio_util::sync::CancellationToken;

use super::{Post, ack_out::Said, random};
use crate::store::{
    StoreError,
    ack::{self, AckRow, Mark},
};

/// Messages that are looked up at a time.
const PAGE: u32 = 2_048;
/// What full frames hold that fill the lane of a node at the broker (PROTOCOL §5.2): more cannot have been lost.
const PER_NODE_MAX: usize = 1_000 * ACK_ITEMS_MAX;

/// Waits for losses until `token` is cancelled.
pub(super) async fn run(post: Arc<Post>, token: CancellationToken) {
    if let Some(Err(error)) = token.run_until_cancelled(wait_for_losses(&post)).await {
        tracing::warn!(%error, "acknowledgements that the broker lost are not said again before the next start");
    }
}

async fn wait_for_losses(post: &Post) -> Result<Infallible, StoreError> {
    let mut losses = post.bus.store_losses();
    // One may have been found before this task began, and one of an earlier process may not be made good yet.
    let mut found = *losses.borrow_and_update() > 0;
    loop {
        let owed_ms = match found {
            true => Some(post.owe_again().await?),
            false => post.store.read(ack::owed).await?,
        };
        if let Some(owed_ms) = owed_ms {
            post.say_again(owed_ms).await?;
        }
        found = match losses.changed().await {
            Ok(()) => true,
            Err(_) => std::future::pending().await,
        };
    }
}

/// How much of what goes to a node was said.
#[derive(Default)]
struct Told {
    items: usize,
    is_full: bool,
}

impl Post {
    /// Notes that everything which has come so far is to be acknowledged again.
    async fn owe_again(&self) -> Result<u64, StoreError> {
        let now_ms = self.clock.now_ms();
        self.store.write(move |tx| ack::set_owed(tx, now_ms)).await?;
        Ok(now_ms)
    }

    /// Acknowledges again what came up to this time.
    async fn say_again(&self, owed_ms: u64) -> Result<(), StoreError> {
        let since_ms = self.clock.now_ms().saturating_sub(DEDUP_RETENTION_MS);
        let mut told: HashMap<Option<Route>, Told> = HashMap::new();
        let mut mark = None;
        loop {
            let page = self.store.read(move |tx| ack::of_inbox(tx, (since_ms, owed_ms), mark, PAGE)).await?;
            let Some((last, _)) = page.last() else { break };
            mark = Some(*last);
            let Some(newest_ms) = page.iter().map(|(mark, _)| mark.received_ms).max() else { break };
            for (pair, rows) in by_pair(page) {
                for rows in rows.chunks(ACK_ITEMS_MAX) {
                    let told = told.entry(rows.first().and_then(|row| row.route.clone())).or_default();
                    if !told.is_full && told.items < PER_NODE_MAX {
                        told.items += rows.len();
                        told.is_full = self.say_until_taken(pair, rows).await == Said::LaneFull;
                    }
                }
            }
            // Should this be lost, some of it is said once more.
            drop(self.store.queue_lazily::<_, StoreError, _>(move |tx| ack::set_owed(tx, newest_ms)));
        }
        self.store.write(ack::clear_owed).await?;
        let (items, full) = (told.values().map(|told| told.items).sum::<usize>(), told.values().filter(|t| t.is_full));
        tracing::info!(
            items,
            lanes_full = full.count(),
            "the broker had lost its store: acknowledgements are said again"
        );
        Ok(())
    }

    /// Says one frame, however long the broker is away.
    async fn say_until_taken(&self, pair: (AgentId, AgentId), rows: &[AckRow]) -> Said {
        let (mut connected, mut backoff_ms) = (self.bus.connected(), 0);
        loop {
            // The bus lives as long as the post.
            let _ = connected.wait_for(|connected| *connected).await;
            let said = self.say(pair, rows).await;
            if said != Said::Failed {
                return said;
            }
            backoff_ms = self.config.outbox.transport.next(backoff_ms, random::number());
            tokio::time::sleep(Duration::from_millis(backoff_ms)).await;
        }
    }
}

/// What each agent says to each other one, the order within kept.
fn by_pair(page: Vec<(Mark, AckRow)>) -> HashMap<(AgentId, AgentId), Vec<AckRow>> {
    let mut pairs: HashMap<_, Vec<AckRow>> = HashMap::new();
    for (_, row) in page {
        pairs.entry((row.acker, row.to_agent)).or_default().push(row);
    }
    pairs
}
