//! The control plane's link to the broker: made in the background, so that the directory is served while the broker is away.

use std::{path::PathBuf, sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use murmur_core::subject::{Route, Shard, Site};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    broker::{BrokerAddress, BrokerAdmin, BrokerError, BrokerKeys, BrokerLayout, Revoker, Room, StreamSettings},
    clock::Clock,
    nodes::NodeError,
};

const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Where the broker is and whose keys to use.
#[derive(Debug, Clone)]
pub struct LinkConfig {
    /// As prepared by `murmur-server broker-init`.
    pub dir: PathBuf,
    /// Where the broker listens, for us and for the nodes.
    pub address: BrokerAddress,
    /// How streams are made.
    pub streams: StreamSettings,
    /// How long a node's credential is good.
    pub token_life_ms: u64,
}

/// What a node needs to connect.
#[derive(Debug, Clone)]
pub struct Access {
    /// NATS user token for the node's key.
    pub jwt: String,
    /// Where the broker listens.
    pub urls: Vec<String>,
    /// PEM of a private certificate authority; empty without.
    pub ca_pem: String,
    /// Unix milliseconds.
    pub expire_ms: u64,
    /// When the node's stream was made, Unix milliseconds.
    pub stream_created_ms: u64,
}

/// Both connections to the broker.
struct Hands {
    admin: BrokerAdmin,
    revoker: Revoker,
}

struct Configured {
    keys: BrokerKeys,
    config: LinkConfig,
    ca_pem: String,
}

/// The link, whether there is a broker or not.
pub struct BrokerLink {
    site: Site,
    configured: Option<Configured>,
    hands: ArcSwapOption<Hands>,
}

impl BrokerLink {
    /// Reads keys and authority; connects to nothing yet. Without a configuration every request for credentials is refused.
    ///
    /// # Errors
    /// [`BrokerError`] when the directory is not a prepared one.
    pub fn new(site: Site, config: Option<LinkConfig>) -> Result<Arc<Self>, BrokerError> {
        let configured = config.map(configure).transpose()?;
        Ok(Arc::new(Self { site, configured, hands: ArcSwapOption::empty() }))
    }

    /// The site whose subjects the nodes use.
    #[must_use]
    pub const fn site(&self) -> &Site {
        &self.site
    }

    /// Whether everything that is configured works: true without a broker.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.configured.is_none() || self.hands.load().as_ref().is_some_and(|hands| hands.admin.is_connected())
    }

    /// Connects, however long it takes. Once made, the connection heals itself.
    pub async fn connect(&self, clock: &Clock, stop: &CancellationToken) {
        let Some(Configured { keys, config, .. }) = &self.configured else { return };
        let mut delay = RETRY_MIN;
        loop {
            let now_s = clock.now_ms() / 1000;
            match Hands::connect(config, keys, now_s).await {
                Ok(hands) => {
                    self.hands.store(Some(Arc::new(hands)));
                    return;
                }
                Err(error) => tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "broker at {} cannot be reached, trying again in {delay:?}",
                    config.address.url
                ),
            }
            tokio::select! {
                () = tokio::time::sleep(delay) => delay = (delay * 2).min(RETRY_MAX),
                () = stop.cancelled() => return,
            }
        }
    }

    /// Changes whenever the connection was made anew; `None` before the first one.
    #[must_use]
    pub fn connections(&self) -> Option<watch::Receiver<u64>> {
        self.hands.load().as_ref().map(|hands| hands.admin.connections())
    }

    /// Makes sure that a node's stream and consumer exist. Returns when the stream was made, Unix milliseconds.
    ///
    /// # Errors
    /// As [`BrokerLink::admit`].
    pub async fn prepare(&self, route: &Route) -> Result<u64, NodeError> {
        let (hands, _) = self.connected()?;
        let stream_created_ms = hands.admin.ensure_stream(&route.site, route.shard).await?;
        hands.admin.ensure_consumer(route).await?;
        Ok(stream_created_ms)
    }

    /// Makes sure that a node's stream and consumer exist and signs a credential for its key, issued at `issue_s` (Unix seconds). With
    /// `redeliver`, what the node was handed and has not acknowledged is handed out again.
    ///
    /// # Errors
    /// [`NodeError::BrokerDown`] while there is no connection, [`NodeError::Broker`] when the broker refuses.
    pub async fn admit(
        &self,
        route: &Route,
        broker_public_key: &str,
        issue_s: u64,
        redeliver: bool,
    ) -> Result<Access, NodeError> {
        let (hands, configured) = self.connected()?;
        if redeliver {
            hands.admin.forget_consumer(route).await?;
            tracing::info!(node.id = %route.node, "what node {} was handed and has not acknowledged is handed out again", route.node);
        }
        let stream_created_ms = self.prepare(route).await?;
        let life_s = (configured.config.token_life_ms / 1000).max(1);
        let jwt = configured.keys.node_user_jwt(route.node, &[route.workspace], broker_public_key, issue_s, life_s)?;
        Ok(Access {
            jwt,
            urls: vec![configured.config.address.url.clone()],
            ca_pem: configured.ca_pem.clone(),
            expire_ms: (issue_s + life_s) * 1000,
            stream_created_ms,
        })
    }

    /// Voids every credential that a key was given up to `until_s` (Unix seconds), and disconnects whoever uses one.
    ///
    /// # Errors
    /// As [`BrokerLink::admit`].
    pub async fn void(&self, broker_public_key: &str, until_s: u64) -> Result<(), NodeError> {
        let (hands, _) = self.connected()?;
        Ok(hands.revoker.revoke(broker_public_key, until_s).await?)
    }

    /// Removes a node's consumer and what waits for it, for a node that does not count any more. Returns how many messages that were.
    ///
    /// # Errors
    /// As [`BrokerLink::admit`].
    pub async fn remove_node(&self, route: &Route) -> Result<u64, NodeError> {
        let (hands, _) = self.connected()?;
        hands.admin.forget_consumer(route).await?;
        Ok(hands.admin.clear(route.shard, &[route.filter()]).await?)
    }

    /// How much of a shard's room is taken; `None` when there is no stream, or no bound.
    ///
    /// # Errors
    /// As [`BrokerLink::admit`].
    pub async fn room(&self, shard: Shard) -> Result<Option<Room>, NodeError> {
        let (hands, _) = self.connected()?;
        Ok(hands.admin.room(shard).await?)
    }

    /// Subjects of a shard under which something waits and which are `wanted`, `max` of them at most, and how many messages wait there.
    ///
    /// # Errors
    /// As [`BrokerLink::admit`].
    pub async fn subjects(
        &self,
        shard: Shard,
        wanted: impl Fn(&str) -> bool,
        max: usize,
    ) -> Result<Vec<(String, usize)>, NodeError> {
        let (hands, _) = self.connected()?;
        Ok(hands.admin.subjects(shard, wanted, max).await?)
    }

    /// Deletes what waits under subjects that no node takes from. Returns how many messages that were.
    ///
    /// # Errors
    /// As [`BrokerLink::admit`].
    pub async fn clear(&self, shard: Shard, subjects: &[String]) -> Result<u64, NodeError> {
        let (hands, _) = self.connected()?;
        Ok(hands.admin.clear(shard, subjects).await?)
    }

    fn connected(&self) -> Result<(Arc<Hands>, &Configured), NodeError> {
        let hands = self.hands.load_full().filter(|hands| hands.admin.is_connected());
        hands.zip(self.configured.as_ref()).ok_or(NodeError::BrokerDown)
    }
}

impl Hands {
    async fn connect(config: &LinkConfig, keys: &BrokerKeys, now_s: u64) -> Result<Self, BrokerError> {
        let admin = BrokerAdmin::connect(&config.address, keys, config.streams.clone(), now_s).await?;
        let revoker = Revoker::connect(&config.address, keys, now_s).await?;
        Ok(Self { admin, revoker })
    }
}

fn configure(config: LinkConfig) -> Result<Configured, BrokerError> {
    let keys = BrokerKeys::load(&BrokerLayout::new(&config.dir).keys)?;
    let ca_pem = match &config.address.ca {
        Some(path) => {
            std::fs::read_to_string(path).map_err(|source| BrokerError::File { path: path.clone(), source })?
        }
        None => String::new(),
    };
    Ok(Configured { keys, config, ca_pem })
}

/// Whether a text is a user's public nkey.
#[must_use]
pub fn is_user_key(text: &str) -> bool {
    text.starts_with('U') && nkeys::KeyPair::from_public_key(text).is_ok()
}
