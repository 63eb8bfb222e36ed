//! Tells people what goes on, by the channels that they chose: Telegram, Discord, WhatsApp, any webhook (AGENTS-AND-TOOLS §9).
//!
//! A [`Notice`] is offered to every channel whose filter lets it through and is dropped, and counted, where a channel's queue is full: nothing
//! that happens here ever waits for a stranger's service. One task a channel takes from its queue, at the service's pace, tries again while
//! that can help, and says why when it cannot. Who wrote to whom and how much is told; what was written only with `notify.include_body`.
//! Where a channel names people, they are asked what agents ask, and answer there (`answers`, `listen`).
//!
//! A channel is one private file, secret included, so that it needs no restart and no secret stands in a configuration or on a command line.

mod answers;
mod channel;
mod config;
mod event;
mod feed;
mod files;
mod listen;
mod notice;
mod pace;
mod pair;
mod parcel;
mod person;
mod question;
mod service;
mod worker;

use std::{
    collections::{BTreeMap, VecDeque},
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};
use tracing::warn;

pub use channel::{Channel, Filter, InvalidChannel, Service};
pub use config::NotifyConfig;
pub use feed::{follow, follow_events, follow_failures, follow_permissions};
pub use notice::Notice;
use notice::{short, size};
pub use pair::{PairError, Paired};
pub use person::Person;
pub use service::{Delivery, Trouble};
pub use worker::Status;

use crate::{
    clock::Clock,
    outbound::Outbound,
    permission::{PermissionRow, Permissions},
    store::Store,
};
use answers::Answers;
use files::ChannelFiles;
use pace::{Paces, Rate};
use parcel::Parcel;
use worker::Handle;

/// Channels of one node.
const CHANNELS_MAX: usize = 25;
/// The kind of what is told of messages.
const MESSAGE: &str = "message";
/// Keys that are remembered: each side tells of a thing soon, or not at all.
const TOLD_MAX: usize = 512;

/// The channels and their queues.
pub struct Notify {
    config: NotifyConfig,
    outbound: Outbound,
    clock: Clock,
    files: ChannelFiles,
    live: Mutex<BTreeMap<String, Handle>>,
    /// Whether one of them wants to hear of messages.
    messages_wanted: Arc<AtomicBool>,
    paces: Paces,
    answers: OnceLock<Answers>,
    /// The bots that are listened to, by token.
    listening: Mutex<BTreeMap<String, DropGuard>>,
    /// Keys of what is told once, the newest last.
    told: Mutex<VecDeque<String>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// Why a channel could not be set, removed or tried.
#[derive(Debug, thiserror::Error)]
pub enum NotifyError {
    /// A field breaks a rule.
    #[error(transparent)]
    Invalid(#[from] InvalidChannel),
    /// There are enough.
    #[error("a node has at most {CHANNELS_MAX} notification channels")]
    Many,
    /// There is none of this name.
    #[error("there is no notification channel `{0}`")]
    NotFound(String),
    /// Its file cannot be read or written.
    #[error("keeping the channel's file")]
    File(#[from] std::io::Error),
    /// The service said no.
    #[error("{0}")]
    Trouble(Trouble),
}

impl Notify {
    /// Opens the channels that a data directory holds and starts their tasks. A file that cannot be used is told in the log and left.
    ///
    /// # Errors
    /// When the folder cannot be read, or the configured authority not be used.
    pub fn open(
        config: NotifyConfig,
        data_dir: &Path,
        clock: Clock,
        stop: CancellationToken,
    ) -> anyhow::Result<Arc<Self>> {
        let outbound = config.outbound()?;
        let files = ChannelFiles::open(data_dir)?;
        let channels = files.all()?;
        let notify = Arc::new(Self {
            config,
            outbound,
            clock,
            files,
            live: Mutex::default(),
            messages_wanted: Arc::default(),
            paces: Paces::default(),
            answers: OnceLock::new(),
            listening: Mutex::default(),
            told: Mutex::default(),
            tasks: TaskTracker::new(),
            stop,
        });
        for channel in channels {
            notify.start(channel);
        }
        Ok(notify)
    }

    /// Lets people answer permission requests by the channels that name them, from now on.
    pub fn take_answers(self: &Arc<Self>, permissions: Arc<Permissions>, store: Store) {
        // Whoever was first stays.
        let _ = self.answers.set(Answers { permissions, store });
        self.listen_where_needed();
    }

    /// Tells the channels that asked a request what became of it. Never waits.
    pub fn settled(&self, row: &Arc<PermissionRow>) {
        for handle in self.lock().values() {
            handle.settled(row);
        }
    }

    /// Tells what became of requests that were over while no node was there to tell it.
    pub(super) async fn close_old(&self) {
        let Some(answers) = self.answers.get() else { return };
        match answers.unclosed(self.clock.now_ms()).await {
            Ok(rows) => rows.into_iter().for_each(|row| self.settled(&Arc::new(row))),
            Err(error) => warn!(%error, "questions that are over keep their buttons until they are pressed"),
        }
    }

    /// Offers a notice to every channel that wants it, unless the same was offered before from another side. Never waits.
    pub fn tell(&self, notice: &Arc<Notice>) {
        if notice.once.as_ref().is_some_and(|key| !self.is_first(key)) {
            return;
        }
        for handle in self.lock().values() {
            handle.offer(notice);
        }
    }

    /// Whether a channel wants to hear of messages, kept up to date: what nobody hears need not be made.
    #[must_use]
    pub fn messages_wanted(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.messages_wanted)
    }

    /// Adds a channel, or replaces the one of its name; what waits in that one's queue is dropped.
    ///
    /// # Errors
    /// [`NotifyError`].
    pub fn set(self: &Arc<Self>, channel: Channel) -> Result<(), NotifyError> {
        channel.check(self.outbound.rules())?;
        let is_new = !self.lock().contains_key(&channel.name);
        if is_new && self.lock().len() >= CHANNELS_MAX {
            return Err(NotifyError::Many);
        }
        self.files.put(&channel)?;
        self.start(channel);
        self.listen_where_needed();
        Ok(())
    }

    /// Removes a channel with its secret.
    ///
    /// # Errors
    /// [`NotifyError`].
    pub fn remove(self: &Arc<Self>, name: &str) -> Result<(), NotifyError> {
        if !self.lock().contains_key(name) {
            return Err(NotifyError::NotFound(name.chars().take(64).collect()));
        }
        self.files.remove(name)?;
        self.update(|live| live.remove(name));
        self.listen_where_needed();
        Ok(())
    }

    /// Every channel and how it is doing, by name.
    #[must_use]
    pub fn list(&self) -> Vec<(Channel, Status)> {
        self.lock().values().map(|handle| (Channel::clone(handle.channel()), handle.status())).collect()
    }

    /// Sends a word by a channel now, past its queue.
    ///
    /// # Errors
    /// [`NotifyError::Trouble`] with what the service said.
    pub async fn try_out(&self, name: &str) -> Result<(), NotifyError> {
        let channel = self.lock().get(name).map(|handle| Arc::clone(handle.channel()));
        let channel = channel.ok_or_else(|| NotifyError::NotFound(name.chars().take(64).collect()))?;
        let notice = Arc::new(Notice::new("test", "This is a test of Murmur's notifications.", self.clock.now_ms()));
        let parcel = Parcel::Lines(vec![notice]);
        let sent = service::send(&self.outbound, &self.config, &channel, &parcel, self.clock.now_ms()).await;
        match sent {
            Ok(_) => {
                if let Some(handle) = self.lock().get(name) {
                    handle.mended();
                }
                Ok(())
            }
            Err(trouble) => Err(NotifyError::Trouble(trouble)),
        }
    }

    /// Waits for a person to send a code to a Telegram bot, and says which chat it came from.
    ///
    /// # Errors
    /// [`PairError`].
    pub async fn pair(
        self: &Arc<Self>,
        token: &str,
        shown: impl FnOnce(&str, &str) + Send,
    ) -> Result<Paired, PairError> {
        // A bot has one listener at a time.
        drop(self.listening().remove(token));
        let _again = ListenAgain(self);
        pair::pair(self, token, shown).await
    }

    /// Waits until every channel's task has ended; to be called when the node goes down.
    pub async fn ended(&self) {
        self.stop.cancelled().await;
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn start(self: &Arc<Self>, channel: Channel) {
        let name = channel.name.clone();
        let handle = worker::start(self, channel);
        // The task of the one before ends with its handle.
        self.update(|live| live.insert(name, handle));
    }

    /// Changes the live channels, and notes whether one of them wants messages.
    fn update(&self, change: impl FnOnce(&mut BTreeMap<String, Handle>) -> Option<Handle>) {
        let mut live = self.lock();
        let replaced = change(&mut live);
        let are_wanted = live.values().any(|handle| handle.channel().filter.wants(MESSAGE));
        self.messages_wanted.store(are_wanted, Ordering::SeqCst);
        drop(live);
        drop(replaced);
    }

    /// Waits until a call may be made, and counts it.
    async fn wait_for(&self, rates: &[(String, Rate)]) {
        while let Err(wait) = self.paces.take(rates, Instant::now()) {
            tokio::time::sleep(wait).await;
        }
    }

    /// Whether nothing was told under this key so far, as far as is remembered.
    fn is_first(&self, key: &str) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.iter().any(|known| known == key) {
            return false;
        }
        if told.len() == TOLD_MAX {
            told.pop_front();
        }
        told.push_back(key.to_owned());
        true
    }

    fn channels(&self) -> Vec<Arc<Channel>> {
        self.lock().values().map(|handle| Arc::clone(handle.channel())).collect()
    }

    fn listening(&self) -> MutexGuard<'_, BTreeMap<String, DropGuard>> {
        self.listening.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Handle>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Listens again when somebody else does no more, however that ended.
struct ListenAgain<'a>(&'a Arc<Notify>);

impl Drop for ListenAgain<'_> {
    fn drop(&mut self) {
        self.0.listen_where_needed();
    }
}

#[cfg(test)]
mod tests;
