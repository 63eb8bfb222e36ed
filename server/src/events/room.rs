//! What the functions of this room share.

use std::sync::Arc;

use tokio::sync::{OnceCell, broadcast};

use super::feed::Places;
use crate::{
    agents::Agents,
    clock::Clock,
    db::{Db, event::Event},
    together::Line,
    tokens::Tokens,
};

/// Events that a reader may be behind before it goes on from the log.
const BEHIND_MAX: usize = 1024;

/// The events of this control plane.
pub struct Events {
    pub(super) db: Db,
    pub(super) clock: Clock,
    pub(super) tokens: Arc<Tokens>,
    /// Their changes carry events, and ring for them.
    pub(super) agents: Arc<Agents>,
    pub(super) places: Places,
    /// Publishers that wait for the next transaction.
    pub(super) line: Line<Self>,
    /// The database's name, once somebody asked: it never changes.
    pub(super) epoch: OnceCell<Arc<str>>,
    /// To everybody who watches, in the order of commit.
    pub(super) live: broadcast::Sender<Arc<Event>>,
}

impl Events {
    /// The room over a database.
    #[must_use]
    pub fn new(db: Db, clock: Clock, tokens: Arc<Tokens>, agents: Arc<Agents>) -> Self {
        Self {
            db,
            clock,
            tokens,
            agents,
            places: Places::default(),
            line: Line::default(),
            epoch: OnceCell::new(),
            live: broadcast::Sender::new(BEHIND_MAX),
        }
    }
}
