//! Wakes: who is to look at the store again.
//!
//! Every wake is level-triggered. It says that something changed, never what; whoever is woken reads the store from its own
//! place, so that a lost or doubled wake costs nothing. What was committed last is kept beside the wake, to spare the reading.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use murmur_core::id::{AgentId, MessageId};
use tokio::sync::{Notify, broadcast, watch};

use super::{
    feed::Feed,
    types::{InboxMessage, MessageKind, TailItem},
};

/// Messages a slow follower may be behind before it loses some.
const TAIL_CAPACITY: usize = 256;

/// The places to wait at.
#[derive(Default)]
pub struct Hub {
    state: Mutex<State>,
    /// For whoever looks at all messages, once somebody does.
    seen: OnceLock<Seen>,
    /// Told when a row was pushed and none before it waits for its mark.
    first_push: Notify,
    /// Who follows deliveries: almost always nobody, so that the many steps of many messages need no lock.
    followers: AtomicUsize,
}

/// All messages, for whoever looks at them while they are wanted: each is copied for that.
struct Seen {
    wanted: Arc<AtomicBool>,
    sender: broadcast::Sender<TailItem>,
}

#[derive(Default)]
struct State {
    inboxes: HashMap<AgentId, Inbox>,
    requests: HashMap<MessageId, Waiters>,
    /// Messages whose delivery somebody follows.
    followed: HashMap<MessageId, Waiters>,
    tails: HashMap<AgentId, broadcast::Sender<TailItem>>,
    /// Rows of an inbox that are being marked as read by somebody who did not wait for it.
    marking: HashMap<AgentId, HashSet<u64>>,
    /// Rows pushed by a session whose mark is not yet on disk.
    pushed: HashSet<u64>,
}

/// Who looks at an inbox, and what came since.
#[derive(Default)]
struct Inbox {
    changed: watch::Sender<u64>,
    feed: Feed,
}

#[derive(Default)]
struct Waiters {
    count: usize,
    changed: watch::Sender<u64>,
    /// The reply, once it came, and how many other messages were unread then.
    reply: Option<(InboxMessage, u64)>,
}

impl Hub {
    /// Goes up whenever the agent's inbox changed: a message came, or a waiter gave its reply free.
    pub fn watch(&self, agent: AgentId) -> watch::Receiver<u64> {
        self.lock().inboxes.entry(agent).or_default().changed.subscribe()
    }

    pub(super) fn inbox_changed(&self, agent: AgentId) {
        if let Some(inbox) = self.lock().inboxes.get(&agent) {
            inbox.changed.send_modify(|version| *version += 1);
        }
    }

    /// Takes the row of the last commit, in the order of the commits, and wakes whoever looks at the inbox.
    pub(super) fn arrived(&self, agent: AgentId, message: Box<InboxMessage>) {
        let mut state = self.lock();
        let State { inboxes, requests, .. } = &mut *state;
        let Some(inbox) = inboxes.get_mut(&agent) else { return };
        if inbox.changed.receiver_count() == 0 {
            inboxes.remove(&agent);
            return;
        }
        match awaited(&message, requests) {
            Some(request) => inbox.feed.pass_over(message.cursor, request),
            None => inbox.feed.push(message),
        }
        inbox.changed.send_modify(|version| *version += 1);
    }

    /// What came behind a position; `None` when the store has to be asked.
    pub(super) fn take_behind(&self, agent: AgentId, position: u64) -> Option<Vec<InboxMessage>> {
        self.lock().inboxes.get_mut(&agent)?.feed.take_behind(position)
    }

    /// Notes that a session begins to read the store, and says where it may go on when it has read that to its end.
    pub(super) fn begin_look(&self, agent: AgentId) -> u64 {
        let mut state = self.lock();
        let State { inboxes, marking, .. } = &mut *state;
        let feed = &mut inboxes.entry(agent).or_default().feed;
        feed.begin_look(marking.get(&agent).cloned().unwrap_or_default());
        feed.begins_behind()
    }

    /// What of the unread rows that a session found in the store is to be shown. A reply is not while somebody waits for it, and neither is a
    /// row that was read meanwhile: whoever waited for it has it, and its mark may have come to the disk after the look.
    pub(super) fn end_look(&self, agent: AgentId, found: Vec<InboxMessage>) -> Vec<InboxMessage> {
        let mut state = self.lock();
        let State { inboxes, requests, .. } = &mut *state;
        let feed = &mut inboxes.entry(agent).or_default().feed;
        let read = feed.end_look();
        let unread = found.into_iter().filter(|message| !read.contains(&message.cursor));
        let shown = unread.filter(|message| match awaited(message, requests) {
            Some(request) => {
                feed.pass_over(message.cursor, request);
                false
            }
            None => true,
        });
        shown.collect()
    }

    /// Positions of replies that were passed over and that nobody waits for any more.
    pub(super) fn take_freed(&self, agent: AgentId) -> Vec<u64> {
        let mut state = self.lock();
        let State { inboxes, requests, .. } = &mut *state;
        let Some(inbox) = inboxes.get_mut(&agent) else { return Vec::new() };
        inbox.feed.take_freed(|request| requests.contains_key(&request))
    }

    /// Notes that a row is being marked as read without anybody waiting for it.
    pub(super) fn marking(&self, agent: AgentId, cursor: u64) {
        self.lock().marking.entry(agent).or_default().insert(cursor);
    }

    /// Notes that the mark is on disk, or never will be.
    pub(super) fn marked(&self, agent: AgentId, cursor: u64) {
        let mut state = self.lock();
        if let Some(cursors) = state.marking.get_mut(&agent) {
            cursors.remove(&cursor);
            if cursors.is_empty() {
                state.marking.remove(&agent);
            }
        }
    }

    pub(super) fn is_marking(&self, agent: AgentId) -> bool {
        self.lock().marking.contains_key(&agent)
    }

    /// Forgets rows that were read.
    pub(super) fn read(&self, agent: AgentId, cursors: &[u64]) {
        if let Some(inbox) = self.lock().inboxes.get_mut(&agent) {
            inbox.feed.forget(cursors);
        }
    }

    /// Registers a waiter: while there is one, the reply is its own and not pushed.
    pub(super) fn wait_for(&self, request: MessageId) -> watch::Receiver<u64> {
        let mut state = self.lock();
        let waiters = state.requests.entry(request).or_default();
        waiters.count += 1;
        waiters.changed.subscribe()
    }

    /// Takes a waiter back. The last one frees the reply.
    pub(super) fn stop_waiting(&self, request: MessageId, agent: AgentId) {
        {
            let mut state = self.lock();
            let Some(waiters) = state.requests.get_mut(&request) else { return };
            waiters.count -= 1;
            if waiters.count > 0 {
                return;
            }
            state.requests.remove(&request);
        }
        self.inbox_changed(agent);
    }

    /// Hands the reply that completed a request to whoever waits for it.
    pub(super) fn replied(&self, request: MessageId, reply: InboxMessage, unread: u64) {
        if let Some(waiters) = self.lock().requests.get_mut(&request) {
            waiters.reply = Some((reply, unread));
            waiters.changed.send_modify(|version| *version += 1);
        }
    }

    /// The reply to a request that came while somebody waited, and how many other messages were unread when it came.
    pub(super) fn reply(&self, request: MessageId) -> Option<(InboxMessage, u64)> {
        self.lock().requests.get(&request)?.reply.clone()
    }

    pub(super) fn request_changed(&self, request: MessageId) {
        if let Some(waiters) = self.lock().requests.get(&request) {
            waiters.changed.send_modify(|version| *version += 1);
        }
    }

    /// Registers who follows the delivery of a message. Look at the store only after this.
    pub(super) fn follow(&self, msg_id: MessageId) -> watch::Receiver<u64> {
        self.followers.fetch_add(1, Ordering::SeqCst);
        let mut state = self.lock();
        let waiters = state.followed.entry(msg_id).or_default();
        waiters.count += 1;
        waiters.changed.subscribe()
    }

    pub(super) fn stop_following(&self, msg_id: MessageId) {
        self.followers.fetch_sub(1, Ordering::SeqCst);
        let mut state = self.lock();
        let Some(waiters) = state.followed.get_mut(&msg_id) else { return };
        waiters.count -= 1;
        if waiters.count == 0 {
            state.followed.remove(&msg_id);
        }
    }

    /// Wakes who follows a message's delivery. To be called after the commit.
    pub(super) fn delivery_changed(&self, msg_id: MessageId) {
        if self.followers.load(Ordering::SeqCst) == 0 {
            return;
        }
        if let Some(waiters) = self.lock().followed.get(&msg_id) {
            waiters.changed.send_modify(|version| *version += 1);
        }
    }

    pub(super) fn tail(&self, agent: AgentId) -> broadcast::Receiver<TailItem> {
        self.lock().tails.entry(agent).or_insert_with(|| broadcast::Sender::new(TAIL_CAPACITY)).subscribe()
    }

    /// Every message of every agent that goes by while it is `wanted`; the first caller's flag decides.
    pub(super) fn seen(&self, wanted: Arc<AtomicBool>) -> broadcast::Receiver<TailItem> {
        let seen = self.seen.get_or_init(|| Seen { wanted, sender: broadcast::Sender::new(TAIL_CAPACITY) });
        seen.sender.subscribe()
    }

    /// Shows a message to those who follow the agent, or all of them; made only when somebody does.
    pub(super) fn show(&self, agent: AgentId, item: impl FnOnce() -> TailItem) {
        let tail = self.tail_of(agent);
        let seen = self.seen.get().filter(|seen| seen.wanted.load(Ordering::SeqCst));
        if tail.is_none() && seen.is_none() {
            return;
        }
        let item = item();
        // A follower may leave at any time.
        if let Some(seen) = seen {
            let _ = seen.sender.send(item.clone());
        }
        if let Some(tail) = tail {
            let _ = tail.send(item);
        }
    }

    /// Who follows an agent, if anybody still does.
    fn tail_of(&self, agent: AgentId) -> Option<broadcast::Sender<TailItem>> {
        let mut state = self.lock();
        let tail = state.tails.get(&agent)?;
        if tail.receiver_count() == 0 {
            state.tails.remove(&agent);
            return None;
        }
        Some(tail.clone())
    }

    /// Notes that a session was given these rows, until that or more is on disk.
    pub(super) fn pushing(&self, cursors: &[u64]) {
        let mut state = self.lock();
        if state.pushed.is_empty() && !cursors.is_empty() {
            self.first_push.notify_one();
        }
        state.pushed.extend(cursors);
    }

    /// Waits until a row was pushed whose mark is not on disk.
    pub(super) async fn any_pushing(&self) {
        while self.lock().pushed.is_empty() {
            self.first_push.notified().await;
        }
    }

    /// Notes that the mark is on disk, or that the row was read.
    pub(super) fn pushed_on_disk(&self, cursors: &[u64]) {
        let mut state = self.lock();
        for cursor in cursors {
            state.pushed.remove(cursor);
        }
    }

    /// The rows that a session was given and whose mark is not yet on disk.
    pub(super) fn in_push(&self) -> HashSet<u64> {
        self.lock().pushed.clone()
    }

    pub(super) fn is_pushing(&self, cursor: u64) -> bool {
        self.lock().pushed.contains(&cursor)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The request for whose sake a message is not shown for now: somebody waits for this reply, or its file is still coming. It is shown once,
/// with its file: the stream holds it until that is whole, or never will be.
fn awaited(message: &InboxMessage, requests: &HashMap<MessageId, Waiters>) -> Option<MessageId> {
    let request = message.in_reply_to.filter(|request| requests.contains_key(request));
    message.awaits_file().or(request.filter(|_| message.kind == MessageKind::Reply))
}
