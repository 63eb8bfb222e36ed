//! Streams and consumers (PROTOCOL §5.2): made by the control plane alone, with the hardening that keeps a sender's headers
//! from deciding anything.

use std::time::Duration;

use async_nats::{
    Client,
    connection::State,
    jetstream::{
        self, AckKind, ErrorCode,
        consumer::{AckPolicy, pull},
        context::GetStreamErrorKind,
        stream::{Config, ConsumerErrorKind, DiscardPolicy, RetentionPolicy, StorageType},
    },
};
use data_encoding::HEXLOWER;
use futures::{StreamExt as _, TryStreamExt as _};
use murmur_core::{
    limits::{BROKER_MESSAGE_BYTES_MAX, MESSAGE_AGE_MS_MAX},
    subject::{Route, Shard, Site, consumer_name, stream_name, stream_subjects},
};
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use super::{BrokerAddress, BrokerError, BrokerKeys};

/// Messages taken out of a stream in one go.
const CLEAR_BATCH: usize = 500;
/// The broker forgets by itself what was begun and not ended.
const CLEAR_INACTIVE: Duration = Duration::from_secs(60);

/// What an installation decides about its streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamSettings {
    /// Copies of each message, 1 to 5; 3 in production.
    pub replicas: u8,
    /// Bytes one shard may store; a full stream refuses new messages.
    pub max_bytes: i64,
    /// Messages one node may have waiting for one agent; more are refused with error 10077.
    pub lane_messages_max: i64,
    /// Messages a node may hold unacknowledged.
    pub ack_pending_max: i64,
    /// An unacknowledged message is delivered again after this long.
    pub ack_wait: Duration,
    /// The broker forgets a message id after this long. Only a hint: receivers deduplicate themselves.
    pub duplicate_window: Duration,
}

impl Default for StreamSettings {
    /// One machine: one copy, 1 GiB, lanes of 1,000, 1,024 unacknowledged.
    ///
    /// An acknowledgement is waited for shorter than the protocol's 30 s: after a cut connection the broker may still answer the
    /// old pull request, and what it sends there waits this long; a node deals with a message in milliseconds.
    fn default() -> Self {
        Self {
            replicas: 1,
            max_bytes: 1 << 30,
            lane_messages_max: 1000,
            ack_pending_max: 1024,
            ack_wait: Duration::from_secs(10),
            duplicate_window: Duration::from_secs(300),
        }
    }
}

/// What of a stream's room is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Bytes that are stored.
    pub bytes: u64,
    /// Bytes that may be.
    pub bytes_max: u64,
}

/// The control plane's hand on the streams.
#[derive(Debug, Clone)]
pub struct BrokerAdmin {
    client: Client,
    js: jetstream::Context,
    settings: StreamSettings,
    connections: watch::Receiver<u64>,
}

impl BrokerAdmin {
    /// Connects as the control plane's user. `now_s` is the time in Unix seconds.
    ///
    /// # Errors
    /// [`BrokerError::Connect`] when the broker is not there or refuses the keys. Once connected, the connection is made
    /// anew for ever.
    pub async fn connect(
        address: &BrokerAddress,
        keys: &BrokerKeys,
        settings: StreamSettings,
        now_s: u64,
    ) -> Result<Self, BrokerError> {
        let (connections, counted) = watch::channel(0);
        let client = address.connect(keys.cp_user_jwt(now_s)?, &keys.cp_user, "murmur-server", connections).await?;
        Ok(Self { js: jetstream::new(client.clone()), client, settings, connections: counted })
    }

    /// The connection itself, with the control plane's rights in the account of the streams.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// How often the connection was made. After each time the broker may be another one, or have lost its disk.
    #[must_use]
    pub fn connections(&self) -> watch::Receiver<u64> {
        self.connections.clone()
    }

    /// Whether the connection stands right now.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// Makes the stream of a shard, or brings an existing one up to the settings. Returns when it was made, Unix milliseconds.
    ///
    /// # Errors
    /// [`BrokerError::Request`] when the broker does not answer or refuses, [`BrokerError::Refused`] when it answers with a
    /// stream that lacks the hardening.
    pub async fn ensure_stream(&self, site: &Site, shard: Shard) -> Result<u64, BrokerError> {
        let wanted = stream_config(site, shard, &self.settings);
        let action = "make a stream";
        let info = self.js.create_or_update_stream(wanted.clone()).await.map_err(BrokerError::request(action))?;
        match first_difference(&wanted, &info.config) {
            None => Ok(u64::try_from(info.created.unix_timestamp_nanos() / 1_000_000).unwrap_or_default()),
            Some(field) => Err(BrokerError::Refused { action, reason: format!("`{field}` is not as asked") }),
        }
    }

    /// Makes the consumer of a node, or brings an existing one up to the settings.
    ///
    /// # Errors
    /// [`BrokerError::Request`] when the shard's stream is missing, or the broker does not answer or refuses.
    pub async fn ensure_consumer(&self, route: &Route) -> Result<(), BrokerError> {
        let config = consumer_config(route, &self.settings);
        let stream = stream_name(route.shard);
        self.js
            .create_consumer_on_stream(config, stream)
            .await
            .map(|_: jetstream::consumer::PullConsumer| ())
            .map_err(BrokerError::request("make a consumer"))
    }

    /// Forgets what a node was handed and has not acknowledged, and its open pull requests, by forgetting its consumer: the next one begins
    /// with everything that is still in the stream. Nothing happens when there is none.
    ///
    /// # Errors
    /// [`BrokerError::Request`] when the broker does not answer.
    pub async fn forget_consumer(&self, route: &Route) -> Result<(), BrokerError> {
        const NOT_FOUND: [ErrorCode; 2] = [ErrorCode::CONSUMER_NOT_FOUND, ErrorCode::STREAM_NOT_FOUND];
        let deleted = self.js.delete_consumer_from_stream(consumer_name(route.node), stream_name(route.shard)).await;
        match deleted {
            Ok(_) => Ok(()),
            Err(error) => match error.kind() {
                ConsumerErrorKind::JetStream(answer) if NOT_FOUND.contains(&answer.error_code()) => Ok(()),
                _ => Err(BrokerError::request("forget a consumer")(error)),
            },
        }
    }

    /// Deletes what stands under these subjects now, for which there must be no consumer, and says how many messages that were. The stream
    /// lets nobody purge it, so they are taken out as any recipient takes them, without their bodies.
    ///
    /// # Errors
    /// [`BrokerError::Request`] when the broker does not answer or refuses.
    pub async fn clear(&self, shard: Shard, subjects: &[String]) -> Result<u64, BrokerError> {
        let action = "delete what nobody will take";
        let (stream, name) = (stream_name(shard), clearing_name(subjects));
        let config = pull::Config {
            name: Some(name.clone()),
            filter_subjects: subjects.to_vec(),
            ack_policy: AckPolicy::Explicit,
            max_ack_pending: -1,
            headers_only: true,
            inactive_threshold: CLEAR_INACTIVE,
            ..pull::Config::default()
        };
        let consumer = self.js.create_consumer_on_stream(config, stream.clone()).await;
        let consumer: jetstream::consumer::PullConsumer = consumer.map_err(BrokerError::request(action))?;
        // Whoever goes on writing there does not keep this from its end.
        let wanted = consumer.cached_info().num_pending;
        let mut count = 0;
        while count < wanted {
            let batch = consumer.fetch().max_messages(CLEAR_BATCH).messages().await;
            let batch: Vec<_> = batch
                .map_err(BrokerError::request(action))?
                .try_collect()
                .await
                .map_err(BrokerError::request(action))?;
            let Some((last, others)) = batch.split_last() else { break };
            count += batch.len() as u64;
            for message in others {
                message.ack_with(AckKind::Term).await.map_err(BrokerError::request(action))?;
            }
            // The broker takes acknowledgements in order, and not before what is asked of it otherwise: the consumer goes when all have come.
            last.double_ack_with(AckKind::Term).await.map_err(BrokerError::request(action))?;
        }
        self.js.delete_consumer_from_stream(name, stream).await.map_err(BrokerError::request(action))?;
        Ok(count)
    }

    /// How much of a shard's room is taken, in bytes; `None` when there is no stream, or no bound.
    ///
    /// # Errors
    /// [`BrokerError::Request`] when the broker does not answer.
    pub async fn room(&self, shard: Shard) -> Result<Option<Room>, BrokerError> {
        match self.js.get_stream(stream_name(shard)).await {
            Ok(stream) => {
                let info = stream.cached_info();
                let bytes_max = u64::try_from(info.config.max_bytes).ok();
                Ok(bytes_max.map(|bytes_max| Room { bytes: info.state.bytes, bytes_max }))
            }
            Err(error) => match error.kind() {
                GetStreamErrorKind::JetStream(answer) if answer.error_code() == ErrorCode::STREAM_NOT_FOUND => Ok(None),
                _ => Err(BrokerError::request("look at a stream")(error)),
            },
        }
    }

    /// Subjects of a shard under which something waits and which are `wanted`, `max` of them at most, and how many messages wait there.
    ///
    /// # Errors
    /// [`BrokerError::Request`] when the broker does not answer.
    pub async fn subjects(
        &self,
        shard: Shard,
        wanted: impl Fn(&str) -> bool,
        max: usize,
    ) -> Result<Vec<(String, usize)>, BrokerError> {
        let action = "list what waits in a stream";
        let stream = self.js.get_stream_no_info(stream_name(shard)).await.map_err(BrokerError::request(action))?;
        let listed = stream.info_with_subjects(">").await.map_err(BrokerError::request(action))?;
        let wanted = listed.try_filter(|(subject, _)| std::future::ready(wanted(subject))).take(max);
        wanted.try_collect().await.map_err(BrokerError::request(action))
    }

    /// Removes a node's consumer, for a node that will not come back. Its undelivered messages stay until they age out.
    ///
    /// # Errors
    /// [`BrokerError::Request`] when there is none, or the broker does not answer.
    pub async fn delete_consumer(&self, route: &Route) -> Result<(), BrokerError> {
        self.js
            .delete_consumer_from_stream(consumer_name(route.node), stream_name(route.shard))
            .await
            .map(|_| ())
            .map_err(BrokerError::request("delete a consumer"))
    }
}

/// One name for the same subjects, so that what was begun and cut off is begun again and not twice.
fn clearing_name(subjects: &[String]) -> String {
    let digest = Sha256::digest(subjects.join("\n"));
    format!("gone_{}", HEXLOWER.encode(&digest[..16]))
}

fn stream_config(site: &Site, shard: Shard, settings: &StreamSettings) -> Config {
    Config {
        name: stream_name(shard),
        subjects: vec![stream_subjects(site, shard)],
        retention: RetentionPolicy::WorkQueue,
        storage: StorageType::File,
        num_replicas: settings.replicas.into(),
        max_age: Duration::from_millis(MESSAGE_AGE_MS_MAX),
        max_message_size: i32::try_from(BROKER_MESSAGE_BYTES_MAX).unwrap_or(i32::MAX),
        max_bytes: settings.max_bytes,
        max_messages: -1,
        max_consumers: -1,
        discard: DiscardPolicy::New,
        discard_new_per_subject: true,
        max_messages_per_subject: settings.lane_messages_max,
        duplicate_window: settings.duplicate_window,
        deny_delete: true,
        deny_purge: true,
        // A sender writes the headers: none of them may erase, keep, schedule or count anything.
        allow_rollup: false,
        allow_direct: false,
        mirror_direct: false,
        allow_message_ttl: false,
        allow_message_counter: false,
        allow_message_schedules: false,
        allow_atomic_publish: false,
        allow_batch_publish: false,
        ..Config::default()
    }
}

fn consumer_config(route: &Route, settings: &StreamSettings) -> pull::Config {
    pull::Config {
        durable_name: Some(consumer_name(route.node)),
        filter_subject: route.filter(),
        ack_policy: AckPolicy::Explicit,
        ack_wait: settings.ack_wait,
        max_ack_pending: settings.ack_pending_max,
        max_deliver: -1,
        ..pull::Config::default()
    }
}

/// The name of the first field that the server set otherwise than asked.
fn first_difference(wanted: &Config, actual: &Config) -> Option<&'static str> {
    let same = [
        ("subjects", wanted.subjects == actual.subjects),
        ("retention", wanted.retention == actual.retention),
        ("discard", wanted.discard == actual.discard),
        ("discard_new_per_subject", wanted.discard_new_per_subject == actual.discard_new_per_subject),
        ("max_msgs_per_subject", wanted.max_messages_per_subject == actual.max_messages_per_subject),
        ("max_msg_size", wanted.max_message_size == actual.max_message_size),
        ("deny_delete", wanted.deny_delete == actual.deny_delete),
        ("deny_purge", wanted.deny_purge == actual.deny_purge),
        ("allow_rollup_hdrs", wanted.allow_rollup == actual.allow_rollup),
        ("allow_direct", wanted.allow_direct == actual.allow_direct),
        ("mirror_direct", wanted.mirror_direct == actual.mirror_direct),
        ("allow_msg_ttl", wanted.allow_message_ttl == actual.allow_message_ttl),
        ("allow_msg_counter", wanted.allow_message_counter == actual.allow_message_counter),
        ("allow_msg_schedules", wanted.allow_message_schedules == actual.allow_message_schedules),
        ("allow_atomic", wanted.allow_atomic_publish == actual.allow_atomic_publish),
        ("allow_batched", wanted.allow_batch_publish == actual.allow_batch_publish),
    ];
    same.into_iter().find(|(_, same)| !same).map(|(field, _)| field)
}
