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
    replaced: watch::Sender<Option<Replaced>>,
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
    replaced: watch::Receiver<Option<Replaced>>,
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
        let (sender, replaced) = watch::channel(None);
        let mut live = self.live();
        if let Some(entry) = live.by_agent.get(&agent.agent_id) {
            if !takeover {
                return Err(SessionTaken { slug: agent.slug.to_string(), client: entry.client.clone() });
            }
            entry.replaced.send_replace(Some(Replaced { by_client: client.to_owned(), at_ms: self.clock.now_ms() }));
            info!(agent.slug = %agent.slug, "a session of {} was taken over by `{client}`", agent.slug);
        }
        live.last_number += 1;
        let number = live.last_number;
        live.by_agent.insert(agent.agent_id, Entry { number, client: client.to_owned(), replaced: sender });
        // Told under the lock, so that the order of attaching and detaching is the order in which it is heard.
        self.tell(agent.agent_id, true);
        Ok(Session { sessions: Arc::clone(self), agent: agent.clone(), number, replaced })
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
        // A session that was taken over is no longer the agent's.
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

    /// Waits until a newer session takes over.
    pub async fn replaced(&mut self) -> Replaced {
        loop {
            if let Some(replaced) = self.replaced.borrow_and_update().clone() {
                return replaced;
            }
            if self.replaced.changed().await.is_err() {
                // The entry left without a word: the agent was ended, and the stream lives until the caller drops it.
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
