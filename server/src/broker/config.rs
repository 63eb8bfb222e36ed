//! The server's configuration file. Its format is a superset of JSON, so JSON is what we write.

use std::{
    net::SocketAddr,
    num::NonZeroU64,
    path::{Path, PathBuf},
};

use murmur_core::subject::Site;
use serde_json::{Map, Value, json};

use super::BrokerError;

/// Largest message the server takes from anyone, in bytes.
pub const SERVER_PAYLOAD_BYTES_MAX: u64 = 512 * 1024;

/// What the streams may store when an installation names no limit, in bytes.
const STORE_BYTES_DEFAULT: u64 = 1 << 30;

/// What an installation decides about its broker.
#[derive(Debug, Clone)]
pub struct InitOptions {
    /// Where clients connect. Port 0 lets the system choose; the ports file then says which.
    pub listen: SocketAddr,
    /// Where the server's monitoring page listens; must be loopback, for it has no authentication.
    pub http: Option<SocketAddr>,
    /// The site, which names the server.
    pub site: Site,
    /// The JetStream domain, for sites that are joined by leaf nodes.
    pub domain: Option<Site>,
    /// Whether every write is synced to disk before it is confirmed. Otherwise the server syncs every two minutes, and a
    /// power failure can take what a sender's outbox will publish again.
    pub sync_always: bool,
    /// How much all streams together may store, in bytes: at least the sum of what each shard may.
    pub max_bytes: NonZeroU64,
    /// Certificate and key, required unless `listen` is loopback.
    pub tls: Option<TlsFiles>,
    /// Where the server writes a file with the ports it listens on, if anywhere.
    pub ports_file_dir: Option<PathBuf>,
}

/// The server's certificate and private key, both PEM.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// Certificate chain.
    pub cert: PathBuf,
    /// Private key.
    pub key: PathBuf,
}

/// What the file names besides the options.
pub(crate) struct ServerConfig<'a> {
    pub(crate) options: &'a InitOptions,
    pub(crate) dir: &'a Path,
    pub(crate) operator: String,
    pub(crate) system_account: String,
    /// Account key to account token.
    pub(crate) accounts: &'a [(String, String)],
}

impl InitOptions {
    /// One machine's defaults: 1 GiB of storage, no monitoring page, no domain, no TLS, periodic sync.
    #[must_use]
    pub fn new(listen: SocketAddr, site: Site) -> Self {
        let max_bytes = NonZeroU64::MIN.saturating_add(STORE_BYTES_DEFAULT - 1);
        Self { listen, http: None, site, domain: None, sync_always: false, max_bytes, tls: None, ports_file_dir: None }
    }

    /// Refuses what would be open to others.
    pub(crate) fn validate(&self) -> Result<(), BrokerError> {
        let wrong = |setting, rule: &str| Err(BrokerError::Setting { setting, rule: rule.to_owned() });
        if !self.listen.ip().is_loopback() && self.tls.is_none() {
            return wrong("listen", "must be loopback unless a TLS certificate and key are given");
        }
        if self.http.is_some_and(|http| !http.ip().is_loopback()) {
            return wrong("http", "must be loopback: the monitoring page asks for no credentials");
        }
        Ok(())
    }
}

impl ServerConfig<'_> {
    pub(crate) fn render(&self) -> Result<String, BrokerError> {
        let Self { options, dir, operator, system_account, accounts } = self;
        let mut config = Map::new();
        let mut set = |key: &str, value: Value| config.insert(key.to_owned(), value);
        set("server_name", json!(format!("murmur-{}", options.site)));
        set("listen", json!(port_or_random(options.listen)));
        set("max_payload", json!(SERVER_PAYLOAD_BYTES_MAX));
        set("operator", json!(operator));
        set("system_account", json!(system_account));
        set("resolver", json!({"type": "full", "dir": dir.join("accounts"), "allow_delete": false, "interval": "2m"}));
        set("resolver_preload", accounts.iter().map(|(key, token)| (key.clone(), json!(token))).collect());
        set("jetstream", self.jetstream());
        set("pid_file", json!(dir.join("nats-server.pid")));
        if let Some(http) = options.http {
            set("http", json!(port_or_random(http)));
        }
        if let Some(ports) = &options.ports_file_dir {
            set("ports_file_dir", json!(ports));
        }
        if let Some(TlsFiles { cert, key }) = &options.tls {
            set("tls", json!({"cert_file": cert, "key_file": key, "min_version": "1.3"}));
        }
        serde_json::to_string_pretty(&config).map_err(BrokerError::Encode)
    }

    fn jetstream(&self) -> Value {
        let options = self.options;
        let mut jetstream = json!({
            "store_dir": self.dir.join("store"),
            "max_memory_store": 0,
            "max_file_store": options.max_bytes,
        });
        if let Some(domain) = &options.domain {
            jetstream["domain"] = json!(domain.as_str());
        }
        if options.sync_always {
            jetstream["sync_interval"] = json!("always");
        }
        jetstream
    }
}

/// An address as the server writes it: there `-1` is what `0` is elsewhere, a port of the system's choice.
fn port_or_random(address: SocketAddr) -> String {
    match address.port() {
        0 => format!("{}:-1", host(address)),
        _ => address.to_string(),
    }
}

fn host(address: SocketAddr) -> String {
    match address {
        SocketAddr::V4(v4) => v4.ip().to_string(),
        SocketAddr::V6(v6) => format!("[{}]", v6.ip()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(listen: &str) -> InitOptions {
        InitOptions::new(listen.parse().unwrap(), "local".parse().unwrap())
    }

    #[test]
    fn a_public_address_needs_tls_and_the_monitor_stays_private() {
        assert!(options("127.0.0.1:4222").validate().is_ok());
        assert!(options("0.0.0.0:4222").validate().is_err());
        let tls = Some(TlsFiles { cert: "c".into(), key: "k".into() });
        assert!(InitOptions { tls, ..options("0.0.0.0:4222") }.validate().is_ok());
        let http = Some("0.0.0.0:8222".parse().unwrap());
        assert!(InitOptions { http, ..options("127.0.0.1:4222") }.validate().is_err());
    }
}
