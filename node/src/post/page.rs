//! Open deliveries a page at a time: however many wait in a lane, the driver knows the first few of them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use murmur_core::{id::MessageId, outbox::Event};

use super::{
    Post,
    driver::{Lane, Looked, Work},
    transition::{self, Key, Stepped},
};
use crate::store::{StoreError, Tx, delivery};

/// Deliveries of a lane that the driver knows at most, before further ones are left in the store.
pub(super) const KNOWN_MAX: usize = 2_048;
/// With fewer than this the next page is read.
pub(super) const LOW: usize = 256;
/// Deliveries of one page.
const PAGE: u32 = 1_024;
/// Deliveries stepped in one transaction.
const BATCH: usize = 256;
/// Overdue deliveries found by one look.
const OVERDUE: u32 = 4_096;
/// When a read that failed is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// A delivery's place in its lane.
pub(super) type Position = (u64, MessageId);
/// Before every place.
pub(super) const START: Position = (0, MessageId::from_bytes([0; 16]));

/// Behind this place comes another one, and what is between is as good as nothing.
pub(super) const fn before((sequence, _): Position) -> Position {
    (sequence.saturating_sub(1), MessageId::from_bytes([0xff; 16]))
}

/// Some of a lane, in order.
pub(super) struct Page {
    pub(super) lane: Lane,
    /// Each as after a restart, those included that have ended with it.
    pub(super) steps: Vec<Stepped>,
    /// How far it goes.
    pub(super) end: Position,
    /// Nothing was behind it when it was read.
    pub(super) is_last: bool,
}

/// What is in the store of a lane and not known to the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Rest {
    /// Nothing.
    #[default]
    None,
    /// Everything behind this place.
    Behind(Position),
    /// The page behind this place is being read.
    Reading {
        behind: Position,
        /// The first of what came since and was left to the store.
        left: Option<Position>,
    },
}

/// Every lane in which something is open.
pub(super) async fn lanes(post: &Post) -> Result<Vec<Lane>, StoreError> {
    let lanes = post.store.read(delivery::open_lanes).await?;
    Ok(lanes.into_iter().map(|(sender, recipient)| Lane { sender, recipient }).collect())
}

/// Reads the page behind a place and takes its deliveries up.
pub(super) async fn read(post: &Post, lane: Lane, behind: Position) -> Result<Page, StoreError> {
    let Lane { sender, recipient } = lane;
    let rows = post.store.read(move |tx| delivery::open_behind(tx, sender, recipient, behind, PAGE)).await?;
    let (end, is_last) = (rows.last().copied().unwrap_or(behind), rows.len() < PAGE as usize);
    let keys: Vec<Key> = rows.into_iter().map(|(_, msg_id)| Key { msg_id, recipient }).collect();
    Ok(Page { lane, steps: step_all(post, keys, Event::Restarted).await?, end, is_last })
}

/// Reads the page behind a place for the driver, however long it takes.
pub(super) async fn fetch(post: Arc<Post>, lane: Lane, behind: Position) {
    loop {
        match read(&post, lane, behind).await {
            Ok(page) => {
                let _ = post.work.send(Work::Page(page));
                return;
            }
            Err(StoreError::Closed) => return,
            Err(error) => {
                let Lane { sender, recipient } = lane;
                tracing::warn!(%error, %sender, %recipient, "waiting messages could not be read");
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

/// Ends what is overdue and not known to the driver, and says when the next delivery expires.
pub(super) async fn expire(post: Arc<Post>) {
    let began = Instant::now();
    let next = async {
        loop {
            let now_ms = post.clock.now_ms();
            let overdue = post.store.read(move |tx| delivery::overdue(tx, now_ms, OVERDUE)).await?;
            let was_last = overdue.len() < OVERDUE as usize;
            let keys = overdue.into_iter().map(|(msg_id, recipient)| Key { msg_id, recipient }).collect();
            for stepped in step_all(&post, keys, Event::Tick).await? {
                let _ = post.work.send(Work::Stepped(stepped));
            }
            if was_last {
                return post.store.read(delivery::earliest_expiry).await;
            }
        }
    };
    let next_ms = next.await.unwrap_or_else(|error: StoreError| {
        tracing::warn!(%error, "overdue messages could not be ended");
        Some(post.clock.now_ms())
    });
    let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let _ = post.work.send(Work::Expired(Looked { next_ms, took_ms }));
}

/// Steps deliveries and tells who waits for them, of each batch as soon as it is committed.
async fn step_all(post: &Post, keys: Vec<Key>, event: Event) -> Result<Vec<Stepped>, StoreError> {
    let mut steps = Vec::with_capacity(keys.len());
    for batch in keys.chunks(BATCH) {
        let (batch, now_ms, config) = (batch.to_vec(), post.clock.now_ms(), post.config.outbox.clone());
        let step_batch = move |tx: Tx<'_>| -> Result<Vec<Stepped>, StoreError> {
            let step = |key| transition::step(tx, key, event, now_ms, &config).transpose();
            batch.into_iter().filter_map(step).collect()
        };
        let stepped = post.store.write(step_batch).await?;
        stepped.iter().for_each(|stepped| post.tell(stepped));
        steps.extend(stepped);
    }
    Ok(steps)
}
