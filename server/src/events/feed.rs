//! What nodes are told: one stream for each, the newest, from where the node has stored.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use murmur_core::id::{NodeId, WorkspaceId};
use tokio::sync::{oneshot, watch};

use super::{EventError, Events};
use crate::{
    agents::AgentError,
    db::{
        event::{self, Event},
        node::{self, State},
        node_event,
    },
    tokens::Principal,
};

/// Events of one read.
const EVENTS_MAX: u32 = 256;

/// The live streams of this process: whoever is dropped here was replaced.
#[derive(Default)]
pub(super) struct Places(Mutex<HashMap<NodeId, (u64, oneshot::Sender<()>)>>);

impl Places {
    fn take(&self, node_id: NodeId) -> (u64, oneshot::Receiver<()>) {
        let (place, replaced) = oneshot::channel();
        let mut live = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = live.get(&node_id).map_or(0, |(number, _)| *number) + 1;
        live.insert(node_id, (number, place));
        (number, replaced)
    }

    fn leave(&self, node_id: NodeId, number: u64) {
        let mut live = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if live.get(&node_id).is_some_and(|(now, _)| *now == number) {
            live.remove(&node_id);
        }
    }
}

/// A node's stream of events.
pub struct Feed {
    node_id: NodeId,
    number: u64,
    last: u64,
    caught_up: bool,
    bell: watch::Receiver<()>,
    replaced: oneshot::Receiver<()>,
}

/// What a feed tells next.
#[derive(Debug)]
pub enum Fed {
    /// Events, with the position behind the last of them.
    Events(Vec<Event>),
    /// Everything that there was has been told up to this position.
    CaughtUp(u64),
    /// A newer stream has the place.
    Replaced,
}

impl Events {
    /// Takes the place of the node's stream, to go on behind a position.
    ///
    /// # Errors
    /// [`EventError`] when the node is not approved.
    pub async fn open_feed(&self, place: (WorkspaceId, NodeId), after: u64) -> Result<Feed, EventError> {
        let mut tx = self.db.read().await?;
        let found = node::get(&mut tx, place.0, place.1).await?;
        if found.is_none_or(|node| node.state != State::Approved) {
            return Err(AgentError::NodeNotFound(place.1.to_string()).into());
        }
        // A database that was put back is behind what the node remembers: what comes now would hide below it.
        let last = after.min(event::last_position(&mut tx).await?);
        let bell = self.agents.listen_fed(place.1);
        let (number, replaced) = self.places.take(place.1);
        Ok(Feed { node_id: place.1, number, last, caught_up: false, bell, replaced })
    }

    /// What the node is to hear next.
    ///
    /// # Errors
    /// [`EventError`].
    pub async fn next_fed(&self, caller: &Principal, feed: &mut Feed) -> Result<Fed, EventError> {
        loop {
            feed.bell.borrow_and_update();
            let mut tx = self.db.read().await?;
            self.tokens.still_holds(&mut tx, caller).await?;
            let mut events = event::of_node(&mut tx, feed.node_id, feed.last, EVENTS_MAX).await?;
            let own = node_event::of_node(&mut tx, feed.node_id, feed.last, EVENTS_MAX).await?;
            drop(tx);
            if !own.is_empty() {
                events.extend(own);
                events.sort_by_key(|event| event.node_position);
                // Behind a page that is full there may be more of either.
                events.truncate(EVENTS_MAX as usize);
            }
            if let Some(last) = events.last().and_then(|last| last.node_position) {
                feed.last = last;
                if !feed.caught_up {
                    events.retain(|event| !event.kind.is_fleeting());
                }
                if events.is_empty() {
                    continue;
                }
                return Ok(Fed::Events(events));
            }
            if !feed.caught_up {
                feed.caught_up = true;
                return Ok(Fed::CaughtUp(feed.last));
            }
            tokio::select! {
                _ = &mut feed.replaced => return Ok(Fed::Replaced),
                _ = feed.bell.changed() => {}
            }
        }
    }

    /// Gives the place up, unless a newer stream has it.
    pub fn close_feed(&self, feed: &Feed) {
        self.places.leave(feed.node_id, feed.number);
    }
}
