//! Pulling: a stream of deliveries that survives reconnects and a consumer that fell silent.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
    time::Duration,
};

use async_nats::jetstream::{
    self, AckKind,
    consumer::{PullConsumer, pull},
};
use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _};
use tokio_util::sync::CancellationToken;

use super::{Bus, Session};

/// How long to wait before the consumer is asked for again.
const REBUILD_DELAY: Duration = Duration::from_millis(500);
/// How long the control plane takes to put a consumer in the place of a deleted one.
const SUCCESSOR_DELAY: Duration = Duration::from_millis(30);
/// How long the broker may go on answering one pull request.
const EXPIRES_MAX: Duration = Duration::from_secs(10);
/// Bytes of one pull request, so that a node's memory has a bound whatever the messages' sizes.
const BATCH_BYTES: usize = 8 * 1024 * 1024;

/// A broker message.
pub struct Delivered {
    /// Where it was published.
    pub subject: String,
    /// The bytes.
    pub bytes: Bytes,
    /// How often the broker delivered it, from 1.
    pub deliveries: u64,
    /// Its place in the stream.
    pub stream_seq: u64,
    /// The broker waits for an answer to it.
    pub unanswered: Unanswered,
}

/// The handle by which a broker message is answered.
pub struct Unanswered(jetstream::message::Acker);

/// Messages that were pulled and not yet taken.
const PULLED_MAX: usize = 256;
/// While there are fewer, each that is taken lets more be pulled.
const PULLED_FEW: usize = 32;

/// What was pulled, on its way from [`Bus::pull`] to whoever takes it. Both run in one task, so that no other is woken for a message. The
/// lock is never contended: it only makes this `Sync`.
pub struct Pulled<T = Delivered>(Mutex<VecDeque<T>>);

impl<T> Default for Pulled<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Pulled<T> {
    /// The next message. It goes on with `pulling` when there are few: nobody else does.
    pub async fn next(&self, mut pulling: Pin<&mut impl Future<Output = ()>>) -> T {
        std::future::poll_fn(|context| {
            if self.queue().len() < PULLED_FEW {
                // When it has ended, nothing more comes: the token is cancelled.
                let _ = pulling.as_mut().poll(context);
            }
            self.queue().pop_front().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// Waits while there is no room, without a waker: [`Pulled::next`] makes room, and polls this again.
    async fn put(&self, item: T) {
        std::future::poll_fn(|_| if self.queue().len() < PULLED_MAX { Poll::Ready(()) } else { Poll::Pending }).await;
        self.queue().push_back(item);
    }

    fn queue(&self) -> MutexGuard<'_, VecDeque<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What becomes of a broker message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It was dealt with.
    Ack,
    /// It is to come again after this time.
    Nak(Duration),
    /// It is never to come again.
    Term,
}

impl Unanswered {
    /// Answers the broker. Nobody waits for its word: an answer that gets lost means a redelivery, which the receiver recognises.
    pub async fn answer(self, verdict: Verdict) {
        let kind = match verdict {
            Verdict::Ack => AckKind::Ack,
            Verdict::Nak(delay) => AckKind::Nak(Some(delay)),
            Verdict::Term => AckKind::Term,
        };
        if let Err(error) = self.0.ack_with(kind).await {
            tracing::debug!(%error, "the broker did not hear an answer");
        }
    }
}

impl Bus {
    /// Pulls until `token` is cancelled, every message in order. To be polled by [`Pulled::next`].
    pub async fn pull(&self, messages: &Pulled, token: &CancellationToken) {
        let mut sessions = self.session.subscribe();
        let mut connected = self.connected();
        while !token.is_cancelled() {
            let session = sessions.borrow_and_update().clone();
            let is_connected = *connected.borrow_and_update();
            let changed = async {
                tokio::select! {
                    () = token.cancelled() => {}
                    // New credentials or a reconnect: the pull request of before has been forgotten.
                    _ = sessions.changed() => {}
                    _ = connected.changed() => {}
                }
            };
            match session.filter(|_| is_connected) {
                Some(session) => self.pull_from(&session, messages, changed).await,
                None => changed.await,
            }
        }
    }

    /// Pulls until something changes, or the consumer fails or falls silent.
    async fn pull_from(&self, session: &Arc<Session>, messages: &Pulled, changed: impl Future<Output = ()>) {
        tokio::pin!(changed);
        let opened = tokio::select! {
            // What was asked over a connection that is gone is never answered, and must not cost the new one its life.
            () = &mut changed => return,
            opened = self.open(session) => opened,
        };
        let mut stream = match opened {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "the node's consumer cannot be used");
                self.receiving.send_replace(false);
                if timed_out(&error) {
                    // Nothing comes back over this connection, though nobody closed it.
                    let _ = session.js.client().force_reconnect().await;
                }
                return wait_or(changed).await;
            }
        };
        self.receiving.send_if_modified(|receiving| !std::mem::replace(receiving, true));
        loop {
            let next = tokio::select! {
                () = &mut changed => break,
                next = stream.next() => next,
            };
            match next {
                Some(Ok(message)) => {
                    // A bare message without a byte ends a response across accounts: the broker forgets the pull request with it, and
                    // until a new one is made nothing more arrives.
                    let ends_response = message.payload.is_empty() && message.headers.is_none();
                    if !self.hand_over(message, messages).await || ends_response {
                        return;
                    }
                }
                Some(Err(error)) => {
                    tracing::warn!(%error, "the node's consumer fell silent and is set up again");
                    // As when the control plane takes back what was lost on the way: the next one is there in a moment.
                    if error.kind() == pull::MessagesErrorKind::ConsumerDeleted {
                        return tokio::time::sleep(SUCCESSOR_DELAY).await;
                    }
                    // What was sent meanwhile went nowhere, and the broker would wait for its acknowledgement.
                    self.shared.lost();
                    return wait_or(changed).await;
                }
                None => return,
            }
        }
        // What has arrived is dealt with: the broker would wait some seconds before it delivers it again.
        while let Some(Some(Ok(message))) = stream.next().now_or_never() {
            self.hand_over(message, messages).await;
        }
    }

    /// Returns false when the message is left to the broker: this process was stopped, and another may have its place.
    async fn hand_over(&self, message: jetstream::Message, messages: &Pulled) -> bool {
        if !self.wake.is_sure() {
            return false;
        }
        if let Some(delivered) = read(message) {
            messages.put(delivered).await;
        }
        true
    }

    async fn open(&self, session: &Session) -> Result<pull::Stream, async_nats::Error> {
        let credentials = session.credentials.load_full();
        let consumer: PullConsumer =
            session.js.get_consumer_from_stream(&credentials.consumer, &credentials.stream).await?;
        let stream = consumer
            .stream()
            .max_messages_per_batch(self.config.batch)
            .max_bytes_per_batch(BATCH_BYTES)
            // After a cut connection the broker may go on answering this request until it expires.
            .expires((self.config.heartbeat * 10).min(EXPIRES_MAX).max(self.config.heartbeat * 2))
            .heartbeat(self.config.heartbeat)
            .messages()
            .await?;
        Ok(stream)
    }

    /// Whether the broker holds nothing for this node; `None` when it cannot be asked.
    pub async fn is_drained(&self) -> Option<bool> {
        let session = self.session.borrow().clone()?;
        let credentials = session.credentials.load_full();
        let mut consumer: PullConsumer =
            session.js.get_consumer_from_stream(&credentials.consumer, &credentials.stream).await.ok()?;
        let info = consumer.info().await.ok()?;
        Some(info.num_pending == 0 && info.num_ack_pending == 0)
    }
}

/// Whether a request for the consumer was not answered, by the broker or by a lack of it.
fn timed_out(error: &async_nats::Error) -> bool {
    use async_nats::jetstream::stream::{ConsumerError, ConsumerErrorKind};
    error.downcast_ref::<ConsumerError>().is_some_and(|error| error.kind() == ConsumerErrorKind::TimedOut)
}

/// Waits before the consumer is asked for again, unless something changes first.
async fn wait_or(changed: Pin<&mut impl Future<Output = ()>>) {
    tokio::select! {
        () = changed => {}
        () = tokio::time::sleep(REBUILD_DELAY) => {}
    }
}

fn read(message: jetstream::Message) -> Option<Delivered> {
    let (deliveries, stream_seq) = match message.info() {
        Ok(info) => (u64::try_from(info.delivered).unwrap_or(1), info.stream_sequence),
        Err(error) => {
            tracing::warn!(%error, "a broker message without its particulars");
            return None;
        }
    };
    let (message, acker) = message.split();
    let (subject, bytes) = (message.subject.to_string(), message.payload);
    Some(Delivered { subject, bytes, deliveries, stream_seq, unanswered: Unanswered(acker) })
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn what_is_pulled_is_taken_in_order_and_no_more_waits_than_may() {
        let pulled = Pulled::<usize>::default();
        let most = std::cell::Cell::new(0);
        let pulling = async {
            for number in 0..4 * PULLED_MAX {
                pulled.put(number).await;
                most.set(most.get().max(pulled.queue().len()));
            }
        };
        let mut pulling = Box::pin(pulling.fuse());
        for number in 0..4 * PULLED_MAX {
            assert_eq!(pulled.next(pulling.as_mut()).await, number);
        }
        assert_eq!(most.get(), PULLED_MAX);
    }

    #[tokio::test]
    async fn whoever_waits_is_woken_by_what_the_puller_waits_for() {
        let pulled = Pulled::<usize>::default();
        let (sender, mut source) = mpsc::channel(1);
        let pulling = async {
            while let Some(number) = source.recv().await {
                pulled.put(number).await;
            }
        };
        let mut pulling = Box::pin(pulling.fuse());
        assert!(pulled.next(pulling.as_mut()).now_or_never().is_none(), "there is nothing yet");
        let sending = tokio::spawn(async move {
            for number in 0..10 {
                sender.send(number).await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        for number in 0..10 {
            assert_eq!(pulled.next(pulling.as_mut()).await, number);
        }
        sending.await.unwrap();
    }
}
