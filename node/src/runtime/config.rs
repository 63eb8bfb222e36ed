//! What the node's owner says about agent processes: how many, with what, and within which limits.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::backend::{Backend, BackendError};

/// Runs without being asked for by name, when the configuration names none.
const DEFAULT_BACKEND: &str = "claude";

/// `[runtime]` of the node's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RuntimeConfig {
    /// Agents that may run here at one time; 0: none.
    pub capacity: u32,
    /// By which spawns choose a node: `name` or `name=value`.
    pub labels: Vec<String>,
    /// Where agents' folders are; `runtime` in the data directory by default.
    pub dir: Option<PathBuf>,
    /// What runs an agent whose spawn names nothing; with a single configured backend that one, else `claude`.
    pub default_backend: Option<String>,
    /// After so long without output an agent in a turn is called stuck.
    pub stuck_after_ms: u64,
    /// Between SIGTERM and SIGKILL, where the order names nothing.
    pub grace_ms: u64,
    /// How long the folder of an agent that has ended is kept; 0: for ever.
    pub keep_ms: u64,
    /// Output that is kept of an agent, in bytes.
    pub output_bytes_max: u64,
    /// How often open items of a checklist begin another turn in a row.
    pub assess_rounds_max: u32,
    /// The MCP server that agents are given; `murmur-mcp` beside this program by default.
    pub mcp_program: Option<PathBuf>,
    /// Variables of the node's own environment that agents get besides a plain base; a trailing `*` stands for any ending.
    pub pass_env: Vec<String>,
    /// What one agent may use.
    pub limits: Limits,
    /// Who an agent can be told to be, by name.
    pub personas: BTreeMap<String, Persona>,
    /// MCP servers that a spawn can ask for by name, each as in a client's `mcpServers`.
    pub mcp_servers: BTreeMap<String, serde_json::Map<String, serde_json::Value>>,
    /// What runs agents, by name; each over a preset of the same name or of the one that `preset` names.
    pub backends: BTreeMap<String, serde_json::Map<String, serde_json::Value>>,
}

/// What an agent that is told to be it begins with; what its spawn says goes over that.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Persona {
    /// Comes before what the spawn adds to the system prompt.
    pub system_prompt: String,
    /// Handed to the runtime.
    pub model: String,
    /// What runs it.
    pub backend: String,
}

/// What each process of an agent may use; absent is no limit of ours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Address space in bytes; at least 256 MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Seconds of processor time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_seconds: Option<u64>,
    /// Open files; at least 32.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_files: Option<u64>,
    /// Size of one written file in bytes; at least 1 MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_bytes: Option<u64>,
    /// Processes of the node's user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processes: Option<u64>,
}

/// A key of `[runtime]` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeConfigError {
    /// A value breaks a rule.
    #[error("runtime.{key} must be {rule}")]
    Rule {
        /// The key.
        key: &'static str,
        /// What it must be.
        rule: &'static str,
    },
    /// A backend cannot be used.
    #[error("runtime.backends.{name}: {source}")]
    Backend {
        /// Which.
        name: String,
        /// Why.
        source: BackendError,
    },
    /// The default is none of the backends.
    #[error("runtime.default_backend must be one of the backends; `{0}` is none")]
    NoDefault(String),
}

impl Default for RuntimeConfig {
    fn default() -> Self {
        Self {
            capacity: 16,
            labels: Vec::new(),
            dir: None,
            default_backend: None,
            stuck_after_ms: 10 * 60 * 1000,
            grace_ms: 10_000,
            keep_ms: 7 * 24 * 3600 * 1000,
            output_bytes_max: 16 * 1024 * 1024,
            assess_rounds_max: 5,
            mcp_program: None,
            pass_env: Vec::new(),
            limits: Limits::default(),
            personas: BTreeMap::new(),
            mcp_servers: BTreeMap::new(),
            backends: BTreeMap::new(),
        }
    }
}

impl RuntimeConfig {
    /// Every backend: the presets that need nothing more, and over them what is configured.
    ///
    /// # Errors
    /// [`RuntimeConfigError`] naming the backend and the key.
    pub fn backends(&self) -> Result<BTreeMap<String, Backend>, RuntimeConfigError> {
        let mut backends = Backend::presets();
        for (name, keys) in &self.backends {
            let failed = |source| RuntimeConfigError::Backend { name: name.clone(), source };
            if !is_name(name) {
                return Err(failed(BackendError::Name));
            }
            backends.insert(name.clone(), Backend::configured(name, keys).map_err(failed)?);
        }
        Ok(backends)
    }

    /// Where agents have their folders.
    #[must_use]
    pub fn dir(&self, data_dir: &Path) -> PathBuf {
        let beside = || std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.to_owned()).join("runtime");
        self.dir.clone().unwrap_or_else(beside)
    }

    /// The name of what runs an agent whose spawn names nothing.
    #[must_use]
    pub fn default_backend(&self) -> String {
        let mut configured = self.backends.keys();
        match (&self.default_backend, configured.next(), configured.next()) {
            (Some(name), _, _) => name.clone(),
            (None, Some(only), None) => only.clone(),
            _ => DEFAULT_BACKEND.to_owned(),
        }
    }

    /// # Errors
    /// [`RuntimeConfigError`] naming the key.
    pub fn check(&self) -> Result<(), RuntimeConfigError> {
        let rule = |holds: bool, key, rule| if holds { Ok(()) } else { Err(RuntimeConfigError::Rule { key, rule }) };
        rule(self.capacity <= 10_000, "capacity", "at most 10000")?;
        rule(self.labels.len() <= 64, "labels", "at most 64 labels")?;
        rule(
            self.labels.iter().all(|label| is_label(label)),
            "labels",
            "a list of `name` or `name=value`, 63 bytes each",
        )?;
        rule(self.stuck_after_ms >= 1, "stuck_after_ms", "at least 1")?;
        rule(self.grace_ms <= 600_000, "grace_ms", "at most 600000 (10 minutes)")?;
        let output = 64 * 1024..=1024 * 1024 * 1024;
        rule(output.contains(&self.output_bytes_max), "output_bytes_max", "65536 to 1073741824 (1 GiB)")?;
        rule(self.assess_rounds_max <= 100, "assess_rounds_max", "at most 100")?;
        rule(self.dir.as_ref().is_none_or(|dir| dir.is_absolute()), "dir", "an absolute path")?;
        let at_least = |limit: Option<u64>, least| limit.is_none_or(|limit| limit >= least);
        let Limits { memory_bytes, cpu_seconds, open_files, file_bytes, processes } = self.limits;
        rule(at_least(memory_bytes, 256 * 1024 * 1024), "limits.memory_bytes", "at least 268435456 (256 MiB)")?;
        rule(at_least(cpu_seconds, 1), "limits.cpu_seconds", "at least 1")?;
        rule(at_least(open_files, 32), "limits.open_files", "at least 32")?;
        rule(at_least(file_bytes, 1024 * 1024), "limits.file_bytes", "at least 1048576 (1 MiB)")?;
        rule(at_least(processes, 16), "limits.processes", "at least 16")?;
        rule(!self.mcp_servers.contains_key("murmur"), "mcp_servers", "without `murmur`, which every agent has")?;
        let backends = self.backends()?;
        let known = |name: &String| name.is_empty() || backends.contains_key(name);
        rule(
            self.personas.values().all(|persona| known(&persona.backend)),
            "personas",
            "with backends that are there",
        )?;
        match &self.default_backend {
            Some(name) if !backends.contains_key(name) => Err(RuntimeConfigError::NoDefault(name.clone())),
            _ => Ok(()),
        }
    }
}

/// What is passed on from the node's environment: `pattern` is a name, or its beginning and `*`.
#[must_use]
pub(super) fn passes(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => pattern == name,
    }
}

fn is_name(text: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    !text.is_empty() && text.len() <= 63 && text.chars().all(is_plain)
}

fn is_label(text: &str) -> bool {
    let (name, value) = text.split_once('=').unwrap_or((text, "x"));
    let is_plain = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_graphic() && c != '=' && c != ',');
    text.len() <= 63 && is_plain(name) && is_plain(value)
}
