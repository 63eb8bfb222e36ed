//! The pump of one stream that is sent: reads, encrypts and publishes chunks as far as credit goes.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{StreamExt as _, future::BoxFuture, stream::FuturesOrdered};
use murmur_core::{
    code::Code,
    outbox::{PublishAnswer, StateName},
    stream::{Grant, Outflow, chunk_count},
    subject::{Destination, Route},
};
use murmur_crypto::chunk::{ChunkCipher, ChunkFrame, StreamKey};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    bus::Outgoing as Publish,
    post::{Post, random},
    store::{
        StoreError, Tx, delivery,
        stream::{self, End, OutRow},
        transfer::TransferState,
    },
};

/// Chunks of one stream that wait for the broker's answer.
const IN_FLIGHT: usize = 4;
/// Longest wait between two probes of a stalled stream.
const PROBE_MS_MAX: u64 = 3600 * 1000;

/// A stream that is sent.
pub(super) struct Outgoing {
    pub(super) row: OutRow,
    state: Mutex<State>,
    wake: Notify,
    /// Cancelled when its pump has come to its end.
    gone: CancellationToken,
}

struct State {
    flow: Outflow,
    /// When the recipient last said something.
    heard: Instant,
    /// Silence after which it is probed.
    patience_ms: u64,
    stalled: bool,
    /// The delivery moved, so that key and route are to be looked at again.
    stepped: bool,
    ended: bool,
}

/// Under which key, and where to.
struct Course {
    env_digest: [u8; 32],
    cipher: Arc<ChunkCipher>,
    route: Route,
    /// The recipient has accepted the message.
    delivered: bool,
}

enum Heading {
    Go(Course),
    /// The broker does not have the message yet.
    Wait,
    /// The message ended without being delivered.
    Over(TransferState, String),
}

type InFlight = FuturesOrdered<BoxFuture<'static, (u32, PublishAnswer)>>;

impl Outgoing {
    fn new(row: OutRow, stall_ms: u64) -> Self {
        let chunks = chunk_count(row.size, row.chunk_size);
        let flow = Outflow::new(chunks, row.acked_index, row.limit_index);
        let state = State {
            flow,
            heard: Instant::now(),
            patience_ms: stall_ms,
            stalled: row.state == TransferState::Stalled,
            stepped: true,
            ended: false,
        };
        Self { row, state: Mutex::new(state), wake: Notify::new(), gone: CancellationToken::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn stepped(&self) {
        self.state().stepped = true;
        self.wake.notify_one();
    }

    pub(super) fn ended(&self) {
        self.state().ended = true;
        self.wake.notify_one();
    }

    /// Waits until nothing is sent any more.
    pub(super) async fn gone(&self) {
        self.gone.cancelled().await;
    }

    /// Takes a credit. `resume` says that the recipient misses chunks. Returns what to keep of it.
    pub(super) fn credit(&self, grant: Grant, resume: bool, stall_ms: u64) -> (u32, u32) {
        let mut state = self.state();
        // After a silence nobody knows what of the chunks before it has arrived.
        if resume || std::mem::take(&mut state.stalled) {
            state.flow.resume(grant);
        } else {
            state.flow.credit(grant);
        }
        state.heard = Instant::now();
        state.patience_ms = stall_ms;
        let kept = (state.flow.acked(), state.flow.limit());
        drop(state);
        self.wake.notify_one();
        kept
    }

    /// The recipient has no room: nothing is sent until a probe finds some. Returns what to keep of it.
    pub(super) fn no_room(&self, next_index: u32, stall_ms: u64) -> (u32, u32) {
        let mut state = self.state();
        state.flow.resume(Grant { next_index, window: 0 });
        (state.heard, state.patience_ms, state.stalled) = (Instant::now(), stall_ms, true);
        (state.flow.acked(), state.flow.limit())
    }

    /// The next chunk, which counts as sent from here on.
    fn take_next(&self) -> Option<(u32, bool)> {
        let mut state = self.state();
        let next = state.flow.next().filter(|_| !state.ended && !state.stepped)?;
        state.flow.sent();
        Some(next)
    }
}

impl Post {
    /// Sets a task to a stream that is sent.
    pub(in crate::post) fn start_pump(self: &Arc<Self>, row: OutRow) {
        let stream_id = row.stream_id;
        let outgoing = Arc::new(Outgoing::new(row, self.config.streams.stall_ms));
        {
            let mut open = self.streams.open();
            open.by_message.insert(outgoing.row.msg_id, stream_id);
            open.outgoing.insert(stream_id, Arc::clone(&outgoing));
        }
        let (post, stop) = (Arc::clone(self), self.streams.stop.clone());
        self.tasks.spawn(async move {
            stop.run_until_cancelled(Pump::new(Arc::clone(&post), Arc::clone(&outgoing)).run()).await;
            let mut open = post.streams.open();
            if let Some(outgoing) = open.outgoing.remove(&stream_id) {
                open.by_message.remove(&outgoing.row.msg_id);
            }
            drop(open);
            outgoing.gone.cancel();
        });
    }

    /// Ends a stream that is sent. `told` says that the recipient knows; otherwise it is told.
    pub(super) async fn end_outgoing(
        &self,
        row: &OutRow,
        state: TransferState,
        reason: &str,
        told: bool,
    ) -> Result<bool, StoreError> {
        let (stream_id, reason, now_ms) = (row.stream_id, reason.to_owned(), self.clock.now_ms());
        tracing::info!(%stream_id, msg_id = %row.msg_id, ?state, reason, "a file transfer ended");
        let spool_bytes_max = self.config.streams.spool_bytes_max;
        let end = move |tx: Tx<'_>| {
            let ended = stream::end(tx, End::Out, stream_id, state, &reason, told, now_ms)?;
            Ok((ended, stream::is_kept(tx, stream_id, spool_bytes_max)?))
        };
        let (ended, is_kept) = self.store.write(end).await?;
        if let Some(outgoing) = self.streams.outgoing(stream_id) {
            outgoing.ended();
        }
        if !is_kept {
            self.streams.forget_copies(vec![stream_id]).await;
        }
        if ended && !told {
            self.streams.say(super::tell::end_of_out(&OutRow { state, ..row.clone() }));
        }
        self.streams.changed(row.sender);
        Ok(ended)
    }
}

struct Pump {
    post: Arc<Post>,
    out: Arc<Outgoing>,
    course: Option<Course>,
    /// The copy under whose key the last chunks went.
    env_digest: Option<[u8; 32]>,
    in_flight: InFlight,
    /// Nothing is published before.
    pause: Option<Instant>,
    backoff_ms: u64,
    /// The broker was away when there was something to publish.
    was_cut_off: bool,
    store_losses: watch::Receiver<u64>,
}

/// What the pump woke up for.
enum Woken {
    Answer(u32, PublishAnswer),
    Look,
}

impl Pump {
    fn new(post: Arc<Post>, out: Arc<Outgoing>) -> Self {
        let (in_flight, store_losses) = (InFlight::new(), post.bus.store_losses());
        Self {
            post,
            out,
            course: None,
            env_digest: None,
            in_flight,
            pause: None,
            backoff_ms: 0,
            was_cut_off: false,
            store_losses,
        }
    }

    async fn run(mut self) {
        loop {
            let stepped = {
                let mut state = self.out.state();
                if state.ended {
                    return;
                }
                std::mem::take(&mut state.stepped)
            };
            if stepped && !self.look().await {
                return;
            }
            if let Err(error) = self.fill().await {
                tracing::error!(%error, stream_id = %self.out.row.stream_id, "what is to be sent cannot be read");
                self.end(TransferState::Failed, "STORAGE_FAILED", false).await;
                return;
            }
            match self.wait().await {
                Woken::Answer(index, answer) => {
                    if !self.answered(index, answer).await {
                        return;
                    }
                }
                Woken::Look => {
                    if !self.check_silence().await {
                        return;
                    }
                }
            }
        }
    }

    /// Looks up key and route; `false` when there is nothing left to do.
    async fn look(&mut self) -> bool {
        match self.heading().await {
            Ok(Heading::Go(course)) => {
                let mut state = self.out.state();
                if self.env_digest.replace(course.env_digest).is_some_and(|before| before != course.env_digest) {
                    // What went under the other key and was not taken cannot be read by the recipient.
                    state.flow.back_to(0);
                }
                if course.delivered && self.course.as_ref().is_none_or(|now| !now.delivered) {
                    state.heard = Instant::now();
                }
                drop(state);
                self.course = Some(course);
            }
            Ok(Heading::Wait) => self.course = None,
            Ok(Heading::Over(state, reason)) => {
                // One that was taken back may have arrived in the same moment.
                self.end(state, &reason, state != TransferState::Cancelled).await;
                return false;
            }
            Err(error) => {
                tracing::warn!(%error, stream_id = %self.out.row.stream_id, "a stream's message could not be looked up");
                self.pause(Duration::from_secs(5));
                self.out.state().stepped = true;
            }
        }
        true
    }

    async fn heading(&mut self) -> Result<Heading, StoreError> {
        let OutRow { stream_id, msg_id, recipient, nonce_prefix, .. } = self.out.row.clone();
        let look = move |tx: Tx<'_>| {
            let Some(row) = delivery::get(tx, msg_id, recipient)? else {
                return Ok(Heading::Over(TransferState::Failed, Code::StreamUnknown.name().to_owned()));
            };
            let delivered = match row.delivery.state.name() {
                StateName::Queued | StateName::Sealed => return Ok(Heading::Wait),
                StateName::Stored => false,
                StateName::Delivered | StateName::Read => true,
                StateName::Cancelled => {
                    return Ok(Heading::Over(TransferState::Cancelled, Code::StreamCancelled.name().to_owned()));
                }
                StateName::Expired => return Ok(Heading::Over(TransferState::Failed, Code::Expired.name().to_owned())),
                StateName::Dead => return Ok(Heading::Over(TransferState::Failed, row.code.unwrap_or_default())),
            };
            let Some(env_digest) = row.env_digest else { return Ok(Heading::Wait) };
            let key = stream::keys(tx, End::Out, stream_id)?.into_iter().find(|key| key.env_digest == env_digest);
            let Some(stream::KeyRow { key, route: Some(route), .. }) = key else { return Ok(Heading::Wait) };
            let key = StreamKey::from_bytes(&key);
            let cipher = Arc::new(ChunkCipher::new(&key, stream_id.as_bytes(), &nonce_prefix));
            Ok(Heading::Go(Course { env_digest, cipher, route, delivered }))
        };
        self.post.store.read(look).await
    }

    /// Publishes as many chunks as may be on the way.
    async fn fill(&mut self) -> io::Result<()> {
        let Some(course) = &self.course else { return Ok(()) };
        self.was_cut_off = !*self.post.bus.connected().borrow();
        if self.was_cut_off || self.pause.is_some_and(|until| Instant::now() < until) {
            return Ok(());
        }
        self.pause = None;
        while self.in_flight.len() < IN_FLIGHT {
            // The semaphore is never closed.
            let Ok(permit) = Arc::clone(&self.post.streams.publishing).acquire_owned().await else { return Ok(()) };
            let Some((index, last)) = self.out.take_next() else { return Ok(()) };
            let path = self.post.streams.spool.out(self.out.row.stream_id);
            let (row, cipher) = (self.out.row.clone(), Arc::clone(&course.cipher));
            let sealed =
                tokio::task::spawn_blocking(move || seal(&File::open(path)?, &row, &cipher, index, last)).await;
            let bytes = sealed.map_err(io::Error::other)??;
            let publish = Publish {
                subject: course.route.subject(Destination::Blocks, self.post.identity.node_id),
                nats_msg_id: random::nats_msg_id(),
                traceparent: None,
                bytes: bytes.into(),
            };
            let answer = self.post.bus.begin(publish).await;
            self.in_flight.push_back(Box::pin(async move {
                let answer = answer.await;
                drop(permit);
                (index, answer)
            }));
        }
        Ok(())
    }

    async fn wait(&mut self) -> Woken {
        let mut connected = self.post.bus.connected();
        if *connected.borrow_and_update() && self.was_cut_off {
            return Woken::Look;
        }
        let until = self.pause.unwrap_or_else(|| self.silence_ends());
        let has_answers = !self.in_flight.is_empty();
        tokio::select! {
            Some((index, answer)) = self.in_flight.next(), if has_answers => Woken::Answer(index, answer),
            () = self.out.wake.notified() => Woken::Look,
            _ = connected.changed() => Woken::Look,
            Ok(()) = self.store_losses.changed() => {
                // Chunks and credits that the broker had are gone: the answer to a probe says where the recipient is.
                self.out.state().stalled = true;
                self.probe();
                Woken::Look
            }
            () = tokio::time::sleep_until(until) => Woken::Look,
        }
    }

    fn silence_ends(&self) -> Instant {
        let state = self.out.state();
        state.heard + Duration::from_millis(state.patience_ms)
    }

    /// Deals with the broker's answer; `false` when it will never take anything.
    async fn answered(&mut self, index: u32, answer: PublishAnswer) -> bool {
        match answer {
            PublishAnswer::Stored { .. } => {
                self.backoff_ms = 0;
                true
            }
            PublishAnswer::Failed | PublishAnswer::LaneFull => {
                self.out.state().flow.back_to(index);
                self.backoff_ms = self.post.config.outbox.transport.next(self.backoff_ms, random::number());
                self.pause(Duration::from_millis(self.backoff_ms));
                true
            }
            PublishAnswer::TooLarge | PublishAnswer::Denied => {
                let reason = if answer == PublishAnswer::Denied { "PUBLISH_DENIED" } else { "TOO_LARGE" };
                self.end(TransferState::Failed, reason, false).await;
                false
            }
        }
    }

    /// Notices that the recipient has been silent for too long; `false` when that is the end.
    async fn check_silence(&mut self) -> bool {
        let config = &self.post.config.streams;
        let is_delivered = self.course.as_ref().is_some_and(|course| course.delivered);
        if Instant::now() < self.silence_ends() {
            return true;
        }
        let newly_stalled = {
            let mut state = self.out.state();
            if !is_delivered {
                // It is the message that is waited for, and it has a time of its own.
                state.heard = Instant::now();
                return true;
            }
            !std::mem::replace(&mut state.stalled, true)
        };
        let stream_id = self.out.row.stream_id;
        let idle_since =
            self.post.store.read(move |tx| Ok(stream::outgoing(tx, stream_id)?.map(|row| row.active_ms))).await;
        let idle_ms = idle_since.ok().flatten().map_or(0, |at| self.post.clock.now_ms().saturating_sub(at));
        if idle_ms >= config.idle_ms {
            self.end(TransferState::Failed, Code::StreamCancelled.name(), false).await;
            return false;
        }
        if newly_stalled {
            let noted: Result<(), StoreError> =
                self.post.store.write(move |tx| stream::note_stalled(tx, stream_id)).await;
            if let Err(error) = noted {
                tracing::warn!(%error, %stream_id, "a stalled stream could not be noted");
            }
            self.post.streams.changed(self.out.row.sender);
        }
        self.probe();
        true
    }

    /// Sends one chunk to find out where the recipient is. What waits for one that is away for a day is a few megabytes.
    fn probe(&self) {
        let mut state = self.out.state();
        state.heard = Instant::now();
        state.patience_ms =
            state.patience_ms.saturating_mul(2).min(PROBE_MS_MAX.max(self.post.config.streams.stall_ms));
        let last = chunk_count(self.out.row.size, self.out.row.chunk_size).saturating_sub(1);
        let next_index = state.flow.acked().min(last);
        state.flow.resume(Grant { next_index, window: 1 });
    }

    fn pause(&mut self, wait: Duration) {
        self.pause = Some(Instant::now() + wait);
    }

    /// `told` says that the recipient need not hear of it: it never got the message.
    async fn end(&mut self, state: TransferState, reason: &str, told: bool) {
        if let Err(error) = self.post.end_outgoing(&self.out.row, state, reason, told).await {
            tracing::error!(%error, stream_id = %self.out.row.stream_id, "the end of a stream could not be noted");
        }
    }
}

/// Reads and encrypts one chunk; blocks on the disk.
fn seal(file: &File, row: &OutRow, cipher: &ChunkCipher, index: u32, last: bool) -> io::Result<Vec<u8>> {
    let at = u64::from(index) * u64::from(row.chunk_size);
    let length = row.size.saturating_sub(at).min(u64::from(row.chunk_size));
    let mut plain = vec![0; usize::try_from(length).unwrap_or(0)];
    file.read_exact_at(&mut plain, at)?;
    let ciphertext = cipher.encrypt(index, last, &plain).map_err(io::Error::other)?;
    Ok(ChunkFrame { stream_id: *row.stream_id.as_bytes(), index, last, ciphertext: ciphertext.into() }.encode())
}
