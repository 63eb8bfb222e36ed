//! One channel's queue, and the task that empties it.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use murmur_core::retry::Backoff;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    Channel, Delivery, Notice, Notify, Trouble,
    pace::Rate,
    parcel::{DROPPED, Parcel},
    question,
    service::{self, batch},
};
use crate::{delay::Delay, permission::PermissionRow};

/// How a channel is doing, since the node started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// Notices that the service took.
    pub sent: u64,
    /// Notices that found the queue full, or the channel broken.
    pub dropped: u64,
    /// Notices that were given up.
    pub failed: u64,
    /// Notices that wait.
    pub queued: u64,
    /// Unix milliseconds of the last one that was taken.
    pub sent_ms: Option<u64>,
    /// What went wrong last, while nothing has gone right since.
    pub trouble: Option<String>,
}

/// Counted by the task, read by whoever asks.
#[derive(Default)]
struct Counts {
    dropped: AtomicU64,
    told: Mutex<Status>,
    /// Why answers are not heard.
    deaf: Mutex<Option<String>>,
    is_broken: AtomicBool,
}

impl Counts {
    fn lock(&self) -> MutexGuard<'_, Status> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What waits in a channel's queue.
enum Waiting {
    Notice(Arc<Notice>),
    /// A request takes no answer any more.
    Settled(Arc<PermissionRow>),
}

/// A channel that is open. Dropping it ends its task.
pub(super) struct Handle {
    channel: Arc<Channel>,
    queue: mpsc::Sender<Waiting>,
    counts: Arc<Counts>,
    ended: CancellationToken,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.ended.cancel();
    }
}

impl Handle {
    pub(super) const fn channel(&self) -> &Arc<Channel> {
        &self.channel
    }

    /// Takes a notice that the filter lets through. Where there is no room it is dropped and counted.
    pub(super) fn offer(&self, notice: &Arc<Notice>) {
        if !self.channel.filter.lets(notice) {
            return;
        }
        let is_broken = self.counts.is_broken.load(Ordering::Relaxed);
        if is_broken || self.queue.try_send(Waiting::Notice(Arc::clone(notice))).is_err() {
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Tells whoever was asked what became of a request. Where there is no room the buttons stay, and say so when they are pressed.
    pub(super) fn settled(&self, row: &Arc<PermissionRow>) {
        if !self.channel.service.answerers().is_empty() {
            // Behind the question, if it still waits.
            let _ = self.queue.try_send(Waiting::Settled(Arc::clone(row)));
        }
    }

    pub(super) fn status(&self) -> Status {
        let queued = (self.queue.max_capacity() - self.queue.capacity()) as u64;
        let dropped = self.counts.dropped.load(Ordering::Relaxed);
        let told = self.counts.lock().clone();
        let deaf = || self.counts.deaf.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Status { queued, dropped, trouble: told.trouble.clone().or_else(deaf), ..told }
    }

    /// Somebody saw it work.
    pub(super) fn mended(&self) {
        self.counts.is_broken.store(false, Ordering::Relaxed);
        self.counts.lock().trouble = None;
    }

    /// Whether answers are heard, or why not.
    pub(super) fn heard(&self, deaf: Option<String>) {
        *self.counts.deaf.lock().unwrap_or_else(PoisonError::into_inner) = deaf;
    }
}

/// Opens a channel and starts its task.
pub(super) fn start(notify: &Arc<Notify>, channel: Channel) -> Handle {
    let (queue, waiting) = mpsc::channel(notify.config.queue.get());
    let (channel, counts, ended) = (Arc::new(channel), Arc::new(Counts::default()), notify.stop.child_token());
    let handle = Handle { channel: Arc::clone(&channel), queue, counts: Arc::clone(&counts), ended: ended.clone() };
    let rates = service::rates(&channel);
    let worker = Worker { notify: Arc::clone(notify), channel, counts, rates };
    notify.tasks.spawn(async move {
        tokio::select! {
            () = ended.cancelled() => {}
            () = worker.run(waiting) => {}
        }
    });
    handle
}

/// What a task works with.
struct Worker {
    notify: Arc<Notify>,
    channel: Arc<Channel>,
    counts: Arc<Counts>,
    rates: Vec<(String, Rate)>,
}

impl Worker {
    async fn run(&self, mut queue: mpsc::Receiver<Waiting>) {
        let mut waiting = Vec::new();
        let mut lost = 0;
        while queue.recv_many(&mut waiting, batch(&self.channel.service)).await > 0 {
            let dropped = self.counts.dropped.load(Ordering::Relaxed);
            let mut lines = Vec::new();
            if dropped > lost {
                let line = format!("{} notifications before this were dropped.", dropped - lost);
                lines.push(Arc::new(Notice::new(DROPPED, &line, self.notify.clock.now_ms())));
            }
            let mut is_told = true;
            for next in waiting.drain(..) {
                let parcel = match next {
                    Waiting::Notice(notice) => match self.question(&notice) {
                        Some(row) => self.ask(row).await,
                        None => {
                            lines.push(notice);
                            continue;
                        }
                    },
                    Waiting::Settled(row) => self.outcome(&row).await,
                };
                // What came before is told before.
                is_told &= self.tell_lines(&mut lines).await;
                if let Some(parcel) = parcel {
                    self.tell(&parcel).await;
                }
            }
            is_told &= self.tell_lines(&mut lines).await;
            if is_told {
                lost = dropped;
            }
        }
    }

    async fn tell_lines(&self, lines: &mut Vec<Arc<Notice>>) -> bool {
        lines.is_empty() || self.tell(&Parcel::Lines(std::mem::take(lines))).await
    }

    /// What a notice asks, where somebody may answer it.
    fn question<'a>(&self, notice: &'a Notice) -> Option<&'a PermissionRow> {
        let is_asked = !self.channel.service.answerers().is_empty() && self.notify.answers.get().is_some();
        notice.question.as_deref().filter(|_| is_asked)
    }

    async fn ask(&self, row: &PermissionRow) -> Option<Parcel> {
        self.notify.answers.get()?.ask(&self.channel, row).await.map(Parcel::Question)
    }

    async fn outcome(&self, row: &PermissionRow) -> Option<Parcel> {
        let message_id = self.notify.answers.get()?.message(&self.channel, row.number).await?;
        Some(Parcel::Outcome { number: row.number, message_id, text: question::outcome(row) })
    }

    /// Sends until it is taken, refused, or tried often enough; says whether it was taken.
    async fn tell(&self, parcel: &Parcel) -> bool {
        let count = parcel.count();
        match self.deliver(parcel).await {
            Ok(Delivery { message_id, .. }) => {
                match (parcel, message_id, self.notify.answers.get()) {
                    (Parcel::Question(question), Some(message_id), Some(answers)) => {
                        answers.asked(&self.channel, question.number, message_id).await;
                    }
                    (Parcel::Outcome { number, .. }, _, Some(answers)) => answers.closed(&self.channel, *number).await,
                    _ => {}
                }
                let mut told = self.counts.lock();
                told.sent += count;
                told.sent_ms = Some(self.notify.clock.now_ms());
                if told.trouble.take().is_some() {
                    info!("notifications by {} work again", self.channel);
                }
                true
            }
            // An old message that cannot be changed says nothing about new ones.
            Err(trouble) if matches!(parcel, Parcel::Outcome { .. }) => {
                info!("a question by {} still has its buttons: {trouble}", self.channel);
                // What can never be changed, since somebody deleted it, is not tried again when the node restarts.
                if let (Trouble::Refused(_), Parcel::Outcome { number, .. }, Some(answers)) =
                    (&trouble, parcel, self.notify.answers.get())
                {
                    answers.closed(&self.channel, *number).await;
                }
                true
            }
            Err(trouble) => {
                self.counts.is_broken.store(matches!(trouble, Trouble::Broken(_)), Ordering::Relaxed);
                let mut told = self.counts.lock();
                told.failed += count;
                told.trouble = Some(trouble.to_string());
                warn!("{count} notifications by {} were given up: {trouble}", self.channel);
                false
            }
        }
    }

    async fn deliver(&self, parcel: &Parcel) -> Result<Delivery, Trouble> {
        let Notify { config, outbound, clock, paces, .. } = &*self.notify;
        let backoff = Backoff { base_ms: config.retry_ms[0], cap_ms: config.retry_ms[1] };
        let (mut tries, mut delay) = (0, Delay::new(backoff));
        loop {
            self.notify.wait_for(&self.rates).await;
            tries += 1;
            let trouble = match service::send(outbound, config, &self.channel, parcel, clock.now_ms()).await {
                Ok(delivery) => {
                    if let Some(pause) = delivery.pause {
                        paces.pause(&self.rates, Instant::now(), pause);
                    }
                    return Ok(delivery);
                }
                Err(trouble) => trouble,
            };
            let Trouble::Later { why, after } = &trouble else { return Err(trouble) };
            if tries >= config.tries {
                return Err(trouble);
            }
            self.counts.lock().trouble = Some(why.clone());
            let wait = delay.next();
            match after {
                // It asks for everything that counts together.
                Some(after) => paces.pause(&self.rates, Instant::now(), wait.max(*after)),
                None => tokio::time::sleep(wait).await,
            }
        }
    }
}
