//! What the node remembers of an agent that it runs, from one commit to the next.

use std::collections::BTreeMap;

use murmur_proto::v1::{AgentOutput, Phase};
use serde::{Deserialize, Serialize};

use super::keeper::log::Cursor;

/// Remembered with every change, in the transaction that queues the report of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct State {
    pub(super) slug: String,
    /// `murmur.v1.Phase` as told last.
    pub(super) phase: i32,
    /// The newest process has this number; 0: none yet.
    pub(super) run: u32,
    /// That process is to be there.
    pub(super) has_process: bool,
    /// What the process works on.
    pub(super) turn: Option<Turn>,
    /// The turn that was handed to the runtime last: a claim that answers it again is not begun again.
    pub(super) taken_turn: String,
    /// What a later process goes on with.
    pub(super) session: Option<String>,
    /// That session is another agent's, of which a copy is to be made.
    pub(super) is_fork: bool,
    /// The last answer.
    pub(super) response: String,
    /// Of all processes before this one.
    pub(super) cost_before_micros: u64,
    /// Of all.
    pub(super) cost_micros: u64,
    pub(super) tokens: u64,
    pub(super) turns: u32,
    /// Turns in a row that open items of the checklist began.
    pub(super) assessed: u32,
    /// Where the output of the turn begins, or where reading goes on between turns.
    pub(super) cursor: Cursor,
    /// It slept before this incarnation.
    pub(super) was_asleep: bool,
    /// When this incarnation started, Unix milliseconds.
    pub(super) started_ms: u64,
    /// Orders that the next report finishes.
    pub(super) orders: Vec<u64>,
    /// Where its working copies stood when they were looked at last, by URL.
    pub(super) copies: BTreeMap<String, Stand>,
}

/// Where a working copy stood.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Stand {
    /// What was checked out.
    pub(super) head: String,
    /// What its branch was at its origin; empty when it was not there.
    pub(super) pushed: String,
}

/// A turn.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Turn {
    /// As claimed; empty for one that the node began by itself.
    pub(super) turn_id: String,
    pub(super) prompt: String,
    /// The runtime has the prompt.
    pub(super) taken: bool,
    /// Who gave it; empty for one that the node began by itself.
    #[serde(default)]
    pub(super) from: String,
    /// It may have been told before.
    #[serde(default)]
    pub(super) redelivered: bool,
}

impl Turn {
    /// A turn that the node begins by itself.
    pub(super) fn own(prompt: String) -> Self {
        Self { prompt, ..Self::default() }
    }
}

impl State {
    pub(super) fn phase(&self) -> Phase {
        Phase::try_from(self.phase).unwrap_or_default()
    }

    pub(super) fn output(&self) -> AgentOutput {
        AgentOutput {
            response: self.response.clone(),
            cost_micros: self.cost_micros,
            tokens: self.tokens,
            ..AgentOutput::default()
        }
    }
}
