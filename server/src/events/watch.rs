//! Watching logs: what is there, then what comes.
//!
//! What comes is read once, by one task, and handed to everybody who watches; each lets through what its filter lets through. Whoever cannot
//! keep up goes on from the log, where it stood, and meets a gap there if its events are gone: nobody waits for it.

use std::{fmt, str::FromStr, sync::Arc};

use murmur_proto::v1;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio_util::sync::CancellationToken;

use super::{EventError, Events, list::filter};
use crate::{
    db::{
        DbError,
        event::{self, Event, Filter, Range},
        meta,
    },
    invalid::Invalid,
    tokens::Principal,
};

const BACKLOG_MAX: u32 = 1000;
/// Events of one read.
const EVENTS_MAX: u32 = 256;

/// Where a watch stands: the database and the last position. Printed `<epoch>.<position>`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ResumeToken {
    epoch: Arc<str>,
    position: u64,
}

impl fmt::Display for ResumeToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.position)
    }
}

impl FromStr for ResumeToken {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let read = || {
            let (epoch, position) = text.rsplit_once('.')?;
            Some(Self { epoch: epoch.into(), position: position.parse().ok()? })
        };
        read().ok_or_else(|| Invalid::new("resume_token", "must come from an earlier stream"))
    }
}

/// A reader's watch.
pub struct Watch {
    filter: Filter,
    epoch: Arc<str>,
    /// Everything up to here was told, or is not wanted.
    last: u64,
    caught_up: bool,
    /// What there was, newest last, before anything else.
    backlog: Vec<Event>,
    step: Step,
    live: Receiver<Arc<Event>>,
}

enum Step {
    Backlog,
    Log,
    Live,
}

/// What a watch tells next.
#[derive(Debug)]
pub enum Seen {
    /// Events in order; a gap among them stands for what is gone.
    Events(Vec<Arc<Event>>),
    /// Everything that there was has been told.
    CaughtUp,
}

impl Watch {
    /// Where to go on behind a position.
    #[must_use]
    pub fn token(&self, position: u64) -> String {
        ResumeToken { epoch: Arc::clone(&self.epoch), position }.to_string()
    }

    /// Where to go on from here.
    #[must_use]
    pub fn here(&self) -> String {
        self.token(self.last)
    }
}

impl Events {
    /// Begins a watch.
    ///
    /// # Errors
    /// [`EventError`].
    pub async fn watch(&self, principal: &Principal, request: &v1::WatchEventsRequest) -> Result<Watch, EventError> {
        let v1::WatchEventsRequest { filter: wanted, backlog, resume_token } = request;
        if *backlog > BACKLOG_MAX {
            return Err(Invalid::new("backlog", format!("must be at most {BACKLOG_MAX}, got {backlog}")).into());
        }
        let resumed: Option<ResumeToken> = if resume_token.is_empty() { None } else { Some(resume_token.parse()?) };
        // Before the first look, or what comes between the two is missed.
        let live = self.live.subscribe();
        let wanted = wanted.clone().unwrap_or_default();
        // Thousands open watches at once after a restart, and only a backlog must agree with the position behind it.
        let (filter, newest, backlog) = if *backlog > 0 && resumed.is_none() {
            let mut tx = self.db.read().await?;
            let filter = filter(&mut tx, principal, &wanted).await?;
            let newest = event::last_position(&mut tx).await?;
            let range = Range { after: 0, descending: true, limit: *backlog };
            let mut backlog = event::page(&mut tx, &filter, range).await?;
            backlog.reverse();
            (filter, newest, backlog)
        } else {
            let mut tx = self.db.look()?;
            (filter(&mut tx, principal, &wanted).await?, event::last_position(&mut tx).await?, Vec::new())
        };
        let epoch = async || meta::epoch(&mut self.db.look()?).await.map(Arc::from);
        let epoch = self.epoch.get_or_try_init(epoch).await?;
        let mut watch = Watch {
            filter,
            epoch: Arc::clone(epoch),
            last: newest,
            caught_up: false,
            backlog,
            step: Step::Backlog,
            live,
        };
        if let Some(token) = resumed {
            if token.epoch != watch.epoch || token.position > newest {
                return Err(EventError::ResumeTokenStale);
            }
            (watch.last, watch.step) = (token.position, Step::Log);
        }
        Ok(watch)
    }

    /// What the reader is to hear next.
    ///
    /// # Errors
    /// [`EventError`].
    pub async fn next_seen(&self, principal: &Principal, watch: &mut Watch) -> Result<Seen, EventError> {
        loop {
            match watch.step {
                Step::Backlog if watch.backlog.is_empty() => {
                    (watch.step, watch.caught_up) = (Step::Live, true);
                    return Ok(Seen::CaughtUp);
                }
                Step::Backlog => {
                    let backlog = std::mem::take(&mut watch.backlog);
                    return Ok(Seen::Events(backlog.into_iter().map(Arc::new).collect()));
                }
                Step::Log => match self.read_log(principal, watch).await? {
                    Some(events) => return Ok(Seen::Events(events)),
                    None => {
                        watch.step = Step::Live;
                        // One that fell behind later has been told before.
                        if !std::mem::replace(&mut watch.caught_up, true) {
                            return Ok(Seen::CaughtUp);
                        }
                    }
                },
                Step::Live => match watch.live.recv().await {
                    Ok(event) if event.position <= watch.last => {}
                    Ok(event) => {
                        watch.last = event.position;
                        if watch.filter.lets(&event) {
                            self.tokens.holds_now(principal).await?;
                            return Ok(Seen::Events(vec![event]));
                        }
                    }
                    Err(RecvError::Lagged(_)) => watch.step = Step::Log,
                    // The control plane goes down; the door says so.
                    Err(RecvError::Closed) => std::future::pending().await,
                },
            }
        }
    }

    /// The next events of the log; `None` when it has no more.
    async fn read_log(&self, principal: &Principal, watch: &mut Watch) -> Result<Option<Vec<Arc<Event>>>, EventError> {
        let mut tx = self.db.read().await?;
        self.tokens.still_holds(&mut tx, principal).await?;
        let up_to = event::last_position(&mut tx).await?;
        let range = Range { after: watch.last, descending: false, limit: EVENTS_MAX };
        let mut events = event::page(&mut tx, &watch.filter, range).await?;
        watch.last = events.last().map_or(up_to, |last| last.position);
        events.retain(|event| !event.kind.is_fleeting());
        if events.is_empty() && watch.last == up_to {
            return Ok(None);
        }
        Ok(Some(events.into_iter().map(Arc::new).collect()))
    }

    /// Where a watch that begins now begins.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn position(&self) -> Result<u64, DbError> {
        event::last_position(&mut *self.db.read().await?).await
    }

    /// Hands what is committed behind a position to everybody who watches, in that order, until `stop` is cancelled.
    pub async fn tell(&self, mut last: u64, stop: &CancellationToken) {
        let mut published = self.agents.listen_published();
        loop {
            published.borrow_and_update();
            match self.tell_new(&mut last).await {
                Ok(true) => continue,
                Ok(false) => {}
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::error!(error, "watchers of events wait: what is new cannot be read");
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                changed = published.changed() => if changed.is_err() { return },
            }
        }
    }

    /// False when nothing more is there.
    async fn tell_new(&self, last: &mut u64) -> Result<bool, DbError> {
        let mut tx = self.db.read().await?;
        // Read before it is seen that nobody watches: whoever comes after that has begun behind it.
        let newest = event::last_position(&mut tx).await?;
        if self.live.receiver_count() == 0 {
            *last = newest;
            return Ok(false);
        }
        let events = event::since(&mut tx, *last, EVENTS_MAX).await?;
        drop(tx);
        let Some(end) = events.last().map(|event| event.position) else { return Ok(false) };
        *last = end;
        for event in events {
            let _ = self.live.send(Arc::new(event));
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resume_token_reads_back_and_nonsense_is_refused() {
        let token = ResumeToken { epoch: "e".into(), position: 7 };
        assert_eq!(token.to_string().parse(), Ok(token));
        for text in ["e", "e.", "e.x", "."] {
            assert_eq!(text.parse::<ResumeToken>().unwrap_err().field, "resume_token", "{text}");
        }
    }
}
