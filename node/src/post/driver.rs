//! The driver: does what the outbox machine asks for, when it asks for it.
//!
//! One task owns the lanes, one for each pair of sender and recipient, and one timer for the earliest time that any delivery
//! named. A lane is worked on by one task at a time, from its head, so that what was accepted first is published first
//! (PROTOCOL §5.4). Nothing polls: work arrives as committed steps, and waiting deliveries are looked at again when the
//! directory changes or the broker comes back.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, hash_map::Entry as MapEntry},
    sync::Arc,
    time::Duration,
};

use murmur_core::{
    id::AgentId,
    outbox::{Effect, Event, Row, StateName},
};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::{
    Post,
    direct::Coming,
    lane,
    lane::{Job, LaneReport, Need},
    moved,
    page::{self, Page, Position, Rest},
    transition::{self, Key, Stepped},
};
use crate::{
    directory::Directory,
    store::{
        StoreError,
        delivery::{self, DeliveryRow},
    },
};

/// Deliveries that one task takes from a lane: they are sealed in one commit.
const LANE_BATCH: usize = 32;
/// A delivery that waits for its turn is looked at this often.
const LOOK_AGAIN_MS: u64 = 600_000;
/// Looks for overdue deliveries that only the store knows are this far apart at least,
const EXPIRE_EVERY_MS: u64 = 1_000;
/// or so many times as long as the last one took, but never further than
const EXPIRE_SHARE: u64 = 100;
/// this.
const EXPIRE_EVERY_MS_MAX: u64 = 60_000;
/// Ends that are remembered, and as many again.
const ENDED_MAX: usize = 4_096;

/// What reaches the driver.
pub(super) enum Work {
    /// A step was committed.
    Stepped(Stepped),
    /// A new message was committed that is not sealed yet.
    Queued(Stepped, Coming),
    /// A task is through with a lane.
    LaneDone(Lane, LaneReport),
    /// A message that was sealed before it was accepted is committed and is being published.
    Direct(Stepped),
    /// It was not published, or the broker did not take it: what it needs now, if that is not in a step of its own, and what kept the
    /// lane until this is heard.
    DirectLeft(Lane, Key, Option<Need>, Option<Coming>),
    /// What the store has of a lane.
    Page(Page),
    /// Overdue deliveries were looked for.
    Expired(Looked),
    /// What was open at the start has been handed over.
    Loaded,
}

/// How a look for overdue deliveries went.
pub(super) struct Looked {
    /// When the next one expires.
    pub(super) next_ms: Option<u64>,
    /// How long it took.
    pub(super) took_ms: u64,
}

/// Messages of one agent to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Lane {
    pub(super) sender: AgentId,
    pub(super) recipient: AgentId,
}

impl Lane {
    const fn of(row: &DeliveryRow) -> Self {
        Self { sender: row.sender, recipient: row.recipient }
    }
}

#[derive(Default)]
struct LaneState {
    /// What is not with the broker yet, as far as it is known here.
    waiting: BTreeMap<Position, Key>,
    /// What only the store knows.
    rest: Rest,
    /// What was heard of while a page is read, and not taken up: what the page says of it is old.
    heard: HashSet<Key>,
    /// Whether the gate was told that something waits.
    is_gated: bool,
    busy: bool,
    /// The broker refused something lately: publish one by one.
    careful: bool,
}

struct Entry {
    lane: Lane,
    sequence: u64,
    expires_ms: u64,
    /// Of the last step that was heard of: steps are committed in order, and may be heard of out of order.
    number: u64,
    /// The attempt that it was at.
    seal_attempt: u32,
    need: Option<Need>,
    at_ms: Option<u64>,
}

impl Entry {
    fn new(lane: Lane, Stepped { row, number, effects: _ }: &Stepped) -> Self {
        let (sequence, expires_ms) = (row.sequence, row.delivery.expires_ms);
        let seal_attempt = Row::from(row.delivery.state).seal_attempt;
        Self { lane, sequence, expires_ms, number: *number, seal_attempt, need: None, at_ms: None }
    }
}

/// With which step deliveries have ended lately: what is heard of them later was before it.
#[derive(Default)]
struct Ended {
    young: HashMap<Key, u64>,
    old: HashMap<Key, u64>,
}

impl Ended {
    fn note(&mut self, key: Key, number: u64) {
        if self.young.len() >= ENDED_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        let last = self.young.entry(key).or_insert(number);
        *last = number.max(*last);
    }

    fn is_after(&self, stepped: &Stepped) -> bool {
        let key = stepped.key();
        self.young.get(&key).or_else(|| self.old.get(&key)).is_some_and(|number| stepped.number < *number)
    }
}

struct Driver {
    post: Arc<Post>,
    lanes: HashMap<Lane, LaneState>,
    entries: HashMap<Key, Entry>,
    ended: Ended,
    timers: BTreeSet<(u64, Key)>,
    /// Heads of lanes that wait for their recipient's keys.
    keyless: HashSet<Key>,
    /// Heads of lanes that the broker did not take.
    refused: HashSet<Key>,
    /// When to look for overdue deliveries that only the store knows.
    expire_at_ms: Option<u64>,
    /// Not before this.
    expire_after_ms: u64,
    permits: Arc<Semaphore>,
    /// What was open at the start is known.
    is_loaded: bool,
    /// Recipients that have moved to another node, until their keys of there are known.
    moved: HashSet<AgentId>,
}

/// Takes up what is open after a start, the first page of each lane.
pub(super) async fn load(post: &Arc<Post>) -> Result<(), StoreError> {
    let mut has_rest = false;
    for lane in page::lanes(post).await? {
        let page = page::read(post, lane, page::START).await?;
        has_rest |= !page.is_last;
        let _ = post.work.send(Work::Page(page));
    }
    if has_rest {
        let next_ms = post.store.read(delivery::earliest_expiry).await?;
        let _ = post.work.send(Work::Expired(Looked { next_ms, took_ms: 0 }));
    }
    let _ = post.work.send(Work::Loaded);
    Ok(())
}

/// Drives until `token` is cancelled.
pub(super) async fn run(post: Arc<Post>, mut work: mpsc::UnboundedReceiver<Work>, token: CancellationToken) {
    let mut directory = post.directory.changed();
    let (mut connected, mut store_losses) = (post.bus.connected(), post.bus.store_losses());
    // A loss may have been found while what is open was being read.
    if *store_losses.borrow_and_update() > 0 {
        store_losses.mark_changed();
    }
    let mut driver = Driver::new(post);
    loop {
        let wait = driver.until_next_timer();
        tokio::select! {
            () = token.cancelled() => return,
            Some(work) = work.recv() => driver.handle(work),
            Ok(()) = directory.changed() => driver.directory_changed(),
            Ok(()) = connected.changed() => {
                if *connected.borrow_and_update() {
                    driver.broker_is_back();
                }
            }
            Ok(()) = store_losses.changed(), if driver.is_loaded => driver.broker_is_empty(),
            () = tokio::time::sleep(wait) => driver.tick(),
        }
    }
}

impl Driver {
    fn new(post: Arc<Post>) -> Self {
        let permits = Arc::new(Semaphore::new(post.config.publishes_in_flight.max(1)));
        Self {
            post,
            lanes: HashMap::new(),
            entries: HashMap::new(),
            ended: Ended::default(),
            timers: BTreeSet::new(),
            keyless: HashSet::new(),
            refused: HashSet::new(),
            expire_at_ms: None,
            expire_after_ms: 0,
            permits,
            is_loaded: false,
            moved: HashSet::new(),
        }
    }

    fn handle(&mut self, work: Work) {
        match work {
            Work::Stepped(stepped) => self.stepped(&stepped),
            Work::Queued(stepped, coming) => {
                // A page may have brought it already.
                if !self.entries.contains_key(&stepped.key()) {
                    self.stepped(&stepped);
                }
                drop(coming);
            }
            Work::Page(page) => self.page(page),
            Work::Expired(Looked { next_ms, took_ms }) => {
                let apart_ms = took_ms.saturating_mul(EXPIRE_SHARE).clamp(EXPIRE_EVERY_MS, EXPIRE_EVERY_MS_MAX);
                self.expire_after_ms = self.post.clock.now_ms().saturating_add(apart_ms);
                next_ms.into_iter().for_each(|next_ms| self.expire_at(next_ms));
            }
            Work::LaneDone(lane, report) => self.lane_done(lane, report),
            Work::Direct(stepped) => self.direct(&stepped),
            Work::DirectLeft(lane, key, need, coming) => {
                self.direct_left(lane, key, need);
                drop(coming);
            }
            Work::Loaded => {
                self.is_loaded = true;
                self.post.gate.open();
                self.follow_moved(self.post.clock.now_ms());
            }
        }
    }

    /// Somebody else publishes it; here is only watched what becomes of it.
    fn direct(&mut self, stepped: &Stepped) {
        let key = stepped.key();
        if self.ended.is_after(stepped) {
            return;
        }
        match self.entries.entry(key) {
            // What came of it was heard of first.
            MapEntry::Occupied(_) => return,
            MapEntry::Vacant(place) => place.insert(Entry::new(Lane::of(&stepped.row), stepped)),
        };
        for effect in &stepped.effects {
            self.effect(key, *effect);
        }
    }

    /// Takes up what the store has of a lane, except what is known here already.
    fn page(&mut self, Page { lane, steps, end, is_last }: Page) {
        let state = self.lanes.entry(lane).or_default();
        // What came meanwhile may belong into the page, and may have come too late for it.
        let left = match state.rest {
            Rest::Reading { left, .. } => left.map(page::before),
            Rest::None | Rest::Behind(_) => None,
        };
        // While it is being taken up, nothing of it is behind anything.
        state.rest = Rest::None;
        let heard = std::mem::take(&mut state.heard);
        for stepped in steps {
            if !heard.contains(&stepped.key()) && !self.entries.contains_key(&stepped.key()) {
                self.take_up(&stepped);
            }
        }
        if let Some(behind) = left.into_iter().chain((!is_last).then_some(end)).min() {
            self.lanes.entry(lane).or_default().rest = Rest::Behind(behind);
        }
        self.start(lane);
    }

    /// Whether a delivery that is new here is left to the store, to come with a page.
    fn leaves_to_store(&mut self, lane: Lane, row: &DeliveryRow) -> bool {
        let state = self.lanes.entry(lane).or_default();
        let position = (row.sequence, row.msg_id);
        let is_left = match &mut state.rest {
            Rest::None if state.waiting.len() < page::KNOWN_MAX => false,
            Rest::None => {
                let last = state.waiting.last_key_value().map_or(page::START, |(last, _)| *last);
                let is_behind = position > last;
                if is_behind {
                    state.rest = Rest::Behind(last);
                }
                is_behind
            }
            Rest::Behind(behind) => position > *behind,
            Rest::Reading { behind, left } => {
                let is_behind = position > *behind;
                if is_behind {
                    *left = Some(left.map_or(position, |first| first.min(position)));
                    state.heard.insert(Key { msg_id: row.msg_id, recipient: row.recipient });
                }
                is_behind
            }
        };
        if is_left {
            self.expire_at(row.delivery.expires_ms);
        }
        is_left
    }

    /// Looks for overdue deliveries that only the store knows at this time at the latest, and not too often.
    fn expire_at(&mut self, expires_ms: u64) {
        let at_ms = expires_ms.max(self.expire_after_ms);
        self.expire_at_ms = Some(self.expire_at_ms.map_or(at_ms, |before| before.min(at_ms)));
    }

    fn direct_left(&mut self, lane: Lane, key: Key, need: Option<Need>) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        let state = self.lanes.entry(lane).or_default();
        state.waiting.insert((entry.sequence, key.msg_id), key);
        if need.is_some() {
            // It may have to be sealed anew.
            entry.need = entry.need.or(need);
        } else {
            state.careful = true;
            self.refused.insert(key);
        }
        self.start(lane);
    }

    fn stepped(&mut self, stepped: &Stepped) {
        let row = &stepped.row;
        let lane = Lane::of(row);
        let state = row.delivery.state.name();
        let is_new = state.is_open() && !self.entries.contains_key(&stepped.key());
        // Late word of one that has ended: the broker's answer is noted after its recipient's.
        let is_stale = is_new && (state == StateName::Stored || self.ended.is_after(stepped));
        let is_passed_over = is_stale || (is_new && self.leaves_to_store(lane, row));
        if !is_passed_over {
            self.take_up(stepped);
        }
        self.start(lane);
    }

    fn take_up(&mut self, stepped: &Stepped) {
        let (key, row) = (stepped.key(), &stepped.row);
        let lane = Lane::of(row);
        let state = row.delivery.state.name();
        if !state.is_open() {
            if self.entries.get(&key).is_some_and(|entry| stepped.number < entry.number) {
                // It was begun again since.
                return;
            }
            if let Some(LaneState { rest: Rest::Reading { .. }, heard, .. }) = self.lanes.get_mut(&lane) {
                heard.insert(key);
            }
            self.ended.note(key, stepped.number);
            return self.forget(lane, key, row.sequence);
        }
        let entry = self.entries.entry(key).or_insert_with(|| Entry::new(lane, stepped));
        let waiting = &mut self.lanes.entry(lane).or_default().waiting;
        let seal_attempt = Row::from(row.delivery.state).seal_attempt;
        if stepped.number < entry.number {
            // What it asks for is still to be done, unless the later one asks for something else.
            if seal_attempt == entry.seal_attempt && waiting.contains_key(&(row.sequence, key.msg_id)) {
                entry.need = entry.need.or(stepped.effects.iter().rev().find_map(need_of));
            }
            return;
        }
        (entry.number, entry.seal_attempt) = (stepped.number, seal_attempt);
        if state == StateName::Stored {
            waiting.remove(&(row.sequence, key.msg_id));
            // Should its next try have been due meanwhile, nothing comes of it any more.
            entry.need = None;
            self.post.windows.force(lane, key);
        } else {
            waiting.insert((row.sequence, key.msg_id), key);
        }
        for effect in &stepped.effects {
            self.effect(key, *effect);
        }
    }

    fn effect(&mut self, key: Key, effect: Effect) {
        match effect {
            Effect::Seal { .. } | Effect::Publish => self.set_need(key, need_of(&effect)),
            Effect::ScheduleAt { at_ms } => self.schedule(key, at_ms),
            Effect::Resolve => {
                self.post.tasks.spawn(lane::resolve(Arc::clone(&self.post), key));
            }
            Effect::CountDuplicateSuspect => self.post.counters.duplicate_suspects.add(),
            // Done in the step's own transaction, or by whoever committed it.
            Effect::RenewNatsMsgId | Effect::Report(_) => {}
        }
    }

    fn set_need(&mut self, key: Key, need: Option<Need>) {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.need = need;
        }
    }

    fn schedule(&mut self, key: Key, at_ms: u64) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        if let Some(before) = entry.at_ms.replace(at_ms) {
            self.timers.remove(&(before, key));
        }
        self.timers.insert((at_ms, key));
    }

    fn forget(&mut self, lane: Lane, key: Key, sequence: u64) {
        self.keyless.remove(&key);
        self.refused.remove(&key);
        if let Some(Entry { at_ms: Some(at_ms), .. }) = self.entries.remove(&key) {
            self.timers.remove(&(at_ms, key));
        }
        if let Some(state) = self.lanes.get_mut(&lane) {
            state.waiting.remove(&(sequence, key.msg_id));
        }
        // The broker may have it without its being known here.
        self.post.windows.forget(lane, key, sequence);
        self.try_refused(lane.recipient);
    }

    /// What the broker had no room for, or did not take, of whoever else writes to a recipient is tried again now that it takes something.
    fn try_refused(&mut self, recipient: AgentId) {
        let waiting: Vec<Key> = self.refused.iter().copied().filter(|key| key.recipient == recipient).collect();
        for key in waiting {
            self.refused.remove(&key);
            self.step_soon(key, Event::Restarted);
        }
    }

    /// When a step is tried again that nothing is heard of.
    fn answer_due_ms(&self) -> u64 {
        self.post.clock.now_ms().saturating_add(self.post.config.outbox.answer_wait_ms.max(1_000))
    }

    /// Sets a task to the lane's head and what follows it, if there is something to do and nobody does it.
    fn start(&mut self, lane: Lane) {
        let Some(state) = self.lanes.get_mut(&lane) else { return };
        let is_gated = state.busy || !state.waiting.is_empty() || state.rest != Rest::None;
        if state.is_gated != is_gated {
            state.is_gated = is_gated;
            self.post.gate.set_driven(lane, is_gated);
        }
        if let Rest::Behind(behind) = state.rest
            && state.waiting.len() < page::LOW
        {
            state.rest = Rest::Reading { behind, left: None };
            self.post.tasks.spawn(page::fetch(Arc::clone(&self.post), lane, behind));
        }
        if state.busy {
            return;
        }
        if is_gated {
            // What is held before the gate closed goes first, or it would be overtaken.
            self.adopt_held(lane);
        }
        let Some(state) = self.lanes.get_mut(&lane) else { return };
        let mut jobs = Vec::new();
        for key in state.waiting.values().take(LANE_BATCH) {
            let Some(entry) = self.entries.get_mut(key).filter(|entry| entry.need.is_some()) else { break };
            if !self.post.windows.enter(lane, *key) {
                break;
            }
            let Some(need) = entry.need.take() else { break };
            self.keyless.remove(key);
            self.refused.remove(key);
            jobs.push(Job { key: *key, need });
        }
        if jobs.is_empty() {
            if state.waiting.is_empty() && state.rest == Rest::None {
                self.post.gate.set_driven(lane, false);
                self.lanes.remove(&lane);
            }
            return;
        }
        state.busy = true;
        let careful = state.careful;
        let answer_due_ms = self.answer_due_ms();
        for job in &jobs {
            // What is committed next names its own time; if nothing is, this one stands.
            let expires_ms = self.entries.get(&job.key).map_or(answer_due_ms, |entry| entry.expires_ms);
            self.schedule(job.key, answer_due_ms.min(expires_ms));
        }
        let (post, permits) = (Arc::clone(&self.post), Arc::clone(&self.permits));
        self.post.tasks.spawn(async move {
            // The semaphore is never closed.
            let _permit = permits.acquire_owned().await;
            let report = lane::work(&post, lane.sender, lane.recipient, jobs, careful).await;
            let _ = post.work.send(Work::LaneDone(lane, report));
        });
    }

    /// Takes over what waits for room before the driver.
    fn adopt_held(&mut self, lane: Lane) {
        for direct in self.post.windows.take_held(lane) {
            let key = direct.ready.key;
            let Some(entry) = self.entries.get_mut(&key) else {
                // Word of it is on its way here, or it has ended.
                let _ = self.post.work.send(Work::DirectLeft(lane, key, Some(Need::Publish), None));
                continue;
            };
            // It may have to be sealed anew.
            entry.need.get_or_insert(Need::Publish);
            self.lanes.entry(lane).or_default().waiting.insert((entry.sequence, key.msg_id), key);
        }
    }

    fn lane_done(&mut self, lane: Lane, report: LaneReport) {
        let LaneReport { published, left, keyless, unsealable, refused } = report;
        let unpublished = left.iter().map(|job| &job.key).chain(&keyless).chain(&unsealable).chain(&refused);
        unpublished.for_each(|key| self.post.windows.leave(lane, *key));
        if let Some(state) = self.lanes.get_mut(&lane) {
            state.busy = false;
            state.careful = !refused.is_empty() || (state.careful && published.is_empty());
            for key in published.into_iter().chain(unsealable) {
                // One that is needed again already was refused by its recipient in the meantime, or its next try is due.
                if let Some(entry) = self.entries.get(&key).filter(|entry| entry.need.is_none()) {
                    state.waiting.remove(&(entry.sequence, key.msg_id));
                }
            }
        }
        for Job { key, need } in left {
            let waiting = self.lanes.get(&lane).map(|state| &state.waiting);
            if let Some(entry) = self.entries.get_mut(&key)
                && waiting.is_some_and(|waiting| waiting.contains_key(&(entry.sequence, key.msg_id)))
            {
                entry.need.get_or_insert(need);
            }
        }
        self.keyless.extend(keyless);
        self.refused.extend(refused);
        self.start(lane);
    }

    /// Recipients that have keys now, or are known to be gone, need not wait for their timer.
    fn directory_changed(&mut self) {
        let now_ms = self.post.clock.now_ms();
        let (directory, keyless) = (&self.post.directory, &mut self.keyless);
        let ready: Vec<Key> =
            keyless.iter().copied().filter(|key| is_ready(directory, key.recipient, now_ms)).collect();
        for key in ready {
            self.keyless.remove(&key);
            self.step_soon(key, Event::Restarted);
        }
        self.follow_moved(now_ms);
        let revoked = self.post.directory.take_revoked();
        if !revoked.is_empty() {
            self.post.tasks.spawn(lane::resolve_revoked(Arc::clone(&self.post), revoked));
        }
    }

    /// What the broker has for a recipient at the node that it has left is sealed anew as soon as the keys of its new node are known.
    fn follow_moved(&mut self, now_ms: u64) {
        let moved = self.post.directory.take_moved();
        if !moved.is_empty() {
            self.post.tasks.spawn(moved::give_back(Arc::clone(&self.post)));
        }
        self.moved.extend(moved);
        if !self.is_loaded {
            return;
        }
        let directory = &self.post.directory;
        let ready: HashSet<AgentId> =
            self.moved.iter().copied().filter(|agent| directory.verified(*agent, now_ms).is_ok()).collect();
        if !ready.is_empty() {
            self.moved.retain(|agent| !ready.contains(agent));
            self.resolve_stored(|key| ready.contains(&key.recipient));
        }
    }

    fn broker_is_back(&mut self) {
        for key in std::mem::take(&mut self.refused) {
            self.step_soon(key, Event::Restarted);
        }
    }

    /// What the broker had is gone with its store: it is published anew now and not when its receipt is overdue. Some of it may have been
    /// stored since, which costs a repeat that its recipient knows.
    fn broker_is_empty(&self) {
        let messages = self.resolve_stored(|_| true);
        tracing::warn!(messages, "the broker has lost its store: what it had is published again");
    }

    /// Looks up again what the broker has, as if its receipt were overdue. Returns how many there are.
    fn resolve_stored(&self, of: impl Fn(&Key) -> bool) -> usize {
        let waits = |key: &Key, entry: &Entry| {
            let lane = self.lanes.get(&entry.lane);
            lane.is_some_and(|lane| lane.waiting.contains_key(&(entry.sequence, key.msg_id)))
        };
        let stored = self.entries.iter().filter(|(key, _)| of(key));
        let stored = stored.filter(|(key, entry)| entry.need.is_none() && !waits(key, entry)).map(|(key, _)| *key);
        let mut count = 0;
        for key in stored {
            self.post.tasks.spawn(lane::resolve(Arc::clone(&self.post), key));
            count += 1;
        }
        count
    }

    fn until_next_timer(&self) -> Duration {
        const IDLE: Duration = Duration::from_secs(3600);
        let now_ms = self.post.clock.now_ms();
        let first_ms = self.timers.first().map(|(at_ms, _)| *at_ms).into_iter().chain(self.expire_at_ms).min();
        first_ms.map_or(IDLE, |at_ms| Duration::from_millis(at_ms.saturating_sub(now_ms)).min(IDLE))
    }

    fn tick(&mut self) {
        let now_ms = self.post.clock.now_ms();
        if self.expire_at_ms.take_if(|at_ms| *at_ms <= now_ms).is_some() {
            self.post.tasks.spawn(page::expire(Arc::clone(&self.post)));
        }
        while let Some((_, key)) = self.timers.first().copied().filter(|(at_ms, _)| *at_ms <= now_ms) {
            if let Some(expires_ms) = self.waits_for_room(key).filter(|expires_ms| *expires_ms > now_ms) {
                // Its lane comes to it; nothing is overdue but its end. Should something have gone wrong, it is looked at again.
                self.schedule(key, expires_ms.min(now_ms.saturating_add(LOOK_AGAIN_MS)));
                continue;
            }
            // Should the step fail, it is tried again; what comes of it names another time.
            self.schedule(key, self.answer_due_ms());
            self.step_soon(key, Event::Tick);
        }
    }

    /// When a delivery expires that has nothing to do but wait for its turn.
    fn waits_for_room(&self, key: Key) -> Option<u64> {
        let entry = self.entries.get(&key)?;
        let waits = entry.need.is_some() || self.post.windows.holds(entry.lane, entry.sequence);
        waits.then_some(entry.expires_ms)
    }

    fn step_soon(&self, key: Key, event: Event) {
        let post = Arc::clone(&self.post);
        self.post.tasks.spawn(async move { post.step(key, event).await });
    }
}

/// What an effect asks for of whoever works on the lane.
const fn need_of(effect: &Effect) -> Option<Need> {
    match *effect {
        Effect::Seal { seal_attempt } => Some(Need::Seal { seal_attempt }),
        Effect::Publish => Some(Need::Publish),
        _ => None,
    }
}

/// Whether there is something to do now for a recipient that had no keys.
fn is_ready(directory: &Directory, recipient: AgentId, now_ms: u64) -> bool {
    directory.verified(recipient, now_ms).is_ok() || directory.is_gone(recipient)
}

impl Post {
    /// Steps a delivery and acts on what comes of it. A store that fails is logged; the timer tries again.
    pub(super) async fn step(&self, key: Key, event: Event) {
        let (now_ms, config) = (self.clock.now_ms(), self.config.outbox.clone());
        let stepped = self.store.write(move |tx| transition::step(tx, key, event, now_ms, &config)).await;
        match stepped {
            Ok(stepped) => stepped.into_iter().for_each(|stepped| self.follow_up(stepped)),
            Err(error) => tracing::warn!(%error, msg_id = %key.msg_id, "a delivery could not be moved on"),
        }
    }
}

#[cfg(test)]
#[path = "driver_tests.rs"]
mod tests;
