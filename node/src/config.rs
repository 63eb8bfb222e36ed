//! Configuration: a TOML file, over it `MURMUR_NODE_*`, over that the flags. An unknown key is an error.

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use figment::{
    Figment, Profile,
    providers::{Env, Format as _, Serialized, Toml},
};
use murmur_core::place::BaseDirs;
use serde::{Deserialize, Serialize};

use crate::{
    notify::NotifyConfig,
    post::PostConfig,
    rpc::socket::{self, SocketPathTooLong},
    runtime::config::{RuntimeConfig, RuntimeConfigError},
};

/// Begins every variable of the environment.
pub const ENV_PREFIX: &str = "MURMUR_NODE_";

const DAY_MS: u64 = 24 * 3600 * 1000;

/// Everything that can be set; the names are the keys of the file, the variables and the flags.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where keys, messages and the token live.
    pub data_dir: PathBuf,
    /// The Unix socket; see [`Config::socket`].
    pub socket: Option<PathBuf>,
    /// The host's name, for people; used at enrolment.
    pub name: String,
    /// An invite (`MURMUR:…`), or a file that holds one. Needed once.
    pub join: Option<String>,
    /// PEM file of the control plane's certificate authority, for `https://` with a private one.
    pub ca: Option<PathBuf>,
    /// Where `/metrics`, `/healthz` and `/readyz` are served; nowhere by default.
    pub metrics_listen: Option<SocketAddr>,
    /// What the socket demands.
    pub local: LocalConfig,
    /// Messages per minute between one pair of agents: the loop breaker.
    pub pair_rate_per_minute: std::num::NonZeroU32,
    /// Burst of the pair rate.
    pub pair_burst: std::num::NonZeroU32,
    /// Messages of one pair that may wait to be shown at its rate; more are refused.
    pub pair_held_max: u32,
    /// How long a message waits to be shown for one that was sent before it.
    pub gap_wait_ms: u64,
    /// How long a full inbox asks its senders to wait.
    pub inbox_full_retry_ms: u64,
    /// Messages per second from one source node.
    pub source_rate_per_second: std::num::NonZeroU32,
    /// Burst of the source rate.
    pub source_burst: std::num::NonZeroU32,
    /// Unread messages an inbox holds before it refuses more.
    pub inbox_unread_max: u64,
    /// Largest body that agents of this node may send or get.
    pub body_bytes_max: usize,
    /// Publishes that may wait for the broker at one time.
    pub publishes_in_flight: usize,
    /// Messages of one agent to another that the broker is given to keep; below the control plane's `lane_messages_max`.
    pub lane_window: usize,
    /// Read messages are deleted after so many days.
    pub history_days: u64,
    /// Largest size of the database in pages of 4 KiB.
    pub store_pages_max: Option<u32>,
    /// Shortest and longest wait between tries to reach the broker.
    pub retry_ms: [u64; 2],
    /// Shortest and longest wait after a recipient asked to wait.
    pub nack_ms: [u64; 2],
    /// Waits before a message without any receipt is published again; the last one repeats.
    pub republish_ms: Vec<u64>,
    /// Largest file that is sent or received.
    pub file_bytes_max: u64,
    /// Bytes that files leave free on the disk.
    pub file_reserve_bytes: u64,
    /// How many days a received file is kept once its message was read; none keeps it until somebody deletes it.
    pub file_days: Option<u64>,
    /// Files are sent only from below these folders; none means from everywhere.
    pub file_roots: Vec<PathBuf>,
    /// Ports of this host that agents do not show to others, beside those of Murmur's own programs.
    pub tunnel_deny_ports: Vec<u16>,
    /// Agents that run as processes here.
    pub runtime: RuntimeConfig,
    /// What people are told, and how.
    pub notify: NotifyConfig,
    /// Silence of the broker after which its consumer is taken to be deaf; it beats twice as often.
    pub broker_heartbeat_ms: u64,
    /// How long calls may take to end after the first signal.
    pub drain_ms: u64,
}

/// What the socket demands of a caller.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LocalConfig {
    /// Nobody speaks for an agent without its token.
    pub require_token: bool,
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A key is unknown or has a wrong value.
    #[error("configuration: {0}")]
    Invalid(Box<figment::Error>),
    /// The named file is not there.
    #[error("there is no configuration file {}", .0.display())]
    NoFile(PathBuf),
    /// A value breaks a rule.
    #[error("{key} must be {rule}")]
    Rule {
        /// The key.
        key: &'static str,
        /// What it must be.
        rule: &'static str,
    },
    /// A key of `[runtime]` breaks a rule.
    #[error(transparent)]
    Runtime(#[from] RuntimeConfigError),
    /// The socket's path is longer than the kernel takes.
    #[error(transparent)]
    Socket(#[from] SocketPathTooLong),
}

impl Default for Config {
    fn default() -> Self {
        let post = PostConfig::default();
        let then_ms = post.outbox.republish.then_ms;
        Self {
            data_dir: default_data_dir(&base_dirs()),
            socket: None,
            name: host_name(),
            join: None,
            ca: None,
            metrics_listen: None,
            local: LocalConfig::default(),
            pair_rate_per_minute: post.pair_per_minute,
            pair_burst: post.pair_burst,
            pair_held_max: post.pair_held_max,
            gap_wait_ms: post.gap_wait_ms,
            inbox_full_retry_ms: post.inbox_full_retry_ms,
            source_rate_per_second: post.source_per_second,
            source_burst: post.source_burst,
            inbox_unread_max: post.inbox_unread_max,
            body_bytes_max: post.body_bytes_max,
            publishes_in_flight: post.publishes_in_flight,
            lane_window: post.lane_window,
            history_days: post.history_ms / DAY_MS,
            store_pages_max: None,
            retry_ms: [post.outbox.transport.base_ms, post.outbox.transport.cap_ms],
            nack_ms: [post.outbox.nack.base_ms, post.outbox.nack.cap_ms],
            republish_ms: post.outbox.republish.first_ms.into_iter().chain([then_ms]).collect(),
            file_bytes_max: post.streams.bytes_max,
            file_reserve_bytes: post.streams.reserve_bytes,
            file_days: None,
            file_roots: Vec::new(),
            // Where a broker listens by default: clients, routes, leaf nodes, monitoring.
            tunnel_deny_ports: vec![4222, 6222, 7422, 8222],
            runtime: RuntimeConfig::default(),
            notify: NotifyConfig::default(),
            broker_heartbeat_ms: 1_500,
            drain_ms: 10_000,
        }
    }
}

impl Config {
    /// Puts the configuration together and checks it. `flags` is a partial configuration in the same shape.
    ///
    /// # Errors
    /// [`ConfigError`] naming the key.
    pub fn load(file: Option<&Path>, flags: impl Serialize) -> Result<Self, ConfigError> {
        if let Some(file) = file.filter(|file| !file.is_file()) {
            return Err(ConfigError::NoFile(file.to_owned()));
        }
        let environment = Env::prefixed(ENV_PREFIX)
            .ignore(&["config"])
            .map(|name| key_of(&name.as_str().to_ascii_lowercase()).into());
        let mut figment = Figment::new();
        if let Some(file) = file {
            figment = figment.merge(Toml::file_exact(file));
        }
        let config: Self = figment
            .merge(environment)
            .merge(Serialized::from(flags, Profile::Default))
            .extract()
            .map_err(|error| ConfigError::Invalid(Box::new(error)))?;
        config.check()?;
        Ok(config)
    }

    /// The socket's path: the one that was set, else for the default data directory where every client of this user looks
    /// ([`BaseDirs::socket`]), else `run/node.sock` in the data directory.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.socket.clone().unwrap_or_else(|| default_socket(&base_dirs(), &self.data_dir))
    }

    /// Where a link to the socket belongs, when it is the one that clients of this user look for ([`BaseDirs::socket_link`]).
    #[must_use]
    pub fn socket_link(&self) -> Option<PathBuf> {
        let dirs = base_dirs();
        dirs.socket_link().filter(|_| dirs.socket() == Some(self.socket()))
    }

    /// What the post needs of it.
    #[must_use]
    pub fn post(&self) -> PostConfig {
        let mut post = PostConfig {
            pair_per_minute: self.pair_rate_per_minute,
            pair_burst: self.pair_burst,
            pair_held_max: self.pair_held_max,
            gap_wait_ms: self.gap_wait_ms,
            inbox_full_retry_ms: self.inbox_full_retry_ms,
            source_per_second: self.source_rate_per_second,
            source_burst: self.source_burst,
            inbox_unread_max: self.inbox_unread_max,
            body_bytes_max: self.body_bytes_max,
            publishes_in_flight: self.publishes_in_flight,
            lane_window: self.lane_window,
            history_ms: self.history_days.saturating_mul(DAY_MS),
            ..PostConfig::default()
        };
        // What agents are told of a file's place must hold wherever they are.
        post.streams.data_dir = std::path::absolute(&self.data_dir).unwrap_or_else(|_| self.data_dir.clone());
        post.streams.dir = post.streams.data_dir.join("files");
        self.file_roots.clone_into(&mut post.streams.roots);
        post.streams.bytes_max = self.file_bytes_max;
        post.streams.reserve_bytes = self.file_reserve_bytes;
        post.streams.keep_ms = self.file_days.map(|days| days.saturating_mul(24 * 3600 * 1000));
        let backoff = |[base_ms, cap_ms]: [u64; 2]| murmur_core::retry::Backoff { base_ms, cap_ms };
        post.outbox.transport = backoff(self.retry_ms);
        post.outbox.nack = backoff(self.nack_ms);
        if let Some((then_ms, first_ms)) = self.republish_ms.split_last() {
            post.outbox.republish =
                murmur_core::retry::RepublishSchedule { first_ms: first_ms.to_vec(), then_ms: *then_ms };
        }
        post
    }

    fn check(&self) -> Result<(), ConfigError> {
        let rule = |holds: bool, key, rule| if holds { Ok(()) } else { Err(ConfigError::Rule { key, rule }) };
        let is_range = |[base, cap]: [u64; 2]| base >= 1 && base <= cap;
        rule(!self.name.is_empty() && self.name.len() <= 128, "name", "1 to 128 bytes long")?;
        rule(is_range(self.retry_ms), "retry_ms", "two numbers, the second not smaller, from 1")?;
        rule(is_range(self.nack_ms), "nack_ms", "two numbers, the second not smaller, from 1")?;
        rule(!self.republish_ms.is_empty(), "republish_ms", "a list of at least one wait")?;
        rule(self.republish_ms.iter().all(|wait| *wait >= 1), "republish_ms", "waits of at least 1 ms")?;
        rule(self.publishes_in_flight >= 1, "publishes_in_flight", "at least 1")?;
        rule((1..=900).contains(&self.lane_window), "lane_window", "1 to 900")?;
        let body_bytes_max = murmur_core::limits::BODY_BYTES_MAX;
        rule((1..=body_bytes_max).contains(&self.body_bytes_max), "body_bytes_max", "from 1 to 196608")?;
        rule((100..=30_000).contains(&self.broker_heartbeat_ms), "broker_heartbeat_ms", "100 to 30000")?;
        rule(self.inbox_unread_max >= 1, "inbox_unread_max", "at least 1")?;
        rule(self.history_days >= 9, "history_days", "at least 9, since duplicates are known by it")?;
        let file_bytes = 1..=murmur_crypto::inner::STREAM_BYTES_MAX;
        rule(file_bytes.contains(&self.file_bytes_max), "file_bytes_max", "1 to 1073741824 (1 GiB)")?;
        rule(self.file_roots.iter().all(|root| root.is_absolute()), "file_roots", "a list of absolute paths")?;
        self.runtime.check()?;
        self.notify.check().map_err(|(key, rule)| ConfigError::Rule { key, rule })?;
        socket::check_length(&self.socket())?;
        Ok(())
    }
}

/// The key that a variable sets, by its lowercase name after the prefix: `runtime_capacity` is `runtime.capacity`.
fn key_of(name: &str) -> String {
    let tables = [
        ("local_", "local."),
        ("notify_", "notify."),
        ("runtime_limits_", "runtime.limits."),
        ("runtime_", "runtime."),
    ];
    let nested = tables.iter().find_map(|(begin, table)| Some(format!("{table}{}", name.strip_prefix(begin)?)));
    nested.unwrap_or_else(|| name.to_owned())
}

fn base_dirs() -> BaseDirs {
    BaseDirs::new(std::env::var_os)
}

fn default_data_dir(dirs: &BaseDirs) -> PathBuf {
    dirs.data_dir().unwrap_or_else(|| PathBuf::from("murmur")).join("node")
}

/// Where the command line and the shim look when nobody names a socket, unless the data directory is another one: two nodes of
/// one user must not want the same socket.
fn default_socket(dirs: &BaseDirs, data_dir: &Path) -> PathBuf {
    let shared = dirs.socket().filter(|_| data_dir == default_data_dir(dirs));
    shared.unwrap_or_else(|| data_dir.join("run/node.sock"))
}

/// The host's name without its domain.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let short = name.trim().split('.').next().unwrap_or_default();
    if short.is_empty() { "host".to_owned() } else { short.to_owned() }
}

/// The flags of `murmur-node run`: every key of [`Config`], as text or number.
#[derive(Debug, Default, Serialize, clap::Args)]
pub struct Flags {
    /// Where keys, messages and the token live
    #[arg(long, value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    data_dir: Option<PathBuf>,
    /// The Unix socket to serve
    #[arg(long, value_name = "PATH")]
    #[serde(skip_serializing_if = "Option::is_none")]
    socket: Option<PathBuf>,
    /// The host's name, for people
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// An invite (MURMUR:…) or a file that holds one; needed once
    #[arg(long, value_name = "INVITE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    join: Option<String>,
    /// PEM file of the control plane's certificate authority
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    ca: Option<PathBuf>,
    /// Serve /metrics, /healthz and /readyz here; port 0 picks one and writes `metrics.addr` into the data directory
    #[arg(long, value_name = "ADDRESS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    metrics_listen: Option<SocketAddr>,
    /// Demand an agent's token of everybody who speaks for it
    #[arg(long = "local-require-token", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    #[serde(rename = "local", serialize_with = "nested", skip_serializing_if = "Option::is_none")]
    local_require_token: Option<bool>,
    /// Messages per minute between one pair of agents
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pair_rate_per_minute: Option<u32>,
    /// Burst of the pair rate
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pair_burst: Option<u32>,
    /// Messages of one pair that may wait to be shown at its rate
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pair_held_max: Option<u32>,
    /// How long a message waits to be shown for one that was sent before it
    #[arg(long, value_name = "MS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    gap_wait_ms: Option<u64>,
    /// How long a full inbox asks its senders to wait
    #[arg(long, value_name = "MS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    inbox_full_retry_ms: Option<u64>,
    /// Messages per second from one source node
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    source_rate_per_second: Option<u32>,
    /// Burst of the source rate
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    source_burst: Option<u32>,
    /// Unread messages an inbox holds
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    inbox_unread_max: Option<u64>,
    /// Largest body that agents of this node may send or get
    #[arg(long, value_name = "BYTES")]
    #[serde(skip_serializing_if = "Option::is_none")]
    body_bytes_max: Option<usize>,
    /// Publishes that may wait for the broker at one time
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    publishes_in_flight: Option<usize>,
    /// Messages of one agent to another that the broker is given to keep; below the control plane's lane_messages_max
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    lane_window: Option<usize>,
    /// Days that read messages are kept
    #[arg(long, value_name = "DAYS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    history_days: Option<u64>,
    /// Largest size of the database in pages of 4 KiB
    #[arg(long, value_name = "PAGES")]
    #[serde(skip_serializing_if = "Option::is_none")]
    store_pages_max: Option<u32>,
    /// Shortest and longest wait between tries to reach the broker
    #[arg(long, value_name = "MS", num_args = 2)]
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_ms: Option<Vec<u64>>,
    /// Shortest and longest wait after a recipient asked to wait
    #[arg(long, value_name = "MS", num_args = 2)]
    #[serde(skip_serializing_if = "Option::is_none")]
    nack_ms: Option<Vec<u64>>,
    /// Waits before a message without receipt is published again; the last repeats
    #[arg(long, value_name = "MS", value_delimiter = ',')]
    #[serde(skip_serializing_if = "Option::is_none")]
    republish_ms: Option<Vec<u64>>,
    /// Largest file that is sent or received, in bytes
    #[arg(long, value_name = "BYTES")]
    #[serde(skip_serializing_if = "Option::is_none")]
    file_bytes_max: Option<u64>,
    /// Leave so many bytes free on the disk, whatever files come
    #[arg(long, value_name = "BYTES")]
    #[serde(skip_serializing_if = "Option::is_none")]
    file_reserve_bytes: Option<u64>,
    /// Delete a received file so many days after it came, once its message was read
    #[arg(long, value_name = "DAYS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    file_days: Option<u64>,
    /// Send files only from below these folders
    #[arg(long, value_name = "DIR", value_delimiter = ',')]
    #[serde(skip_serializing_if = "Option::is_none")]
    file_roots: Option<Vec<PathBuf>>,
    #[command(flatten)]
    #[serde(skip_serializing_if = "RuntimeFlags::is_empty")]
    runtime: RuntimeFlags,
    /// Silence of the broker after which its consumer is taken to be deaf
    #[arg(long, value_name = "MS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    broker_heartbeat_ms: Option<u64>,
    /// How long calls may take to end after the first signal
    #[arg(long, value_name = "MS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    drain_ms: Option<u64>,
}

/// The flags of `[runtime]`; its tables are set in the file.
#[derive(Debug, Default, PartialEq, Eq, Serialize, clap::Args)]
struct RuntimeFlags {
    /// Agent processes that may run here at one time; 0: none
    #[arg(long = "runtime-capacity", value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    capacity: Option<u32>,
    /// By which spawns choose a node: `name` or `name=value`
    #[arg(long = "runtime-labels", value_name = "LABEL", value_delimiter = ',')]
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<Vec<String>>,
    /// Where agents' folders are
    #[arg(long = "runtime-dir", value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    dir: Option<PathBuf>,
    /// What runs an agent whose spawn names nothing
    #[arg(long = "runtime-default-backend", value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    default_backend: Option<String>,
    /// Time without output after which an agent is called stuck
    #[arg(long = "runtime-stuck-after-ms", value_name = "MS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    stuck_after_ms: Option<u64>,
    /// Between SIGTERM and SIGKILL of an agent
    #[arg(long = "runtime-grace-ms", value_name = "MS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    grace_ms: Option<u64>,
    /// Output that is kept of an agent
    #[arg(long = "runtime-output-bytes-max", value_name = "BYTES")]
    #[serde(skip_serializing_if = "Option::is_none")]
    output_bytes_max: Option<u64>,
}

impl RuntimeFlags {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[expect(clippy::ref_option, clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference to the field")]
fn nested<S: serde::Serializer>(value: &Option<bool>, serializer: S) -> Result<S::Ok, S::Error> {
    LocalConfig { require_token: value.unwrap_or_default() }.serialize(serializer)
}

impl fmt::Display for Config {
    /// The configuration as TOML, for `murmur-node config`. The invite, which holds a secret, is left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = Self { join: None, ..self.clone() };
        f.write_str(&toml::to_string(&shown).map_err(|_| fmt::Error)?)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn load(toml: &str) -> Result<Config, String> {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("node.toml");
        fs::write(&file, toml).unwrap();
        Config::load(Some(&file), Flags::default()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_file_sets_and_flags_win() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("node.toml");
        fs::write(&file, "name = 'a'\npair_burst = 7\nlocal.require_token = true").unwrap();
        let flags = Flags { name: Some("b".to_owned()), ..Flags::default() };
        let config = Config::load(Some(&file), flags).unwrap();
        assert_eq!((config.name.as_str(), config.pair_burst.get()), ("b", 7));
        assert!(config.local.require_token);
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        assert!(load("nmae = 'x'").unwrap_err().contains("nmae"));
        assert!(load("local.token = true").unwrap_err().contains("token"));
    }

    #[test]
    fn a_value_out_of_range_names_its_key() {
        assert!(load("pair_burst = 0").unwrap_err().contains("pair_burst"));
        assert!(load("retry_ms = [10, 5]").unwrap_err().contains("retry_ms"));
        assert!(load("body_bytes_max = 0").unwrap_err().contains("body_bytes_max"));
        assert!(load("body_bytes_max = 196609").unwrap_err().contains("196608"));
        assert!(load("history_days = 1").unwrap_err().contains("history_days"));
    }

    #[test]
    fn a_socket_path_beyond_the_kernels_limit_is_refused() {
        let error = load(&format!("socket = '/{}'", "s".repeat(107))).unwrap_err();
        assert!(error.contains("107"), "{error}");
        assert!(load(&format!("socket = '/{}'", "s".repeat(106))).is_ok());
    }

    #[test]
    fn by_default_the_socket_is_where_the_clients_look() {
        for set in [&[("HOME", "/h")][..], &[("HOME", "/h"), ("XDG_RUNTIME_DIR", "/run/user/7")]] {
            let dirs =
                BaseDirs::new(|name| set.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into()));
            assert_eq!(default_socket(&dirs, Path::new("/h/.local/share/murmur/node")), dirs.socket().unwrap());
            assert_eq!(default_socket(&dirs, Path::new("/other")), Path::new("/other/run/node.sock"));
        }
    }

    #[test]
    fn the_printed_configuration_reads_back_without_the_invite() {
        let config = Config { join: Some("MURMUR:secret".to_owned()), ..Config::default() };
        let printed = config.to_string();
        assert!(!printed.contains("secret"));
        assert_eq!(load(&printed).unwrap(), Config { join: None, ..config });
    }
}
