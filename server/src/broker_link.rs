//! The control plane's link to the broker: made in the background, so that the directory is served while the broker is away.

use std::{path::PathBuf, sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use murmur_core::{
    limits::BROKER_JWT_LIFE_MS,
    subject::{Route, Site},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    broker::{BrokerAddress, BrokerAdmin, BrokerError, BrokerKeys, BrokerLayout, StreamSettings},
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
    admin: ArcSwapOption<BrokerAdmin>,
}

impl BrokerLink {
    /// Reads keys and authority; connects to nothing yet. Without a configuration every request for credentials is refused.
    ///
    /// # Errors
    /// [`BrokerError`] when the directory is not a prepared one.
    pub fn new(site: Site, config: Option<LinkConfig>) -> Result<Arc<Self>, BrokerError> {
        let configured = config.map(configure).transpose()?;
        Ok(Arc::new(Self { site, configured, admin: ArcSwapOption::empty() }))
    }

    /// The site whose subjects the nodes use.
    #[must_use]
    pub const fn site(&self) -> &Site {
        &self.site
    }

    /// Whether everything that is configured works: true without a broker.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.configured.is_none() || self.admin.load().as_ref().is_some_and(|admin| admin.is_connected())
    }

    /// Connects, however long it takes. Once made, the connection heals itself.
    pub async fn connect(&self, clock: &Clock, stop: &CancellationToken) {
        let Some(Configured { keys, config, .. }) = &self.configured else { return };
        let mut delay = RETRY_MIN;
        loop {
            let now_s = clock.now_ms() / 1000;
            match BrokerAdmin::connect(&config.address, keys, config.streams.clone(), now_s).await {
                Ok(admin) => {
                    self.admin.store(Some(Arc::new(admin)));
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
        self.admin.load().as_ref().map(|admin| admin.connections())
    }

    /// Makes sure that a node's stream and consumer exist.
    ///
    /// # Errors
    /// As [`BrokerLink::admit`].
    pub async fn prepare(&self, route: &Route) -> Result<(), NodeError> {
        let admin = self.admin.load_full().filter(|admin| admin.is_connected()).ok_or(NodeError::BrokerDown)?;
        admin.ensure_stream(&route.site, route.shard).await?;
        Ok(admin.ensure_consumer(route).await?)
    }

    /// Makes sure that a node's stream and consumer exist and signs a credential for its key.
    ///
    /// # Errors
    /// [`NodeError::BrokerDown`] while there is no connection, [`NodeError::Broker`] when the broker refuses.
    pub async fn admit(&self, route: &Route, broker_public_key: &str, now_ms: u64) -> Result<Access, NodeError> {
        let configured = self.configured.as_ref().ok_or(NodeError::BrokerDown)?;
        self.prepare(route).await?;
        let life_s = BROKER_JWT_LIFE_MS / 1000;
        let now_s = now_ms / 1000;
        let jwt = configured.keys.node_user_jwt(route.node, &[route.workspace], broker_public_key, now_s, life_s)?;
        Ok(Access {
            jwt,
            urls: vec![configured.config.address.url.clone()],
            ca_pem: configured.ca_pem.clone(),
            expire_ms: (now_s + life_s) * 1000,
        })
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
