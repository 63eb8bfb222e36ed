//! What the supervisor knows, on disk for `status` and `doctor`, and for the supervisor that comes after it.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use super::super::layout::{self, Layout};
use crate::{
    failure::{Context as _, Failure},
    time::now_ms,
};

/// All parts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// The pid of whoever wrote this.
    pub(crate) supervisor: i32,
    pub(crate) parts: BTreeMap<String, PartReport>,
}

/// One part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PartReport {
    pub(crate) phase: Phase,
    /// Since `up` first started it.
    pub(crate) restarts: u32,
    /// When it was started last, Unix milliseconds; 0 when this supervisor has not.
    #[serde(default)]
    pub(crate) started_ms: u64,
    pub(crate) last_exit: Option<LastExit>,
}

/// What the supervisor does about a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub(crate) enum Phase {
    /// Nobody wants it yet.
    Unwanted,
    /// It runs, since this Unix time in milliseconds.
    Running { since_ms: u64 },
    /// It crashed and is started again at this Unix time in milliseconds.
    Waiting { until_ms: u64 },
    /// It crashed too often within some seconds and is tried once a minute.
    GivenUp { crashes: u32, within_s: u64 },
}

/// How a part ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LastExit {
    /// Such as "killed by SIGKILL".
    pub(crate) how: String,
    /// Unix milliseconds.
    pub(crate) at_ms: u64,
    /// The last line of its log then; empty when there was none.
    pub(crate) last_line: String,
}

impl Report {
    /// The report of a data directory; `None` when nothing is supervised there.
    pub(crate) fn load(layout: &Layout) -> Result<Option<Self>, Failure> {
        let path = layout.supervisor_report();
        let Some(text) = layout::read_optional(&path)? else { return Ok(None) };
        let report = serde_json::from_str(&text).context(format!("reading `{}`, which is damaged", path.display()));
        let remedy =
            "Run `murmurctl down`, which removes it, and then `murmurctl up`; nothing that matters is lost with it.";
        report.map(Some).map_err(|failure: Failure| failure.remedy(remedy))
    }

    /// Puts it on disk as a whole.
    pub(super) fn save(&self, layout: &Layout) -> Result<(), Failure> {
        let text = serde_json::to_string(self).context("encoding the report")?;
        layout::write_private(&layout.supervisor_report(), text.as_bytes())
    }
}

impl Default for PartReport {
    fn default() -> Self {
        Self { phase: Phase::Unwanted, restarts: 0, started_ms: 0, last_exit: None }
    }
}

impl PartReport {
    /// How long it has run.
    pub(crate) fn uptime(&self) -> Option<Duration> {
        match self.phase {
            Phase::Running { since_ms } => Some(Duration::from_millis(now_ms().saturating_sub(since_ms))),
            Phase::Unwanted | Phase::Waiting { .. } | Phase::GivenUp { .. } => None,
        }
    }
}
