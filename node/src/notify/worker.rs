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
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

use super::{
    Channel, Notice, NotifyConfig, Trouble,
    service::{self, batch},
};
use crate::{clock::Clock, delay::Delay, outbound::Outbound};

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
    is_broken: AtomicBool,
}

impl Counts {
    fn lock(&self) -> MutexGuard<'_, Status> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A channel that is open. Dropping it ends its task.
pub(super) struct Handle {
    channel: Arc<Channel>,
    queue: mpsc::Sender<Arc<Notice>>,
    counts: Arc<Counts>,
    ended: CancellationToken,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.ended.cancel();
    }
}

impl Handle {
    pub(super) fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Takes a notice that the filter lets through. Where there is no room it is dropped and counted.
    pub(super) fn offer(&self, notice: &Arc<Notice>) {
        let filter = &self.channel.filter;
        if !filter.wants(&notice.kind) || !filter.wants_about(&notice.agents) {
            return;
        }
        let is_broken = self.counts.is_broken.load(Ordering::Relaxed);
        if is_broken || self.queue.try_send(Arc::clone(notice)).is_err() {
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn status(&self) -> Status {
        let queued = (self.queue.max_capacity() - self.queue.capacity()) as u64;
        let dropped = self.counts.dropped.load(Ordering::Relaxed);
        Status { queued, dropped, ..self.counts.lock().clone() }
    }

    /// Somebody saw it work.
    pub(super) fn mended(&self) {
        self.counts.is_broken.store(false, Ordering::Relaxed);
        self.counts.lock().trouble = None;
    }
}

/// What a task works with.
pub(super) struct Worker {
    pub(super) outbound: Outbound,
    pub(super) config: NotifyConfig,
    pub(super) clock: Clock,
    pub(super) stop: CancellationToken,
}

impl Worker {
    pub(super) fn start(self, channel: Channel, tasks: &TaskTracker) -> Handle {
        let (queue, waiting) = mpsc::channel(self.config.queue.get());
        let (channel, counts) = (Arc::new(channel), Arc::new(Counts::default()));
        let handle =
            Handle { channel: Arc::clone(&channel), queue, counts: Arc::clone(&counts), ended: self.stop.clone() };
        tasks.spawn(async move {
            let stop = self.stop.clone();
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.run(&channel, &counts, waiting) => {}
            }
        });
        handle
    }

    async fn run(&self, channel: &Channel, counts: &Counts, mut waiting: mpsc::Receiver<Arc<Notice>>) {
        let mut pace = service::pace(&channel.service);
        let mut notices = Vec::new();
        let mut lost = 0;
        while waiting.recv_many(&mut notices, batch(&channel.service)).await > 0 {
            let mut batch = std::mem::take(&mut notices);
            let count = batch.len() as u64;
            let dropped = counts.dropped.load(Ordering::Relaxed);
            if dropped > lost {
                let line = format!("{} notifications before this were dropped.", dropped - lost);
                batch.insert(0, Arc::new(Notice::new("dropped", &line, self.clock.now_ms())));
            }
            match self.deliver(channel, counts, &mut pace, &batch).await {
                Ok(()) => {
                    lost = dropped;
                    let mut told = counts.lock();
                    told.sent += count;
                    told.sent_ms = Some(self.clock.now_ms());
                    if told.trouble.take().is_some() {
                        info!("notifications by {channel} work again");
                    }
                }
                Err(trouble) => {
                    counts.is_broken.store(matches!(trouble, Trouble::Broken(_)), Ordering::Relaxed);
                    let mut told = counts.lock();
                    told.failed += count;
                    told.trouble = Some(trouble.to_string());
                    warn!("{count} notifications by {channel} were given up: {trouble}");
                }
            }
        }
    }

    /// Sends until it is taken, refused, or tried often enough.
    async fn deliver(
        &self,
        channel: &Channel,
        counts: &Counts,
        pace: &mut super::pace::Pace,
        notices: &[Arc<Notice>],
    ) -> Result<(), Trouble> {
        let backoff = Backoff { base_ms: self.config.retry_ms[0], cap_ms: self.config.retry_ms[1] };
        let (mut tries, mut delay) = (0, Delay::new(backoff));
        loop {
            tokio::time::sleep(pace.wait(Instant::now())).await;
            pace.called(Instant::now());
            tries += 1;
            let sent = service::send(&self.outbound, &self.config, channel, notices, self.clock.now_ms()).await;
            let trouble = match sent {
                Ok(delivery) => {
                    if let Some(pause) = delivery.pause {
                        pace.pause(Instant::now(), pause);
                    }
                    return Ok(());
                }
                Err(trouble) => trouble,
            };
            let Trouble::Later { why, after } = &trouble else { return Err(trouble) };
            if tries >= self.config.tries {
                return Err(trouble);
            }
            counts.lock().trouble = Some(why.clone());
            let wait = after.unwrap_or_default().max(delay.next());
            pace.pause(Instant::now(), wait);
        }
    }
}
