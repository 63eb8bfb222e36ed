//! Attached programs: one live session an agent, and what each is shown.
//!
//! A session reads the store from its own cursor whenever the hub wakes it, so a lost wake costs nothing. Dropping it detaches the
//! agent at once. A second program is refused by name, or takes over when it says so, and then the first one is told.

mod push;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use murmur_core::id::AgentId;
use tokio::sync::watch;
use tracing::info;

pub use push::{Push, Pushed};

use crate::{clock::Clock, directory::Directory, post::LocalAgent, rpc::control::Control};

/// Every live session.
pub struct Sessions {
    live: Mutex<Live>,
    directory: Arc<Directory>,
    control: Arc<Control>,
    clock: Clock,
}

#[derive(Default)]
struct Live {
    last_number: u64,
    by_agent: HashMap<AgentId, Entry>,
}

struct Entry {
    number: u64,
    client: String,
    closed: watch::Sender<Option<Closed>>,
}

/// Why a session is over although its program is still there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Closed {
    /// A newer one took over.
    Replaced(Replaced),
    /// The agent was ended.
    Ended,
}

/// A newer session took over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replaced {
    /// What the newer one calls itself.
    pub by_client: String,
    /// When, Unix milliseconds.
    pub at_ms: u64,
}

/// Another session is attached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{slug} has a session already, by `{client}`")]
pub struct SessionTaken {
    /// The agent.
    pub slug: String,
    /// What the other session calls itself.
    pub client: String,
}

/// The one live session of an agent. It ends when this is dropped.
pub struct Session {
    sessions: Arc<Sessions>,
    agent: LocalAgent,
    number: u64,
    closed: watch::Receiver<Option<Closed>>,
}

impl Sessions {
    /// No sessions.
    #[must_use]
    pub fn new(directory: Arc<Directory>, control: Arc<Control>, clock: Clock) -> Arc<Self> {
        Arc::new(Self { live: Mutex::default(), directory, control, clock })
    }

    /// Attaches a session to an agent.
    ///
    /// # Errors
    /// [`SessionTaken`] while another one lives, unless `takeover`.
    pub fn attach(self: &Arc<Self>, agent: &LocalAgent, client: &str, takeover: bool) -> Result<Session, SessionTaken> {
        let (sender, closed) = watch::channel(None);
        let mut live = self.live();
        if let Some(entry) = live.by_agent.get(&agent.agent_id) {
            if !takeover {
                return Err(SessionTaken { slug: agent.slug.to_string(), client: entry.client.clone() });
            }
            let replaced = Replaced { by_client: client.to_owned(), at_ms: self.clock.now_ms() };
            entry.closed.send_replace(Some(Closed::Replaced(replaced)));
            info!(agent.slug = %agent.slug, "a session of {} was taken over by `{client}`", agent.slug);
        }
        live.last_number += 1;
        let number = live.last_number;
        live.by_agent.insert(agent.agent_id, Entry { number, client: client.to_owned(), closed: sender });
        // Told under the lock, so that the order of attaching and detaching is the order in which it is heard.
        self.tell(agent.agent_id, true);
        Ok(Session { sessions: Arc::clone(self), agent: agent.clone(), number, closed })
    }

    /// Ends the session of an agent that was ended, if there is one.
    pub fn end(&self, agent: AgentId) {
        let mut live = self.live();
        if let Some(entry) = live.by_agent.remove(&agent) {
            entry.closed.send_replace(Some(Closed::Ended));
            self.tell(agent, false);
        }
    }

    /// Whether an agent has a session.
    #[must_use]
    pub fn has(&self, agent: AgentId) -> bool {
        self.live().by_agent.contains_key(&agent)
    }

    /// How many sessions there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.live().by_agent.len()
    }

    fn detach(&self, agent: AgentId, number: u64) {
        let mut live = self.live();
        // A session that was taken over is no longer the agent's, nor is that of an agent that was ended.
        if live.by_agent.get(&agent).is_some_and(|entry| entry.number == number) {
            live.by_agent.remove(&agent);
            self.tell(agent, false);
        }
    }

    fn tell(&self, agent: AgentId, attached: bool) {
        self.directory.set_attached(agent, attached);
        self.control.attachment(agent, attached);
    }

    fn live(&self) -> std::sync::MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    /// The agent.
    #[must_use]
    pub const fn agent(&self) -> &LocalAgent {
        &self.agent
    }

    /// Which of the process's sessions it is.
    pub(super) const fn number(&self) -> u64 {
        self.number
    }

    /// Waits until a newer session takes over or the agent is ended.
    pub async fn closed(&mut self) -> Closed {
        loop {
            if let Some(closed) = self.closed.borrow_and_update().clone() {
                return closed;
            }
            if self.closed.changed().await.is_err() {
                // No entry leaves without a word while its session lives.
                std::future::pending::<()>().await;
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.sessions.detach(self.agent.agent_id, self.number);
    }
}

#[cfg(test)]
mod tests;
