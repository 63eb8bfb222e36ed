//! Configuration: a TOML file, then `MURMUR_SERVER_*` of the environment, then flags; the later wins. Unknown keys are errors.

use std::{
    net::SocketAddr,
    num::{NonZeroU32, NonZeroU64},
    path::{Path, PathBuf},
    time::Duration,
};

use figment::{
    Figment,
    providers::{Env, Format, Serialized, Toml},
};
use murmur_core::{
    limits::{BROKER_JWT_LIFE_MS, HEARTBEAT_MS, LEASE_MS},
    place::BaseDirs,
    subject::Site,
};
use serde::{Deserialize, Serialize};

use crate::{
    agents::AgentsConfig,
    broker::{BrokerAddress, StreamSettings},
    broker_link::LinkConfig,
    limit::Rate,
    links::{InvalidPublicUrl, PublicUrl},
    tokens::NODE_LIFE_MS,
    uploads::UploadsConfig,
};

/// What can be set, as flags. Each key of the file has the flag's name with `_` for `-`.
#[derive(Debug, Clone, Default, clap::Args, Serialize)]
pub struct Flags {
    /// Where to listen; port 0 lets the system choose, and `<data-dir>/server.addr` says which it was.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
    /// Database, administrator's token and address file.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_dir: Option<PathBuf>,
    /// The broker's directory, made by `broker-init`; without it no broker credentials are handed out.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broker_dir: Option<PathBuf>,
    /// Where the broker listens, such as `nats://127.0.0.1:4222`; handed to nodes as it stands.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broker_url: Option<String>,
    /// PEM of the broker's certificate authority.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broker_ca: Option<PathBuf>,
    /// Name of this installation in broker subjects.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// PEM of the certificate chain; needed, with the key, off loopback.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_cert: Option<PathBuf>,
    /// PEM of the private key.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_key: Option<PathBuf>,
    /// Copies of each message in the broker, 1 to 5.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_replicas: Option<u8>,
    /// Bytes that one broker stream may hold.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_max_bytes: Option<i64>,
    /// How long the broker waits for a node's acknowledgement before it delivers a message again.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_ack_wait_ms: Option<u64>,
    /// How long the broker knows a message's id, to drop a repeat.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_duplicate_window_ms: Option<u64>,
    /// How often a node is asked to send a heartbeat.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heartbeat_ms: Option<u32>,
    /// How long a silent node keeps its lease.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease_ms: Option<u32>,
    /// How long a node's broker credential is good; it is renewed at two thirds.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broker_token_life_ms: Option<u64>,
    /// How long a node's own token is good; it is renewed at two thirds.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_token_life_ms: Option<u64>,
    /// Connections at one time; one more is closed at once.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections_max: Option<NonZeroU32>,
    /// Unary calls a second of one token.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calls_per_second: Option<NonZeroU32>,
    /// Unary calls of one token at once.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calls_burst: Option<NonZeroU32>,
    /// Enrolments, and failed logins, a minute from one address.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enroll_per_minute: Option<NonZeroU32>,
    /// Enrolments, and failed logins, from one address at once.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enroll_burst: Option<NonZeroU32>,
    /// Webhook deliveries a second of one source, and from one address.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hooks_per_second: Option<NonZeroU32>,
    /// Webhook deliveries of one source, and from one address, at once.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hooks_burst: Option<NonZeroU32>,
    /// Longest unary call.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unary_timeout_ms: Option<NonZeroU64>,
    /// How long a node may be away before the agents that it ran are given up.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_lost_ms: Option<NonZeroU64>,
    /// How long agents that have ended are kept, to be read and resurrected; 0: for ever.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_keep_ms: Option<u64>,
    /// Spawns a minute of one account.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spawn_per_minute: Option<NonZeroU32>,
    /// Live agents of one account that were spawned.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agents_live_max: Option<u32>,
    /// Live agents directly below one agent.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub children_max: Option<u32>,
    /// Where others reach this control plane, such as `https://murmur.example.org`, for links; without it where it listens.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_url: Option<String>,
    /// The domain below which each tunnel has a host of its own, such as `tunnels.example.org`; `localhost` on loopback.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tunnel_domain: Option<String>,
    /// Uploaded files; without it `uploads` in the data directory.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upload_dir: Option<PathBuf>,
    /// Bytes of one uploaded file.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upload_bytes_max: Option<u64>,
    /// Bytes of all uploaded files of one account.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upload_account_bytes_max: Option<u64>,
    /// How long an uploaded file can be fetched.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upload_life_ms: Option<NonZeroU64>,
    /// How long calls may take to finish when the process is asked to end.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain_ms: Option<u64>,
}

/// A validated configuration.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Database, administrator's token, address file.
    pub data_dir: PathBuf,
    /// The broker's directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broker_dir: Option<PathBuf>,
    /// Where the broker listens.
    pub broker_url: String,
    /// PEM of the broker's authority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broker_ca: Option<PathBuf>,
    /// Name in broker subjects.
    pub site: String,
    /// PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_cert: Option<PathBuf>,
    /// PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_key: Option<PathBuf>,
    /// 1 to 5.
    pub stream_replicas: u8,
    /// Bytes.
    pub stream_max_bytes: i64,
    /// Milliseconds.
    pub stream_ack_wait_ms: u64,
    /// Milliseconds.
    pub stream_duplicate_window_ms: u64,
    /// Milliseconds.
    pub heartbeat_ms: u32,
    /// Milliseconds.
    pub lease_ms: u32,
    /// Milliseconds, whole seconds.
    pub broker_token_life_ms: u64,
    /// Milliseconds.
    pub node_token_life_ms: u64,
    /// This process.
    pub connections_max: NonZeroU32,
    /// A token.
    pub calls_per_second: NonZeroU32,
    /// A token.
    pub calls_burst: NonZeroU32,
    /// An address.
    pub enroll_per_minute: NonZeroU32,
    /// An address.
    pub enroll_burst: NonZeroU32,
    /// A source, and an address.
    pub hooks_per_second: NonZeroU32,
    /// A source, and an address.
    pub hooks_burst: NonZeroU32,
    /// Milliseconds.
    pub unary_timeout_ms: NonZeroU64,
    /// Milliseconds.
    pub node_lost_ms: NonZeroU64,
    /// Milliseconds; 0: for ever.
    pub agent_keep_ms: u64,
    /// An account.
    pub spawn_per_minute: NonZeroU32,
    /// An account.
    pub agents_live_max: u32,
    /// An agent.
    pub children_max: u32,
    /// Where others reach this control plane.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_url: Option<String>,
    /// Below which each tunnel has a host of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel_domain: Option<String>,
    /// Uploaded files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload_dir: Option<PathBuf>,
    /// A file.
    pub upload_bytes_max: u64,
    /// An account.
    pub upload_account_bytes_max: u64,
    /// Milliseconds.
    pub upload_life_ms: NonZeroU64,
    /// Milliseconds.
    pub drain_ms: u64,
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A source cannot be read, or a key is unknown or of the wrong type.
    #[error(transparent)]
    Source(Box<figment::Error>),
    /// A value breaks a rule.
    #[error("{key}: {rule}")]
    Rule {
        /// Which key.
        key: &'static str,
        /// What it must be.
        rule: String,
    },
}

impl Config {
    /// The defaults for a data directory, on a port of the system's choice.
    #[must_use]
    pub fn local(data_dir: PathBuf) -> Self {
        let count = |count: u32| NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN);
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            data_dir,
            broker_dir: None,
            broker_url: "nats://127.0.0.1:4222".into(),
            broker_ca: None,
            site: "local".into(),
            tls_cert: None,
            tls_key: None,
            stream_replicas: StreamSettings::default().replicas,
            stream_max_bytes: StreamSettings::default().max_bytes,
            stream_ack_wait_ms: 10_000,
            stream_duplicate_window_ms: 300_000,
            heartbeat_ms: u32::try_from(HEARTBEAT_MS).unwrap_or(u32::MAX),
            lease_ms: u32::try_from(LEASE_MS).unwrap_or(u32::MAX),
            broker_token_life_ms: BROKER_JWT_LIFE_MS,
            node_token_life_ms: NODE_LIFE_MS,
            connections_max: count(10_000),
            calls_per_second: count(50),
            calls_burst: count(100),
            enroll_per_minute: count(5),
            enroll_burst: count(20),
            hooks_per_second: count(50),
            hooks_burst: count(500),
            unary_timeout_ms: NonZeroU64::new(30_000).unwrap_or(NonZeroU64::MIN),
            node_lost_ms: NonZeroU64::new(90_000).unwrap_or(NonZeroU64::MIN),
            agent_keep_ms: 30 * 24 * 3600 * 1000,
            spawn_per_minute: count(30),
            agents_live_max: 200,
            children_max: 200,
            public_url: None,
            tunnel_domain: None,
            upload_dir: None,
            upload_bytes_max: 25 * 1024 * 1024,
            upload_account_bytes_max: 1024 * 1024 * 1024,
            upload_life_ms: NonZeroU64::new(24 * 3600 * 1000).unwrap_or(NonZeroU64::MIN),
            drain_ms: 10_000,
        }
    }

    /// Puts defaults, file, environment and flags together.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn load(file: Option<&Path>, flags: &Flags) -> Result<Self, ConfigError> {
        let defaults = Self { listen: SocketAddr::from(([127, 0, 0, 1], 7700)), ..Self::local(default_data_dir()) };
        let mut sources = Figment::from(Serialized::defaults(defaults));
        if let Some(file) = file {
            sources = sources.merge(Toml::file_exact(file));
        }
        // MURMUR_SERVER_URL and MURMUR_SERVER_CA tell the command line where a control plane is, and may be set beside this one.
        let environment = Env::prefixed("MURMUR_SERVER_").ignore(&["config", "url", "ca"]);
        let config: Self = sources
            .merge(environment)
            .merge(Serialized::defaults(flags))
            .extract()
            .map_err(|error| ConfigError::Source(Box::new(error)))?;
        config.validate()?;
        Ok(config)
    }

    /// Refuses what would not work or would be open to others.
    ///
    /// # Errors
    /// [`ConfigError::Rule`].
    pub fn validate(&self) -> Result<(), ConfigError> {
        let rule = |key, rule: &str| Err(ConfigError::Rule { key, rule: rule.to_owned() });
        if self.tls_cert.is_some() != self.tls_key.is_some() {
            return rule("tls_cert", "must be given together with tls_key");
        }
        if !self.listen.ip().is_loopback() && self.tls_cert.is_none() {
            return rule("listen", "must be a loopback address, unless tls_cert and tls_key are given");
        }
        if self.heartbeat_ms == 0 || self.lease_ms < self.heartbeat_ms.saturating_mul(2) {
            return rule("lease_ms", "must be at least two heartbeats");
        }
        if self.broker_token_life_ms < 1_000 {
            return rule("broker_token_life_ms", "must be at least 1000");
        }
        if self.node_token_life_ms < 1_000 {
            return rule("node_token_life_ms", "must be at least 1000");
        }
        if !(1..=5).contains(&self.stream_replicas) {
            return rule("stream_replicas", "must be 1 to 5");
        }
        if self.stream_ack_wait_ms < 500 {
            return rule("stream_ack_wait_ms", "must be at least 500");
        }
        if self.stream_duplicate_window_ms < 100 {
            return rule("stream_duplicate_window_ms", "must be at least 100");
        }
        if self.public_url.is_none() && self.listen.ip().is_unspecified() {
            return rule("public_url", "must be given when `listen` is no single address: links would lead nowhere");
        }
        self.public_url(self.listen)?;
        self.site().map(|_| ())
    }

    /// Where others reach this control plane, which listens on `address`.
    ///
    /// # Errors
    /// [`ConfigError::Rule`].
    pub fn public_url(&self, address: SocketAddr) -> Result<PublicUrl, ConfigError> {
        let domain = self.tunnel_domain.as_deref();
        let url = match &self.public_url {
            Some(url) => PublicUrl::parse(url, domain),
            None => PublicUrl::of(address, self.tls_cert.is_some(), domain),
        };
        url.map_err(|error| {
            let key = if error == InvalidPublicUrl::Domain { "tunnel_domain" } else { "public_url" };
            ConfigError::Rule { key, rule: error.to_string() }
        })
    }

    /// The bounds of uploads.
    #[must_use]
    pub fn uploads(&self) -> UploadsConfig {
        UploadsConfig {
            bytes_max: self.upload_bytes_max,
            account_bytes_max: self.upload_account_bytes_max,
            life_ms: self.upload_life_ms.get(),
        }
    }

    /// The site.
    ///
    /// # Errors
    /// [`ConfigError::Rule`] when it is no name of one.
    pub fn site(&self) -> Result<Site, ConfigError> {
        self.site.parse().map_err(|error: murmur_core::subject::InvalidSubject| ConfigError::Rule {
            key: "site",
            rule: error.to_string(),
        })
    }

    /// The broker, if there is one.
    #[must_use]
    pub fn broker(&self) -> Option<LinkConfig> {
        let address = BrokerAddress { url: self.broker_url.clone(), ca: self.broker_ca.clone() };
        let streams = StreamSettings {
            replicas: self.stream_replicas,
            max_bytes: self.stream_max_bytes,
            ack_wait: Duration::from_millis(self.stream_ack_wait_ms),
            duplicate_window: Duration::from_millis(self.stream_duplicate_window_ms),
            ..StreamSettings::default()
        };
        let token_life_ms = self.broker_token_life_ms;
        self.broker_dir.clone().map(|dir| LinkConfig { dir, address, streams, token_life_ms })
    }

    /// Webhook deliveries of one source, or one address.
    pub(crate) fn hooks(&self) -> Rate {
        Rate { per: Duration::from_secs(1), count: self.hooks_per_second, burst: self.hooks_burst }
    }

    /// What strangers may try from one address.
    pub(crate) fn strangers(&self) -> Rate {
        Rate { per: Duration::from_secs(60), count: self.enroll_per_minute, burst: self.enroll_burst }
    }

    /// The bounds of agents.
    #[must_use]
    pub fn agents(&self) -> AgentsConfig {
        AgentsConfig {
            node_lost_ms: self.node_lost_ms.get(),
            keep_ms: self.agent_keep_ms,
            spawn_per_minute: self.spawn_per_minute,
            agents_live_max: self.agents_live_max,
            children_max: self.children_max,
        }
    }

    /// As a duration.
    #[must_use]
    pub fn drain(&self) -> Duration {
        Duration::from_millis(self.drain_ms)
    }
}

fn default_data_dir() -> PathBuf {
    let base = BaseDirs::new(std::env::var_os).data_dir();
    base.unwrap_or_else(|| "./murmur".into()).join("server")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_win_over_the_file_and_unknown_keys_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("server.toml");
        std::fs::write(&file, "site = 'berlin'\ndrain_ms = 5\n").unwrap();
        let flags = Flags { drain_ms: Some(7), ..Flags::default() };
        let config = Config::load(Some(&file), &flags).unwrap();
        assert_eq!((config.site.as_str(), config.drain_ms), ("berlin", 7));

        std::fs::write(&file, "sight = 'berlin'\n").unwrap();
        assert!(Config::load(Some(&file), &flags).unwrap_err().to_string().contains("sight"));
    }

    #[test]
    fn an_open_address_needs_tls() {
        let mut config = Config { listen: "0.0.0.0:7700".parse().unwrap(), ..Config::local(".".into()) };
        let error = config.validate().unwrap_err().to_string();
        assert!(error.contains("tls_cert") && error.contains("tls_key"), "{error}");
        (config.tls_cert, config.tls_key) = (Some("c".into()), Some("k".into()));
        assert!(config.validate().unwrap_err().to_string().contains("public_url"));
        config.public_url = Some("https://murmur.example.org".into());
        config.validate().unwrap();
    }
}
