//! The bus: JetStream, as a node may use it, and the only place of the node that names the broker's client.
//!
//! A node publishes to the subjects of other nodes and pulls from the one consumer that the control plane made for it
//! (PROTOCOL §5.1 to §5.3). Streams live in another account than nodes, so the API is reached by the imported prefix `mmjs.API`.
//! The connection signs in with a JWT of a day and the node's own key, reconnects for ever, and takes new credentials without
//! losing what waits: whatever was not acknowledged is published again by the outbox.

mod connect;
mod pull;

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use async_nats::jetstream::{
    self,
    context::{PublishAckFuture, PublishError, PublishErrorKind},
    message::PublishMessage,
};
use bytes::Bytes;
use murmur_core::{id::NodeId, outbox::PublishAnswer, subject::Route};
use nkeys::KeyPair;
use tokio::sync::watch;

pub use self::pull::{Delivered, Pulled, Unanswered, Verdict};
use crate::{failpoint::failpoint, wake::Wake};

/// The imported prefix of the JetStream API (PROTOCOL §5.3).
const API_PREFIX: &str = "mmjs.API";
/// Subjects of which the newest place is remembered.
const NEWEST_MAX: usize = 4_096;
/// How long what was written may take to leave.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the broker may take to acknowledge a publish.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(5);
/// The message could not be stored; why stands in the text.
const STORE_FAILED: u64 = 10077;
/// Why, when the lane is full.
const LANE_FULL: &str = "per subject";
/// Why, when the stream is at a limit that it was given.
const LIMIT: &str = "maximum";
/// `message size exceeds maximum allowed`.
const TOO_LARGE: u64 = 10054;

/// What the bus needs beside credentials.
#[derive(Debug, Clone)]
pub struct BusConfig {
    /// This node.
    pub node_id: NodeId,
    /// How often the broker says that it is there; after twice that silence the consumer is taken to be deaf.
    pub heartbeat: Duration,
    /// Messages of one pull request.
    pub batch: usize,
}

impl BusConfig {
    /// The defaults of a node.
    #[must_use]
    pub const fn new(node_id: NodeId) -> Self {
        Self { node_id, heartbeat: Duration::from_millis(1_500), batch: 128 }
    }
}

/// What the control plane hands out for the broker.
#[derive(Clone)]
pub struct BrokerCredentials {
    /// The user JWT.
    pub jwt: String,
    /// The node's broker key, which the JWT names.
    pub key: Arc<KeyPair>,
    /// Where the broker is.
    pub urls: Vec<String>,
    /// Where this node takes deliveries.
    pub route: Route,
    /// The stream of the node's shard.
    pub stream: String,
    /// The node's consumer.
    pub consumer: String,
    /// The authority that signed the broker's certificate, if it is not a public one.
    pub ca_pem: Option<String>,
    /// When the JWT ends, Unix milliseconds.
    pub expire_ms: u64,
}

impl BrokerCredentials {
    /// Whether a connection made with `other` can go on with these: only what is asked at each sign-in differs.
    fn same_place(&self, other: &Self) -> bool {
        self.urls == other.urls
            && self.route == other.route
            && self.stream == other.stream
            && self.consumer == other.consumer
            && self.ca_pem == other.ca_pem
    }
}

/// The credentials cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// The connection could not be set up; this is not about reaching the broker.
    #[error("the broker connection could not be set up")]
    Connect(#[from] async_nats::ConnectError),
    /// The authority's certificate cannot be read.
    #[error("the broker's CA certificate cannot be used: {0}")]
    Ca(String),
}

/// A message to publish.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// Where to.
    pub subject: String,
    /// The random id by which the broker deduplicates.
    pub nats_msg_id: String,
    /// W3C trace context, a hint for operators of the broker.
    pub traceparent: Option<String>,
    /// The bytes.
    pub bytes: Bytes,
}

/// The node's connection to the broker.
pub struct Bus {
    config: BusConfig,
    shared: Arc<Shared>,
    session: watch::Sender<Option<Arc<Session>>>,
    /// Whether the node's consumer answers; [`Bus::connected`] is about the connection alone.
    receiving: watch::Sender<bool>,
    /// Another process runs as this node.
    has_left: AtomicBool,
    wake: Arc<Wake>,
    #[cfg(test)]
    test: Option<(Route, tokio::sync::mpsc::UnboundedSender<Outgoing>)>,
    #[cfg(test)]
    test_broker: Mutex<Option<TestBroker>>,
}

/// A test's word on each publish: whether the message is taken, and what the node hears of it.
#[cfg(test)]
pub(crate) type TestBroker = Box<dyn FnMut(&Outgoing) -> (bool, PublishAnswer) + Send>;

/// What the connection's callbacks see.
struct Shared {
    connected: watch::Sender<bool>,
    /// How often the connection was lost: whatever waits for an answer then waits in vain.
    losses: watch::Sender<u64>,
    /// Which session is the current one; callbacks of an earlier one are silent.
    generation: AtomicU64,
    /// Subjects to which the broker said the node may not publish.
    denied: Mutex<HashSet<String>>,
    /// The place in its stream of the newest message that was stored, by subject.
    newest: Mutex<HashMap<String, u64>>,
    /// How often a stream was found to have begun anew: what was stored in it is gone.
    store_losses: watch::Sender<u64>,
    /// A connection was lost, and with it perhaps what the broker had handed out.
    redeliver: AtomicBool,
    /// How often the broker refused the credentials.
    refusals: watch::Sender<u64>,
    /// Why the broker did not store the last message, if that was not about the message.
    unstored: Mutex<Option<Unstored>>,
    /// Messages that it stored.
    stores: AtomicU64,
}

/// How far the broker takes what this node publishes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taking {
    /// As far as is known, it does.
    Yes,
    /// It is not connected.
    Away,
    /// This node has left it, since another process runs as this node.
    Left,
    /// It is connected and stores nothing, for this reason.
    Nothing(String),
}

/// Messages that the broker did not store, one after the other.
#[derive(Debug)]
struct Unstored {
    /// Why, of the last one.
    why: String,
    /// Whether a broker that is started again may store: it fell silent, or failed to write. One that is at a limit of its own does not.
    is_broken: bool,
    first: Instant,
    last: Instant,
}

impl Unstored {
    /// So far apart two refusals are more than a moment's trouble.
    const LASTS: Duration = Duration::from_secs(5);
    /// So old the last refusal says nothing about now.
    const OLD: Duration = Duration::from_secs(60);

    fn is_stuck(&self, now: Instant) -> bool {
        self.is_broken
            && self.last.duration_since(self.first) >= Self::LASTS
            && now.duration_since(self.last) < Self::OLD
    }
}

/// One client, which survives any number of reconnects.
struct Session {
    js: jetstream::Context,
    credentials: Arc<ArcSwap<BrokerCredentials>>,
}

impl Bus {
    /// A bus that waits for credentials.
    #[must_use]
    pub fn new(config: BusConfig) -> Arc<Self> {
        let shared = Shared {
            connected: watch::Sender::new(false),
            losses: watch::Sender::new(0),
            generation: AtomicU64::new(0),
            denied: Mutex::default(),
            newest: Mutex::default(),
            store_losses: watch::Sender::new(0),
            redeliver: AtomicBool::new(false),
            refusals: watch::Sender::new(0),
            unstored: Mutex::default(),
            stores: AtomicU64::new(0),
        };
        Arc::new(Self {
            config,
            shared: Arc::new(shared),
            session: watch::Sender::new(None),
            receiving: watch::Sender::new(false),
            has_left: AtomicBool::new(false),
            wake: Arc::default(),
            #[cfg(test)]
            test: None,
            #[cfg(test)]
            test_broker: Mutex::default(),
        })
    }

    /// A bus that hands what is published to a test in place of a broker, and says that it is stored.
    #[cfg(test)]
    pub(crate) fn to_test(
        config: BusConfig,
        route: Route,
    ) -> (Arc<Self>, tokio::sync::mpsc::UnboundedReceiver<Outgoing>) {
        let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
        let mut bus = Self::new(config);
        if let Some(bus) = Arc::get_mut(&mut bus) {
            bus.test = Some((route, sender));
            bus.shared.connected.send_replace(true);
        }
        (bus, receiver)
    }

    /// Plays a broker that loses, refuses and repeats.
    #[cfg(test)]
    pub(crate) fn set_test_broker(&self, broker: TestBroker) {
        *self.test_broker.lock().unwrap_or_else(PoisonError::into_inner) = Some(broker);
    }

    #[cfg(test)]
    fn test_word(&self, message: &Outgoing) -> (bool, PublishAnswer) {
        let mut broker = self.test_broker.lock().unwrap_or_else(PoisonError::into_inner);
        broker.as_mut().map_or((true, PublishAnswer::Stored { duplicate: false }), |word| word(message))
    }

    /// Plays a broker that goes and comes.
    #[cfg(test)]
    pub(crate) fn set_test_connected(&self, is_connected: bool) {
        self.shared.connected.send_replace(is_connected);
    }

    /// Takes new credentials: signs in again, or connects elsewhere.
    ///
    /// # Errors
    /// [`BusError`] when they cannot be used; a broker that is away is no error.
    pub async fn set_credentials(&self, credentials: BrokerCredentials) -> Result<(), BusError> {
        // Whoever hands them over has asked whether the place is still this process's.
        self.wake.clear();
        self.has_left.store(false, Ordering::Relaxed);
        let current = self.session.borrow().clone();
        if let Some(session) = current.filter(|session| session.credentials.load().same_place(&credentials)) {
            session.credentials.store(Arc::new(credentials));
            self.shared.denied().clear();
            // A client that is gone reconnects by itself, with the new credentials.
            let _ = session.js.client().force_reconnect().await;
            return Ok(());
        }
        let generation = self.shared.generation.fetch_add(1, Ordering::SeqCst) + 1;
        self.shared.connected.send_replace(false);
        self.shared.denied().clear();
        let session = connect::connect(&self.config, &self.shared, generation, credentials).await?;
        self.session.send_replace(Some(Arc::new(session)));
        Ok(())
    }

    /// Leaves the broker until credentials come again, since another process runs as this node (PROTOCOL §5.9).
    pub fn leave(&self) {
        self.has_left.store(true, Ordering::Relaxed);
        self.suspend();
    }

    /// Leaves the broker until credentials come again: another process may run as this node.
    pub fn suspend(&self) {
        self.shared.generation.fetch_add(1, Ordering::SeqCst);
        self.shared.connected.send_replace(false);
        self.receiving.send_replace(false);
        if self.session.send_replace(None).is_some() {
            self.shared.lost();
        }
    }

    /// Whether the broker is there.
    #[must_use]
    pub fn connected(&self) -> watch::Receiver<bool> {
        self.shared.connected.subscribe()
    }

    /// Whether the broker is there right now.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        *self.shared.connected.borrow()
    }

    /// How far the broker takes what is published.
    #[must_use]
    pub fn taking(&self) -> Taking {
        if self.has_left.load(Ordering::Relaxed) {
            return Taking::Left;
        }
        if !self.is_connected() {
            return Taking::Away;
        }
        self.shared.unstored().as_ref().map_or(Taking::Yes, |unstored| Taking::Nothing(unstored.why.clone()))
    }

    /// Why the broker, which is there, stores nothing although nothing that this node sends could be the reason: starting it again may help.
    #[must_use]
    pub fn stuck(&self) -> Option<String> {
        let Taking::Nothing(why) = self.taking() else { return None };
        self.shared.unstored().as_ref().is_some_and(|unstored| unstored.is_stuck(Instant::now())).then_some(why)
    }

    /// Whether the node's consumer answers. False while it is connected means that nothing is received: the consumer is gone.
    #[must_use]
    pub fn receiving(&self) -> watch::Receiver<bool> {
        self.receiving.subscribe()
    }

    /// How often the connection was lost. What the broker sent last may have been lost with it.
    #[must_use]
    pub fn losses(&self) -> watch::Receiver<u64> {
        self.shared.losses.subscribe()
    }

    /// How often the broker was found to have lost what it had stored.
    #[must_use]
    pub fn store_losses(&self) -> watch::Receiver<u64> {
        self.shared.store_losses.subscribe()
    }

    /// Notes that the broker has lost what it had stored, as somebody else found out.
    pub fn store_was_lost(&self) {
        self.shared.newest().clear();
        self.shared.store_losses.send_modify(|losses| *losses += 1);
    }

    /// Whether a connection was lost since this was last asked: the broker is to hand out again what it had sent.
    #[must_use]
    pub fn take_redeliver(&self) -> bool {
        self.shared.redeliver.swap(false, Ordering::SeqCst)
    }

    /// Keeps in mind that the broker has not been asked yet.
    pub fn keep_redeliver(&self) {
        self.shared.redeliver.store(true, Ordering::SeqCst);
    }

    /// How often the broker refused the credentials: they ended, or are void.
    #[must_use]
    pub fn refusals(&self) -> watch::Receiver<u64> {
        self.shared.refusals.subscribe()
    }

    /// Whether this process has been running all the time.
    #[must_use]
    pub fn wake(&self) -> &Arc<Wake> {
        &self.wake
    }

    /// Where this node takes deliveries; `None` before the first credentials.
    #[must_use]
    pub fn route(&self) -> Option<Route> {
        #[cfg(test)]
        if let Some((route, _)) = &self.test {
            return Some(route.clone());
        }
        self.session.borrow().as_ref().map(|session| session.credentials.load().route.clone())
    }

    /// When the current credentials end, Unix milliseconds.
    #[must_use]
    pub fn credentials_expire_ms(&self) -> Option<u64> {
        self.session.borrow().as_ref().map(|session| session.credentials.load().expire_ms)
    }

    /// Waits until what was written has left, a second at most.
    pub async fn flush(&self) {
        let session = self.session.borrow().clone();
        let Some(session) = session.filter(|_| self.is_connected()) else { return };
        // Whatever does not get there is redelivered, or published again.
        let _ = tokio::time::timeout(FLUSH_TIMEOUT, session.js.client().flush()).await;
    }

    /// Publishes and waits for the broker's word, at most a few seconds.
    pub async fn publish(&self, message: Outgoing) -> PublishAnswer {
        self.begin(message).await.await
    }

    /// Publishes; the future that comes back waits for the broker's word, at most a few seconds. What is begun one after the
    /// other reaches the broker in that order.
    pub async fn begin(&self, message: Outgoing) -> impl Future<Output = PublishAnswer> + Send + use<> {
        #[cfg(test)]
        if let Some((_, sender)) = &self.test {
            let is_connected = *self.shared.connected.borrow();
            let (is_taken, answer) =
                if is_connected { self.test_word(&message) } else { (false, PublishAnswer::Failed) };
            let answer = if is_taken && sender.send(message).is_err() { PublishAnswer::Failed } else { answer };
            return Begun::Answered(answer).answer();
        }
        let session = self.session.borrow().clone();
        let Some(session) = session.filter(|_| *self.shared.connected.borrow()) else {
            return Begun::Answered(PublishAnswer::Failed).answer();
        };
        let (subject, publish) = into_publish(message);
        let (losses, newest) = (self.shared.losses.subscribe(), self.shared.newest_of(&subject));
        let stores = self.shared.stores.load(Ordering::Relaxed);
        let sent = session.js.send_publish(subject.clone(), publish).await;
        failpoint("S4");
        Begun::Sent { sent: Box::new(sent), subject, newest, stores, losses, shared: Arc::clone(&self.shared) }.answer()
    }
}

/// A publish that is on its way, or will never be.
enum Begun {
    Answered(PublishAnswer),
    Sent {
        sent: Box<Result<PublishAckFuture, PublishError>>,
        subject: String,
        /// Of the subject, when this one was sent.
        newest: u64,
        /// How many the broker had stored then.
        stores: u64,
        losses: watch::Receiver<u64>,
        shared: Arc<Shared>,
    },
}

impl Begun {
    async fn answer(self) -> PublishAnswer {
        let (sent, subject, newest, stores, mut losses, shared) = match self {
            Self::Answered(answer) => return answer,
            Self::Sent { sent, subject, newest, stores, losses, shared } => {
                (sent, subject, newest, stores, losses, shared)
            }
        };
        let answer = match *sent {
            Ok(answer) => tokio::select! {
                answer = answer.into_future() => answer,
                // An answer from before the loss would have come first: it is published again, under the same id.
                _ = losses.changed() => return PublishAnswer::Failed,
            },
            Err(error) => Err(error),
        };
        match answer {
            Ok(stored) => {
                shared.stores.fetch_add(1, Ordering::Relaxed);
                shared.unstored().take();
                if !stored.duplicate {
                    shared.stored(subject, newest, stored.sequence);
                }
                PublishAnswer::Stored { duplicate: stored.duplicate }
            }
            Err(error) => shared.refused(&subject, stores, &error),
        }
    }
}

fn into_publish(message: Outgoing) -> (String, PublishMessage) {
    let Outgoing { subject, nats_msg_id, traceparent, bytes } = message;
    let publish = PublishMessage::build()
        .payload(bytes)
        .message_id(nats_msg_id)
        .header("Content-Type", "application/vnd.murmur.v2+protobuf");
    let publish = match traceparent.filter(|text| !text.is_empty()) {
        Some(traceparent) => publish.header("traceparent", traceparent.as_str()),
        None => publish,
    };
    (subject, publish)
}

impl Shared {
    /// The connection is gone, and whatever was on the way.
    fn lost(&self) {
        self.redeliver.store(true, Ordering::SeqCst);
        self.losses.send_modify(|losses| *losses += 1);
    }

    /// What an error means for a message that was sent when so many had been stored.
    fn refused(&self, subject: &str, stores: u64, error: &PublishError) -> PublishAnswer {
        if self.denied().contains(subject) {
            return PublishAnswer::Denied;
        }
        let refusal = std::error::Error::source(error).and_then(|source| source.downcast_ref::<jetstream::Error>());
        match (error.kind(), refusal.map(|refusal| refusal.error_code().0)) {
            (PublishErrorKind::MaxPayloadExceeded, _) | (_, Some(TOO_LARGE)) => return PublishAnswer::TooLarge,
            (_, Some(STORE_FAILED)) => {
                let why = refusal.map(ToString::to_string).unwrap_or_default();
                if !why.contains(LANE_FULL) {
                    let is_broken = !why.contains(LIMIT);
                    self.stores_nothing(why, is_broken);
                }
                return PublishAnswer::LaneFull;
            }
            // A broker whose disk is full does not answer.
            (PublishErrorKind::TimedOut, _) if self.stores.load(Ordering::Relaxed) == stores => {
                self.stores_nothing("it does not answer".to_owned(), true);
            }
            // The connection went, which is told by itself.
            (PublishErrorKind::TimedOut | PublishErrorKind::BrokenPipe | PublishErrorKind::MaxAckPending, _) => {}
            _ => self.stores_nothing(refusal.map_or_else(|| error.to_string(), ToString::to_string), false),
        }
        tracing::debug!(%error, "the broker did not take a message");
        PublishAnswer::Failed
    }

    /// Notes why the broker stores nothing, and says so once.
    fn stores_nothing(&self, why: String, is_broken: bool) {
        let mut unstored = self.unstored();
        if unstored.as_ref().is_none_or(|before| before.why != why) {
            tracing::warn!("the broker stores nothing: {why}");
        }
        let last = Instant::now();
        let first =
            unstored.as_ref().filter(|before| before.is_broken == is_broken).map_or(last, |before| before.first);
        *unstored = Some(Unstored { why, is_broken, first, last });
    }

    fn unstored(&self) -> std::sync::MutexGuard<'_, Option<Unstored>> {
        self.unstored.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn newest_of(&self, subject: &str) -> u64 {
        self.newest().get(subject).copied().unwrap_or(0)
    }

    /// What is stored later has a later place, or the stream is another one.
    fn stored(&self, subject: String, newest_before: u64, place: u64) {
        let mut newest = self.newest();
        if place <= newest_before {
            newest.clear();
            self.store_losses.send_modify(|losses| *losses += 1);
        } else if newest.len() >= NEWEST_MAX {
            newest.clear();
        }
        let known = newest.entry(subject).or_default();
        *known = place.max(*known);
    }

    fn newest(&self) -> std::sync::MutexGuard<'_, HashMap<String, u64>> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn denied(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.denied.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refusal(text: &str) -> PublishError {
        let refusal = json!({"code": 503, "err_code": STORE_FAILED, "description": text});
        PublishError::with_source(PublishErrorKind::Other, serde_json::from_value::<jetstream::Error>(refusal).unwrap())
    }

    #[test]
    fn a_broker_that_stores_nothing_is_told_until_it_stores_or_is_another() {
        let bus = Bus::new(BusConfig::new(NodeId::from_bytes([1; 16])));
        assert_eq!(bus.taking(), Taking::Away);
        bus.shared.connected.send_replace(true);
        let lane = refusal("maximum messages per subject exceeded");
        assert_eq!((bus.shared.refused("s", 0, &lane), bus.taking()), (PublishAnswer::LaneFull, Taking::Yes));
        let silence = PublishError::new(PublishErrorKind::TimedOut);
        bus.shared.stores.store(1, Ordering::Relaxed);
        bus.shared.refused("s", 0, &silence);
        assert_eq!(bus.taking(), Taking::Yes, "something was stored since");
        bus.shared.refused("s", 1, &silence);
        assert_eq!(bus.taking(), Taking::Nothing("it does not answer".to_owned()));
        assert_eq!(bus.shared.refused("s", 1, &refusal("no space left on device")), PublishAnswer::LaneFull);
        assert!(matches!(bus.taking(), Taking::Nothing(why) if why.contains("no space left")));
        bus.leave();
        assert_eq!(bus.taking(), Taking::Left);
    }

    #[test]
    fn a_broker_is_stuck_when_it_failed_for_a_while_and_not_when_it_is_at_a_limit() {
        let bus = Bus::new(BusConfig::new(NodeId::from_bytes([1; 16])));
        bus.shared.connected.send_replace(true);
        let back = |by| bus.shared.unstored().as_mut().unwrap().first -= by;
        bus.shared.refused("s", 0, &refusal("no space left on device"));
        assert_eq!(bus.stuck(), None, "once is no proof");
        back(Unstored::LASTS);
        bus.shared.refused("s", 0, &refusal("no space left on device"));
        assert!(bus.stuck().is_some_and(|why| why.contains("no space left")));
        bus.shared.unstored().as_mut().unwrap().last -= Unstored::OLD;
        assert_eq!(bus.stuck(), None, "that was long ago");
        for _ in 0..2 {
            bus.shared.refused("s", 0, &refusal("maximum bytes exceeded"));
            back(Unstored::LASTS);
        }
        assert!(matches!(bus.taking(), Taking::Nothing(_)));
        assert_eq!(bus.stuck(), None, "a new start changes no limit");
    }
}
