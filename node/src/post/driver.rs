//! The driver: does what the outbox machine asks for, when it asks for it.
//!
//! One task owns the lanes, one for each pair of sender and recipient, and one timer for the earliest time that any delivery
//! named. A lane is worked on by one task at a time, from its head, so that what was accepted first is published first
//! (PROTOCOL §5.4). Nothing polls: work arrives as committed steps, and waiting deliveries are looked at again when the
//! directory changes or the broker comes back.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
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
    transition::{self, Key, Stepped},
};
use crate::{
    directory::Directory,
    store::{
        StoreError, Tx,
        delivery::{self, DeliveryRow},
    },
};

/// Deliveries that one task takes from a lane: they are sealed in one commit.
const LANE_BATCH: usize = 32;
/// Deliveries stepped in one transaction at the start.
const LOAD_BATCH: usize = 256;

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
    /// What was open at the start has been handed over.
    Loaded,
}

/// Messages of one agent to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Lane {
    pub(super) sender: AgentId,
    pub(super) recipient: AgentId,
}

#[derive(Default)]
struct LaneState {
    /// What is not with the broker yet, by sequence.
    waiting: BTreeMap<u64, Key>,
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
    /// The highest attempt heard of: steps are committed in order, and may be heard of out of order.
    seal_attempt: u32,
    need: Option<Need>,
    at_ms: Option<u64>,
}

impl Entry {
    const fn new(lane: Lane, row: &DeliveryRow, seal_attempt: u32) -> Self {
        let (sequence, expires_ms) = (row.sequence, row.delivery.expires_ms);
        Self { lane, sequence, expires_ms, seal_attempt, need: None, at_ms: None }
    }
}

struct Driver {
    post: Arc<Post>,
    lanes: HashMap<Lane, LaneState>,
    entries: HashMap<Key, Entry>,
    timers: BTreeSet<(u64, Key)>,
    /// Heads of lanes that wait for their recipient's keys.
    keyless: HashSet<Key>,
    /// Heads of lanes that the broker did not take.
    refused: HashSet<Key>,
    permits: Arc<Semaphore>,
}

/// Takes up every open delivery after a start.
pub(super) async fn load(post: &Arc<Post>) -> Result<(), StoreError> {
    let open = post.store.read(delivery::open).await?;
    let keys: Vec<Key> = open.iter().map(|row| Key { msg_id: row.msg_id, recipient: row.recipient }).collect();
    for batch in keys.chunks(LOAD_BATCH) {
        let (batch, now_ms, config) = (batch.to_vec(), post.clock.now_ms(), post.config.outbox.clone());
        let step_all = move |tx: Tx<'_>| -> Result<Vec<Stepped>, StoreError> {
            let step = |key| transition::step(tx, key, Event::Restarted, now_ms, &config).transpose();
            batch.into_iter().filter_map(step).collect()
        };
        for stepped in post.store.write(step_all).await? {
            post.follow_up(stepped);
        }
    }
    let _ = post.work.send(Work::Loaded);
    Ok(())
}

/// Drives until `token` is cancelled.
pub(super) async fn run(post: Arc<Post>, mut work: mpsc::UnboundedReceiver<Work>, token: CancellationToken) {
    let mut directory = post.directory.changed();
    let mut connected = post.bus.connected();
    let permits = Arc::new(Semaphore::new(post.config.publishes_in_flight.max(1)));
    let mut driver = Driver {
        post,
        lanes: HashMap::new(),
        entries: HashMap::new(),
        timers: BTreeSet::new(),
        keyless: HashSet::new(),
        refused: HashSet::new(),
        permits,
    };
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
            () = tokio::time::sleep(wait) => driver.tick(),
        }
    }
}

impl Driver {
    fn handle(&mut self, work: Work) {
        match work {
            Work::Stepped(stepped) => self.stepped(&stepped),
            Work::Queued(stepped, coming) => {
                self.stepped(&stepped);
                drop(coming);
            }
            Work::LaneDone(lane, report) => self.lane_done(lane, report),
            Work::Direct(stepped) => self.direct(&stepped),
            Work::DirectLeft(lane, key, need, coming) => {
                self.direct_left(lane, key, need);
                drop(coming);
            }
            Work::Loaded => self.post.gate.open(),
        }
    }

    /// Somebody else publishes it; here is only watched what becomes of it.
    fn direct(&mut self, stepped: &Stepped) {
        let (key, row) = (stepped.key(), &stepped.row);
        let lane = Lane { sender: row.sender, recipient: row.recipient };
        let seal_attempt = Row::from(row.delivery.state).seal_attempt;
        self.entries.insert(key, Entry::new(lane, row, seal_attempt));
        for effect in &stepped.effects {
            self.effect(key, *effect);
        }
    }

    fn direct_left(&mut self, lane: Lane, key: Key, need: Option<Need>) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        self.post.windows.leave(lane, key);
        let state = self.lanes.entry(lane).or_default();
        state.waiting.insert(entry.sequence, key);
        if need.is_some() {
            entry.need = need;
        } else {
            state.careful = true;
            self.refused.insert(key);
        }
        self.start(lane);
    }

    fn stepped(&mut self, stepped: &Stepped) {
        let (key, row) = (stepped.key(), &stepped.row);
        let lane = Lane { sender: row.sender, recipient: row.recipient };
        let state = row.delivery.state.name();
        if state.is_open() {
            let seal_attempt = Row::from(row.delivery.state).seal_attempt;
            let entry = self.entries.entry(key).or_insert_with(|| Entry::new(lane, row, seal_attempt));
            if seal_attempt < entry.seal_attempt {
                return;
            }
            entry.seal_attempt = seal_attempt;
            let waiting = &mut self.lanes.entry(lane).or_default().waiting;
            if state == StateName::Stored {
                waiting.remove(&row.sequence);
                self.post.windows.force(lane, key);
            } else {
                waiting.insert(row.sequence, key);
            }
            for effect in &stepped.effects {
                self.effect(key, *effect);
            }
        } else {
            self.forget(key);
        }
        self.start(lane);
    }

    fn effect(&mut self, key: Key, effect: Effect) {
        match effect {
            Effect::Seal { seal_attempt } => self.set_need(key, Need::Seal { seal_attempt }),
            Effect::Publish => self.set_need(key, Need::Publish),
            Effect::ScheduleAt { at_ms } => self.schedule(key, at_ms),
            Effect::Resolve => {
                self.post.tasks.spawn(lane::resolve(Arc::clone(&self.post), key));
            }
            Effect::CountDuplicateSuspect => self.post.counters.duplicate_suspects.add(),
            // Done in the step's own transaction, or by whoever committed it.
            Effect::RenewNatsMsgId | Effect::Report(_) => {}
        }
    }

    fn set_need(&mut self, key: Key, need: Need) {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.need = Some(need);
        }
    }

    fn schedule(&mut self, key: Key, at_ms: u64) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        if let Some(before) = entry.at_ms.replace(at_ms) {
            self.timers.remove(&(before, key));
        }
        self.timers.insert((at_ms, key));
    }

    fn forget(&mut self, key: Key) {
        self.keyless.remove(&key);
        self.refused.remove(&key);
        let Some(Entry { lane, sequence, at_ms, .. }) = self.entries.remove(&key) else { return };
        if let Some(at_ms) = at_ms {
            self.timers.remove(&(at_ms, key));
        }
        if let Some(state) = self.lanes.get_mut(&lane) {
            state.waiting.remove(&sequence);
        }
        self.post.windows.forget(lane, key, sequence);
    }

    /// Sets a task to the lane's head and what follows it, if there is something to do and nobody does it.
    fn start(&mut self, lane: Lane) {
        let Some(state) = self.lanes.get_mut(&lane) else { return };
        let is_gated = state.busy || !state.waiting.is_empty();
        if state.is_gated != is_gated {
            state.is_gated = is_gated;
            self.post.gate.set_driven(lane, is_gated);
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
            if state.waiting.is_empty() {
                self.post.gate.set_driven(lane, false);
                self.lanes.remove(&lane);
            }
            return;
        }
        state.busy = true;
        let careful = state.careful;
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
            let Some(entry) = self.entries.get_mut(&key) else { continue };
            entry.need = Some(Need::Publish);
            self.lanes.entry(lane).or_default().waiting.insert(entry.sequence, key);
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
                    state.waiting.remove(&entry.sequence);
                }
            }
        }
        for Job { key, need } in left {
            if let Some(entry) = self.entries.get_mut(&key) {
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
    }

    fn broker_is_back(&mut self) {
        for key in std::mem::take(&mut self.refused) {
            self.step_soon(key, Event::Restarted);
        }
    }

    fn until_next_timer(&self) -> Duration {
        const IDLE: Duration = Duration::from_secs(3600);
        let now_ms = self.post.clock.now_ms();
        self.timers.first().map_or(IDLE, |(at_ms, _)| Duration::from_millis(at_ms.saturating_sub(now_ms)).min(IDLE))
    }

    fn tick(&mut self) {
        let now_ms = self.post.clock.now_ms();
        while let Some((_, key)) = self.timers.first().copied().filter(|(at_ms, _)| *at_ms <= now_ms) {
            if let Some(expires_ms) = self.waits_for_room(key).filter(|expires_ms| *expires_ms > now_ms) {
                // Its lane comes to it; nothing is overdue but its end.
                self.schedule(key, expires_ms);
                continue;
            }
            // Should the step fail, it is tried again; what comes of it names another time.
            self.schedule(key, now_ms.saturating_add(self.post.config.outbox.answer_wait_ms.max(1_000)));
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
