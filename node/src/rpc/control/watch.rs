//! Follows the directory from where the last watch ended.

use std::time::Instant;

use futures::StreamExt as _;
use murmur_core::{reason::Reason, retry::Backoff};
use murmur_proto::v1::{self, watch_directory_response::Item};
use tracing::{info, warn};

use super::{ControlError, convert, run::Parts};
use crate::{delay::Delay, directory::Batch};

/// Between two tries while the session itself is fine.
pub(super) const BACKOFF: Backoff = Backoff { base_ms: 250, cap_ms: 10_000 };

/// Items that are taken over in one go when they are there.
const CHUNK: usize = 512;

/// Follows until the task is dropped.
pub(super) async fn follow(parts: Parts) {
    let mut delay = Delay::new(BACKOFF);
    let mut whole = false;
    loop {
        match watch(&parts, whole, &mut delay).await {
            Err(error) if error.reason() == Some(Reason::ResumeTokenStale) && !whole => {
                info!("the control plane has another database now: the directory is read anew");
                whole = true;
                continue;
            }
            Err(error) => warn!(%error, "the watch of the directory ended"),
            Ok(()) => whole = false,
        }
        parts.directory.set_live(false);
        delay.wait().await;
    }
}

async fn watch(parts: &Parts, whole: bool, delay: &mut Delay) -> Result<(), ControlError> {
    let began = Instant::now();
    let resume_token = parts.directory.snapshot().resume_token().filter(|_| !whole).unwrap_or_default().to_owned();
    let mut reader = Reader::new(resume_token.is_empty());
    let mut client = parts.control.client.directory.clone();
    let items = client.watch_directory(v1::WatchDirectoryRequest { resume_token }).await?.into_inner();
    let mut items = items.ready_chunks(CHUNK);
    while let Some(chunk) = items.next().await {
        for item in chunk {
            reader.take(item?.item);
        }
        if let Some(batch) = reader.batch() {
            parts.directory.apply(batch.clone(), parts.clock.now_ms());
            parts.directory.set_live(true);
            parts.agents.reconcile(&batch, began).await;
            delay.reset();
        }
    }
    Ok(())
}

/// Collects items until they can be taken over: a first copy as a whole, later changes as they come.
struct Reader {
    batch: Batch,
    is_synced: bool,
}

impl Reader {
    fn new(from_the_start: bool) -> Self {
        Self { batch: Batch { whole: from_the_start, ..Batch::default() }, is_synced: !from_the_start }
    }

    fn take(&mut self, item: Option<Item>) {
        let Some(item) = item else { return };
        match convert::change(&item) {
            Ok(change) => self.batch.changes.extend(change),
            // One entry of a newer or broken control plane must not hide all the others.
            Err(error) => warn!(%error, "an entry of the directory is left out"),
        }
        match item {
            Item::SnapshotDone(_) => self.is_synced = true,
            Item::Bookmark(bookmark) => self.batch.resume_token = Some(bookmark.resume_token),
            Item::Agent(_) | Item::Removed(_) | Item::Node(_) => {}
        }
    }

    /// What can be taken over now.
    fn batch(&mut self) -> Option<Batch> {
        self.is_synced.then(|| std::mem::take(&mut self.batch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: u8) -> Option<Item> {
        let node_id = format!("{id:02x}").repeat(16);
        Some(Item::Node(v1::NodePresence { node_id, presence: v1::Presence::Online.into() }))
    }

    #[test]
    fn a_first_copy_is_taken_over_whole_or_not_at_all() {
        let mut reader = Reader::new(true);
        reader.take(node(1));
        assert_eq!(reader.batch(), None);
        reader.take(Some(Item::SnapshotDone(v1::SnapshotDone {})));
        reader.take(Some(Item::Bookmark(v1::Bookmark { resume_token: "7".to_owned() })));
        let batch = reader.batch().unwrap();
        assert!(batch.whole && batch.changes.len() == 1);
        assert_eq!(batch.resume_token.as_deref(), Some("7"));
        reader.take(node(2));
        assert!(!reader.batch().unwrap().whole, "what follows adds to the copy");
    }

    #[test]
    fn a_resumed_watch_is_taken_over_as_it_comes() {
        let mut reader = Reader::new(false);
        reader.take(node(1));
        assert_eq!(reader.batch().unwrap().changes.len(), 1);
    }

    #[test]
    fn a_broken_entry_hides_no_other() {
        let mut reader = Reader::new(false);
        reader.take(Some(Item::Removed(v1::AgentRemoved { agent_id: "x".to_owned(), slug: String::new() })));
        reader.take(node(1));
        assert_eq!(reader.batch().unwrap().changes.len(), 1);
    }
}
