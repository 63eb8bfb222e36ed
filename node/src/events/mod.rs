//! Events of the agents that live here: what the control plane tells this node, kept and told to whoever speaks for them.
//!
//! `follow` takes them from the control plane, from where this node's own position is; the position moves in the transaction that stores
//! them. `feed` tells a session: what it has not told yet, and then what comes. A session's cursor moves when it says that it has written
//! something ([`Events::acknowledge`]), so what was not written is told again.

mod feed;
mod follow;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use murmur_core::{
    event::{EventKind, is_stale, subject},
    id::AgentId,
    limits::PAGE_SIZE_MAX,
};
use murmur_proto::{
    time::{timestamp, unix_ms},
    v1,
};
use prost::Message as _;
use tokio::sync::{broadcast, watch};
use tracing::warn;

pub use feed::{Answer, Feed, Summary, Told};

use crate::{
    clock::Clock,
    store::{
        Store, StoreError, Tx,
        event::{self as table, EventRow, NewEvent, Query},
        permission,
    },
};

/// The logs of the agents that live here.
pub struct Events {
    store: Store,
    clock: Clock,
    bells: Mutex<HashMap<AgentId, watch::Sender<u64>>>,
    news: broadcast::Sender<Arc<[v1::Event]>>,
}

/// An event of an agent.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentEvent {
    /// As the control plane told it; `stale` is as of when it was read here.
    pub event: v1::Event,
    /// Position in this node's log.
    pub cursor: u64,
    /// When it came here, Unix milliseconds.
    pub received_ms: u64,
    /// It came before the session that is told, or was told before.
    pub replay: bool,
    /// The agent's unread events when it was read.
    pub unread: u64,
}

/// What the node itself has to tell an agent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Word {
    /// Unique in the agent's log.
    pub event_id: String,
    /// Its kind.
    pub kind: String,
    /// Who says so.
    pub origin: String,
    /// The kind's own.
    pub attributes: Vec<(&'static str, String)>,
    /// What to say.
    pub text: String,
    /// Somebody else wrote the text.
    pub untrusted: bool,
    /// What it is about, to take its place later.
    pub subject: Option<String>,
}

/// Which events to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ListQuery {
    /// Behind this cursor, read or not; 0: unread ones.
    pub after: u64,
    /// At most so many; 0 means 100.
    pub limit: u32,
    /// Mark nothing as read.
    pub peek: bool,
    /// Read and superseded ones too.
    pub all: bool,
}

/// A page of an agent's log.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct EventPage {
    /// Oldest first.
    pub events: Vec<AgentEvent>,
    /// Where the next page begins; 0 on the last one.
    pub next_after: u64,
    /// Unread events that are left.
    pub unread: u64,
    /// Events that were dropped before anybody was told.
    pub lost: u64,
}

const LIST_DEFAULT: u32 = 100;
/// Transactions that a slow follower may be behind before it misses some.
const NEWS_CAPACITY: usize = 64;

impl Events {
    /// The logs of a store.
    #[must_use]
    pub fn new(store: Store, clock: Clock) -> Arc<Self> {
        Arc::new(Self { store, clock, bells: Mutex::default(), news: broadcast::Sender::new(NEWS_CAPACITY) })
    }

    /// What the control plane tells of agents that live here, from now on: what was new in one transaction, once it is stored. Nobody waits for
    /// a follower; one that is too slow misses some.
    #[must_use]
    pub fn news(&self) -> broadcast::Receiver<Arc<[v1::Event]>> {
        self.news.subscribe()
    }

    /// Goes up whenever there is something new to tell an agent's session.
    pub fn watch(&self, agent: AgentId) -> watch::Receiver<u64> {
        self.bells().entry(agent).or_default().subscribe()
    }

    /// Wakes the session of an agent.
    pub(crate) fn ring(&self, agent: AgentId) {
        let mut bells = self.bells();
        match bells.get(&agent) {
            Some(bell) if bell.receiver_count() > 0 => bell.send_modify(|version| *version += 1),
            Some(_) => drop(bells.remove(&agent)),
            None => {}
        }
    }

    /// Stores events of the control plane's and moves the node's position behind them, in one transaction; then wakes sessions.
    ///
    /// # Errors
    /// [`StoreError`]; then nothing was stored.
    pub async fn take(&self, events: Vec<v1::Event>, position: u64) -> Result<(), StoreError> {
        let now_ms = self.clock.now_ms();
        let new: Vec<Option<NewEvent>> = events.iter().map(to_store).collect();
        let stored = self.store.write(move |tx| {
            let mut agents = Vec::with_capacity(new.len());
            for event in new {
                agents.push(match event {
                    Some(event) if table::insert(tx, &event, now_ms)? => Some(event.agent),
                    _ => None,
                });
            }
            table::set_position(tx, position)?;
            Ok(agents)
        });
        let agents = stored.await?;
        agents.iter().flatten().collect::<HashSet<_>>().into_iter().for_each(|agent| self.ring(*agent));
        if self.news.receiver_count() > 0 {
            let new = events.into_iter().zip(&agents).filter(|(_, agent)| agent.is_some()).map(|(event, _)| event);
            // Whoever followed may have gone meanwhile.
            let _ = self.news.send(new.collect());
        }
        Ok(())
    }

    /// Puts a word of the node's own into an agent's log. To be followed by [`Events::ring`] once it is committed.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn put(tx: Tx<'_>, agent: AgentId, slug: &str, word: Word, now_ms: u64) -> Result<(), StoreError> {
        let Word { event_id, kind, origin, attributes, text, untrusted, subject } = word;
        let event = v1::Event {
            event_id: event_id.clone(),
            agent_id: agent.to_string(),
            slug: slug.to_owned(),
            kind: kind.clone(),
            time: Some(timestamp(now_ms)),
            receive_time: Some(timestamp(now_ms)),
            origin,
            untrusted,
            attributes: attributes.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            text,
            ..v1::Event::default()
        };
        let new = NewEvent { agent, event_id, kind, subject, is_read: false, event: event.encode_to_vec() };
        table::insert(tx, &new, now_ms).map(drop)
    }

    /// Reads an agent's log, and marks what it returns as read unless it is only looked at.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list(&self, agent: AgentId, query: ListQuery) -> Result<EventPage, StoreError> {
        let ListQuery { after, limit, peek, all } = query;
        let limit = if limit == 0 { LIST_DEFAULT } else { limit.min(PAGE_SIZE_MAX) };
        let now_ms = self.clock.now_ms();
        let query = Query { after, unread: after == 0 && !all, superseded: all, limit: limit + 1 };
        let look = move |tx: Tx<'_>| {
            let mut rows = table::page(tx, agent, query)?;
            let more = rows.len() > limit as usize;
            rows.truncate(limit as usize);
            let next_after = rows.last().filter(|_| more).map_or(0, |last| last.cursor);
            if !peek {
                let unread: Vec<u64> = rows.iter().filter(|row| row.read_ms.is_none()).map(|row| row.cursor).collect();
                table::mark_read(tx, agent, &unread, now_ms)?;
            }
            let reader = table::reader(tx, agent)?;
            let unread = table::unread(tx, agent)?;
            let events = rows.iter().map(|row| read(row, row.cursor <= reader.told, unread, now_ms));
            Ok(EventPage { events: events.collect::<Result<_, _>>()?, next_after, unread, lost: reader.lost })
        };
        if peek { self.store.read(look).await } else { self.store.write(look).await }
    }

    /// Takes a session's word for what it has told: events up to a cursor, answers to permission requests; and marks events as read.
    /// Returns how many are unread then.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn acknowledge(
        &self,
        agent: AgentId,
        told: u64,
        read: Vec<u64>,
        answers: Vec<String>,
    ) -> Result<u64, StoreError> {
        let now_ms = self.clock.now_ms();
        let noted = self.store.write(move |tx| {
            if told > 0 {
                table::told(tx, agent, told)?;
            }
            table::mark_read(tx, agent, &read, now_ms)?;
            permission::told(tx, agent, &answers, now_ms)?;
            table::unread(tx, agent)
        });
        noted.await
    }

    /// How many of an agent's events are unread.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn unread(&self, agent: AgentId) -> Result<u64, StoreError> {
        self.store.read(move |tx| table::unread(tx, agent)).await
    }

    /// What a session of an agent is to be told, for the run of its program that calls itself `instance`.
    #[must_use]
    pub fn feed(self: &Arc<Self>, agent: AgentId, instance: String) -> Feed {
        Feed::new(Arc::clone(self), agent, instance)
    }

    fn bells(&self) -> MutexGuard<'_, HashMap<AgentId, watch::Sender<u64>>> {
        self.bells.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is stored of an event; `None` when it cannot be said whose it is.
fn to_store(event: &v1::Event) -> Option<NewEvent> {
    let Ok(agent) = event.agent_id.parse() else {
        warn!(event.id = %event.event_id, "an event is left out: it names no agent");
        return None;
    };
    let (event_id, kind) = (event.event_id.clone(), event.kind.clone());
    let subject = subject(&kind, |name| event.attributes.get(name).map(String::as_str));
    // An agent that has it as work in its queue is not told of it as well, and what tells of the agent itself is for people.
    let is_own = EventKind::ChildLifecycle.as_str() == kind && event.attributes.get("child") == Some(&event.slug);
    Some(NewEvent { agent, event_id, kind, subject, is_read: event.queued || is_own, event: event.encode_to_vec() })
}

/// An event as it is told now.
fn read(row: &EventRow, replay: bool, unread: u64, now_ms: u64) -> Result<AgentEvent, StoreError> {
    let mut event = v1::Event::decode(row.event.as_slice()).map_err(|_| StoreError::Corrupt("event"))?;
    let time_ms = event.time.as_ref().map_or(row.received_ms, unix_ms);
    event.stale = is_stale(&event.kind, time_ms, now_ms);
    event.superseded = row.superseded;
    Ok(AgentEvent { event, cursor: row.cursor, received_ms: row.received_ms, replay, unread })
}
