//! What a session is told: what no session of its agent has told yet, oldest first and at most so many, one line for the rest; then what
//! comes. Answers to its permission requests come the same way.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
};

use murmur_core::{event::EventKind, id::AgentId};
use tokio::sync::watch;

use super::{AgentEvent, Events, read};
use crate::store::{
    StoreError, Tx,
    event::{self as table, EventRow, Query},
    permission,
};

/// Events of before that are told one by one.
const REPLAY_MAX: usize = 50;
/// Events that are read in one go.
const PAGE: u32 = 256;
/// As many as a log holds at all.
const ALL: u32 = 100_000;

/// One thing to tell.
#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    /// Something happened.
    Event(Box<AgentEvent>),
    /// More events wait than are told one by one.
    Summary(Summary),
    /// Somebody answered a permission request.
    Answer(Answer),
}

/// Events that are not told one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// How many.
    pub more: u64,
    /// Events that were dropped before anybody was told.
    pub lost: u64,
    /// To acknowledge.
    pub cursor: u64,
    /// When the first of them came here, Unix milliseconds.
    pub received_ms: u64,
}

/// An answer to a permission request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// As the program called the request.
    pub request_id: String,
    /// Whether the tool may be used.
    pub allow: bool,
    /// Who answered.
    pub by: String,
}

/// What a session is told. Wakes are level-triggered: it reads the store from its own place.
pub struct Feed {
    events: Arc<Events>,
    agent: AgentId,
    instance: String,
    changed: watch::Receiver<u64>,
    /// There may be something that was not looked at.
    is_due: bool,
    /// The place; `None` before the first look.
    after: Option<u64>,
    /// Answers that were told.
    answered: HashSet<u64>,
    waiting: VecDeque<Told>,
}

/// What a look found.
struct Found {
    events: Vec<AgentEvent>,
    summary: Option<Summary>,
    answers: Vec<(u64, Answer)>,
    after: u64,
    /// There may be more than was read in one go.
    is_cut: bool,
}

impl Feed {
    pub(super) fn new(events: Arc<Events>, agent: AgentId, instance: String) -> Self {
        let changed = events.watch(agent);
        let (answered, waiting) = (HashSet::new(), VecDeque::new());
        Self { events, agent, instance, changed, is_due: true, after: None, answered, waiting }
    }

    /// Looks at the store if there may be something new and everything else was told.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn fill(&mut self) -> Result<(), StoreError> {
        // Marked as seen before the look, so that what is committed meanwhile is due again.
        if self.changed.has_changed().unwrap_or(false) {
            self.changed.borrow_and_update();
            self.is_due = true;
        }
        if !self.is_due || !self.waiting.is_empty() {
            return Ok(());
        }
        let (agent, after, instance, now_ms) =
            (self.agent, self.after, self.instance.clone(), self.events.clock.now_ms());
        let found = self.events.store.read(move |tx| {
            let answers = permission::untold(tx, agent, &instance)?;
            let (events, summary, after, is_cut) = match after {
                None => replayed(tx, agent, now_ms)?,
                Some(after) => new(tx, agent, after, now_ms)?,
            };
            Ok(Found { events, summary, answers, after, is_cut })
        });
        let Found { events, summary, answers, after, is_cut } = found.await?;
        (self.after, self.is_due) = (Some(after), is_cut);
        for (number, answer) in answers {
            if self.answered.insert(number) {
                self.waiting.push_back(Told::Answer(answer));
            }
        }
        self.waiting.extend(events.into_iter().map(|event| Told::Event(Box::new(event))));
        self.waiting.extend(summary.map(Told::Summary));
        Ok(())
    }

    /// When the next thing to tell came here, Unix milliseconds. Answers come before everything.
    #[must_use]
    pub fn next_ms(&self) -> Option<u64> {
        self.waiting.front().map(|told| match told {
            Told::Event(event) => event.received_ms,
            Told::Summary(summary) => summary.received_ms,
            Told::Answer(_) => 0,
        })
    }

    /// The next thing to tell, of what was found.
    pub fn pop(&mut self) -> Option<Told> {
        self.waiting.pop_front()
    }

    /// Waits until there may be something new.
    pub async fn changed(&mut self) {
        if self.is_due {
            return;
        }
        if self.changed.changed().await.is_err() {
            // The bell hangs as long as somebody listens.
            std::future::pending::<()>().await;
        }
        self.is_due = true;
    }
}

/// What a session that begins is told: what was neither told nor read, but for what was of the moment.
fn replayed(
    tx: Tx<'_>,
    agent: AgentId,
    now_ms: u64,
) -> Result<(Vec<AgentEvent>, Option<Summary>, u64, bool), StoreError> {
    let (reader, newest, unread) = (table::reader(tx, agent)?, table::newest(tx, agent)?, table::unread(tx, agent)?);
    let query = Query { after: reader.told, unread: true, superseded: false, limit: ALL };
    let is_news = |row: &EventRow| row.kind != EventKind::Progress.as_str();
    let mut rows: Vec<EventRow> = table::page(tx, agent, query)?.into_iter().filter(is_news).collect();
    let rest = rows.split_off(rows.len().min(REPLAY_MAX));
    let received_ms = rest.first().or(rows.last()).map_or(now_ms, |row| row.received_ms);
    let summary =
        Summary { more: u64::try_from(rest.len()).unwrap_or(u64::MAX), lost: reader.lost, cursor: newest, received_ms };
    let events = rows.iter().map(|row| read(row, true, unread, now_ms)).collect::<Result<_, _>>()?;
    Ok((events, Some(summary).filter(|summary| summary.more > 0 || summary.lost > 0), newest, false))
}

/// What came behind a place.
fn new(
    tx: Tx<'_>,
    agent: AgentId,
    after: u64,
    now_ms: u64,
) -> Result<(Vec<AgentEvent>, Option<Summary>, u64, bool), StoreError> {
    let rows = table::page(tx, agent, Query { after, unread: true, superseded: false, limit: PAGE })?;
    let is_cut = rows.len() == PAGE as usize;
    let until = rows.last().map_or(after, |row| row.cursor);
    let unread = table::unread(tx, agent)?;
    let events = rows.iter().map(|row| read(row, false, unread, now_ms)).collect::<Result<_, _>>()?;
    Ok((events, None, until, is_cut))
}
