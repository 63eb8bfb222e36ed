//! Publishing what was just committed, in the order of the commits, and noting the broker's answers.
//!
//! That the broker has a copy is noted lazily: it only spares a publish after a crash, and most often the recipient's own
//! acknowledgement comes first and says more.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use murmur_core::outbox::{Event, PublishAnswer};
use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::{
    Post,
    direct::Coming,
    driver::{Lane, Work},
    lane::Need,
    seal::Ready,
    transition::{self, Key, Stepped},
    window::Offered,
};
use crate::{failpoint::failpoint, store::StoreError};

/// Publishes of this task that may wait for the broker; further ones wait for a place.
const IN_FLIGHT_MAX: usize = 1_024;
/// Messages that the driver may not know of yet.
const UNTOLD_MAX: usize = 64;
/// How long it may not know of one, at most.
const TELL_LATER: Duration = Duration::from_millis(50);
/// How long the broker's answer stays in memory only, at least; twice that at most.
const NOTE_LATER: Duration = Duration::from_millis(250);
/// Answers noted in one transaction.
const NOTES_MAX: usize = 64;

/// A copy that was sealed before it was accepted, and is committed.
pub(super) struct Direct {
    pub(super) lane: Lane,
    pub(super) ready: Ready,
    pub(super) stepped: Stepped,
}

/// A publish that waits for the broker's answer.
struct Pending {
    lane: Lane,
    key: Key,
    seal_attempt: u32,
    answer: PublishAnswer,
}

/// The broker's good answers that are not on disk yet.
#[derive(Default)]
pub(super) struct Stored {
    marks: Mutex<Marks>,
    arrived: Notify,
}

/// By delivery, which seal attempt it was.
#[derive(Default)]
struct Marks {
    /// Since the last look: most of these are taken before the next one.
    young: HashMap<Key, u32>,
    /// From before.
    old: HashMap<Key, u32>,
}

impl Stored {
    fn note(&self, key: Key, seal_attempt: u32) {
        let mut marks = self.marks();
        if marks.young.is_empty() && marks.old.is_empty() {
            self.arrived.notify_one();
        }
        marks.young.insert(key, seal_attempt);
    }

    /// Takes out what is noted of a delivery; whoever takes it steps the delivery with it, or with something that says more.
    pub(super) fn take(&self, key: Key) -> Option<u32> {
        let mut marks = self.marks();
        marks.young.remove(&key).or_else(|| marks.old.remove(&key))
    }

    /// Some of those that a look has found before.
    fn take_some(&self) -> Vec<(Key, u32)> {
        let old = &mut self.marks().old;
        let keys: Vec<Key> = old.keys().take(NOTES_MAX).copied().collect();
        keys.into_iter().filter_map(|key| old.remove_entry(&key)).collect()
    }

    /// Looks, when everything old was taken, and says whether there is anything.
    fn grow_old(&self) -> bool {
        let marks = &mut *self.marks();
        marks.old.extend(marks.young.drain());
        !marks.old.is_empty()
    }

    fn marks(&self) -> MutexGuard<'_, Marks> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Publishes until `token` is cancelled; what is left then is published after the next start.
pub(super) async fn run(
    post: Arc<Post>,
    mut directs: mpsc::UnboundedReceiver<Direct>,
    mut room: mpsc::UnboundedReceiver<Lane>,
    token: CancellationToken,
) {
    let mut pending: FuturesUnordered<BoxFuture<'static, Pending>> = FuturesUnordered::new();
    // A set all of whose futures were polled at one time wakes its task once more, to no end. One of these is polled only once.
    pending.push(futures::future::pending().boxed());
    let mut untold = Vec::new();
    let mut alarm = std::pin::pin!(tokio::time::sleep(Duration::ZERO));
    let mut is_set = false;
    loop {
        if !untold.is_empty() && !is_set {
            alarm.as_mut().reset(Instant::now() + TELL_LATER);
            is_set = true;
        }
        tokio::select! {
            // Answers first: after a refusal nothing of its lane is published from here.
            biased;
            () = token.cancelled() => return,
            Some(answered) = pending.next() => {
                tell(&post, &mut untold);
                take_answer(&post, answered);
                // One of the set is never ready.
                let is_idle = pending.len() == 1 && directs.is_empty() && room.is_empty();
                if is_idle {
                    post.ahead.prepare();
                }
            }
            Some(lane) = room.recv(), if pending.len() <= IN_FLIGHT_MAX => {
                // One message left, one goes in: what else there is room for has told of itself.
                if let Some(direct) = post.windows.next(lane) {
                    let begun = publish(&post, direct).await;
                    pending.push(begun);
                }
            }
            Some(direct) = directs.recv(), if pending.len() <= IN_FLIGHT_MAX => {
                if untold.len() >= UNTOLD_MAX {
                    tell(&post, &mut untold);
                }
                let tell_now = |stepped: &Stepped| {
                    untold.push(stepped.clone());
                    tell(&post, &mut untold);
                };
                match post.windows.offer(direct, &post.gate, tell_now) {
                    Offered::Publish(direct) => {
                        untold.push(direct.stepped.clone());
                        let begun = publish(&post, direct).await;
                        pending.push(begun);
                    }
                    Offered::Held => {}
                    Offered::Left(directs, coming) => leave(&post, directs, coming),
                }
            }
            () = &mut alarm, if is_set => {
                is_set = false;
                tell(&post, &mut untold);
            }
        }
    }
}

/// Lets the driver know what is published here. It hears of each when the broker answers, or after a moment, so that whoever was woken by
/// the publish goes first; where what its recipient says is quicker, the driver finds it ended when its time comes.
fn tell(post: &Post, untold: &mut Vec<Stepped>) {
    for stepped in untold.drain(..) {
        let _ = post.work.send(Work::Direct(stepped));
    }
}

async fn publish(post: &Post, direct: Direct) -> BoxFuture<'static, Pending> {
    let Direct { lane, ready: Ready { key, seal_attempt, outgoing }, stepped: _ } = direct;
    let answer = begin(post, outgoing).await;
    async move { Pending { lane, key, seal_attempt, answer: answer.await } }.boxed()
}

/// Leaves messages of one lane that are committed and not published to the driver.
fn leave(post: &Post, directs: Vec<Direct>, coming: Coming) {
    let (mut coming, count) = (Some(coming), directs.len());
    for (at, Direct { lane, ready, stepped: _ }) in directs.into_iter().enumerate() {
        // The lane is the driver's when it has heard of the last one.
        let coming = coming.take_if(|_| at + 1 == count);
        let _ = post.work.send(Work::DirectLeft(lane, ready.key, Some(Need::Publish), coming));
    }
}

fn take_answer(post: &Arc<Post>, Pending { lane, key, seal_attempt, answer }: Pending) {
    if matches!(answer, PublishAnswer::Stored { duplicate: false }) {
        failpoint("S5");
        post.counters.published.add();
        post.stored.note(key, seal_attempt);
        return;
    }
    // From now on nothing overtakes it.
    let coming = post.gate.announce(lane);
    let post = Arc::clone(post);
    post.clone().tasks.spawn(async move {
        if !post.publish_answered(key, seal_attempt, answer).await {
            let _ = post.work.send(Work::DirectLeft(lane, key, None, Some(coming)));
        }
    });
}

/// Hands a copy to the broker's client; the future that comes back waits for the broker's answer.
pub(super) async fn begin(
    post: &Post,
    outgoing: crate::bus::Outgoing,
) -> impl Future<Output = PublishAnswer> + Send + use<> {
    let span = murmur_telemetry::hot_span!("post.publish");
    if let Some(traceparent) = &outgoing.traceparent {
        murmur_telemetry::set_parent(&span, traceparent);
    }
    let begun = post.bus.begin(outgoing).instrument(span.clone()).await;
    begun.instrument(span)
}

/// Writes the broker's good answers down, a while after they came. What is left at the end is written at once.
pub(super) async fn note_answers(post: Arc<Post>, token: CancellationToken) {
    loop {
        if !post.stored.grow_old() {
            tokio::select! {
                () = token.cancelled() => break,
                () = post.stored.arrived.notified() => {}
            }
        }
        tokio::select! {
            () = token.cancelled() => break,
            () = tokio::time::sleep(NOTE_LATER) => {}
        }
        write_notes(&post).await;
    }
    post.stored.grow_old();
    write_notes(&post).await;
}

async fn write_notes(post: &Post) {
    loop {
        let marks = post.stored.take_some();
        if marks.is_empty() {
            return;
        }
        let (now_ms, config) = (post.clock.now_ms(), post.config.outbox.clone());
        let noted = post.store.queue_lazily(move |tx| {
            let step = |(key, seal_attempt)| {
                transition::step(tx, key, stored_event(seal_attempt), now_ms, &config).transpose()
            };
            marks.into_iter().filter_map(step).collect::<Result<Vec<Stepped>, StoreError>>()
        });
        match noted.await {
            Ok(steps) => steps.into_iter().for_each(|stepped| post.follow_up(stepped)),
            // The copies are published once more when their answer is overdue.
            Err(error) => tracing::warn!(%error, "publishes could not be noted"),
        }
    }
}

/// The broker has the copy.
pub(super) const fn stored_event(seal_attempt: u32) -> Event {
    Event::PublishAnswered { seal_attempt, answer: PublishAnswer::Stored { duplicate: false } }
}

impl Post {
    /// Takes the broker's answer to a publish and says whether it has the copy.
    pub(super) async fn publish_answered(&self, key: Key, seal_attempt: u32, answer: PublishAnswer) -> bool {
        failpoint("S5");
        match answer {
            PublishAnswer::Stored { duplicate } => {
                self.counters.published.add();
                if duplicate {
                    // On the first try somebody has used the random id before us, which the machine looks into.
                    self.step(key, Event::PublishAnswered { seal_attempt, answer }).await;
                } else {
                    self.stored.note(key, seal_attempt);
                }
                true
            }
            _ => {
                self.counters.retried.add();
                self.step(key, Event::PublishAnswered { seal_attempt, answer }).await;
                false
            }
        }
    }
}
