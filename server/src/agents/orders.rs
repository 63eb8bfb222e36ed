//! The streams on which nodes hear what to do: one for each node, the newest.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use murmur_core::id::{NodeId, WorkspaceId};
use murmur_proto::v1::{self, watch_orders_response::Item};
use tokio::sync::{mpsc, oneshot, watch};

use super::{AgentError, Agents};
use crate::{
    db::{
        node::{self, State},
        node_order,
    },
    tokens::Principal,
};

/// Wishes that wait for a node that does not read.
const WISHES_MAX: usize = 256;
/// Orders of one read.
const ORDERS_MAX: u32 = 64;

/// The live streams of this process.
#[derive(Default)]
pub(super) struct Streams {
    live: Mutex<HashMap<NodeId, Live>>,
}

struct Live {
    number: u64,
    wishes: mpsc::Sender<Item>,
    /// Dropped when a newer stream takes the place.
    _replaced: oneshot::Sender<()>,
}

impl Streams {
    /// Asks a node for what is not kept; false when it listens to nobody.
    pub(super) fn wish(&self, node_id: NodeId, wanted: Item) -> bool {
        let live = self.lock();
        live.get(&node_id).is_some_and(|stream| stream.wishes.try_send(wanted).is_ok())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<NodeId, Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A node's stream of orders.
pub struct OrderStream {
    place: (WorkspaceId, NodeId),
    number: u64,
    last: u64,
    bell: watch::Receiver<()>,
    wishes: mpsc::Receiver<Item>,
    replaced: oneshot::Receiver<()>,
}

/// What a stream of orders tells next.
#[derive(Debug)]
pub enum Next {
    /// What is to be done.
    Orders(Vec<v1::Order>),
    /// Somebody watches, or visits.
    Wanted(Box<Item>),
    /// A newer stream has the place.
    Replaced,
}

impl Agents {
    /// Asks a node for what is not kept, such as a connection; false when it listens to nobody.
    #[must_use]
    pub fn ask_node(&self, node_id: NodeId, wanted: Item) -> bool {
        self.streams.wish(node_id, wanted)
    }

    /// Takes the place of the node's stream.
    ///
    /// # Errors
    /// [`AgentError`] when the node is not approved.
    pub async fn open_orders(&self, place: (WorkspaceId, NodeId)) -> Result<OrderStream, AgentError> {
        let mut tx = self.db.read().await?;
        let found = node::get(&mut tx, place.0, place.1).await?;
        if found.is_none_or(|node| node.state != State::Approved) {
            return Err(AgentError::NodeNotFound(place.1.to_string()));
        }
        let bell = self.ordered.listen(place.1);
        let (wishes, wanted) = mpsc::channel(WISHES_MAX);
        let (ended, replaced) = oneshot::channel();
        let mut live = self.streams.lock();
        let number = live.get(&place.1).map_or(0, |old| old.number) + 1;
        live.insert(place.1, Live { number, wishes, _replaced: ended });
        drop(live);
        // Whoever watched through the old stream asks anew.
        self.relay.lost(place.1);
        Ok(OrderStream { place, number, last: 0, bell, wishes: wanted, replaced })
    }

    /// What the node is to hear next: every open order at first, then what comes.
    ///
    /// # Errors
    /// [`AgentError`].
    pub async fn next_orders(&self, caller: &Principal, stream: &mut OrderStream) -> Result<Next, AgentError> {
        loop {
            stream.bell.borrow_and_update();
            let mut tx = self.db.read().await?;
            self.tokens.still_holds(&mut tx, caller).await?;
            let orders = node_order::open(&mut tx, stream.place.1, stream.last, ORDERS_MAX).await?;
            drop(tx);
            if let Some(last) = orders.last() {
                stream.last = last.order_id;
                return Ok(Next::Orders(orders));
            }
            tokio::select! {
                _ = &mut stream.replaced => return Ok(Next::Replaced),
                Some(wanted) = stream.wishes.recv() => return Ok(Next::Wanted(Box::new(wanted))),
                _ = stream.bell.changed() => {}
            }
        }
    }

    /// Gives the place up, unless a newer stream has it.
    pub fn close_orders(&self, stream: &OrderStream) {
        let mut live = self.streams.lock();
        if live.get(&stream.place.1).is_some_and(|now| now.number == stream.number) {
            live.remove(&stream.place.1);
            drop(live);
            self.relay.lost(stream.place.1);
        }
    }
}
