//! A state as database columns and back.

use super::{DeadCause, State, StateName};
use crate::code::Code;

/// The columns of a delivery's state. A column that means nothing in a state is 0 or `None`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Which state, [`StateName::as_str`].
    pub state: StateName,
    /// Number of the seal, of the next one while queued.
    pub seal_attempt: u32,
    /// Publishes begun under the current `Nats-Msg-Id`.
    pub publish_tries: u32,
    /// Publications beyond the first one of this copy.
    pub republish_count: u32,
    /// The latest back-off delay, in milliseconds.
    pub backoff_prev_ms: u64,
    /// When the state was entered, where that is known: stored, delivered, read.
    pub since_ms: Option<u64>,
    /// When an open delivery wants to be looked at again.
    pub next_at_ms: Option<u64>,
    /// Why a dead one is dead, [`DeadCause::as_str`].
    pub dead_cause: Option<String>,
    /// The recipient's code that killed it, [`Code::number`].
    pub dead_code: Option<u32>,
}

/// Columns that fit no state: a damaged row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("delivery row in state {state} lacks a valid {column}")]
pub struct InvalidRow {
    /// The state named by the row.
    pub state: StateName,
    /// The column that is missing or wrong.
    pub column: &'static str,
}

impl From<State> for Row {
    fn from(state: State) -> Self {
        let row = Self {
            state: state.name(),
            seal_attempt: 0,
            publish_tries: 0,
            republish_count: 0,
            backoff_prev_ms: 0,
            since_ms: None,
            next_at_ms: state.next_at_ms(),
            dead_cause: None,
            dead_code: None,
        };
        match state {
            State::Queued { seal_attempt, not_before_ms: _, backoff_prev_ms } => {
                Self { seal_attempt, backoff_prev_ms, ..row }
            }
            State::Sealed { seal_attempt, publish_tries, republish_count, next_at_ms: _, backoff_prev_ms } => {
                Self { seal_attempt, publish_tries, republish_count, backoff_prev_ms, ..row }
            }
            State::Stored { seal_attempt, republish_count, since_ms, next_at_ms: _, backoff_prev_ms } => {
                Self { seal_attempt, republish_count, since_ms: Some(since_ms), backoff_prev_ms, ..row }
            }
            State::Delivered { at_ms } | State::Read { at_ms } => Self { since_ms: Some(at_ms), ..row },
            State::Dead { cause } => {
                Self { dead_cause: Some(cause.as_str().to_owned()), dead_code: cause.code().map(Code::number), ..row }
            }
            State::Expired | State::Cancelled => row,
        }
    }
}

impl TryFrom<Row> for State {
    type Error = InvalidRow;

    fn try_from(row: Row) -> Result<Self, InvalidRow> {
        let Row { state, seal_attempt, publish_tries, republish_count, backoff_prev_ms, .. } = row;
        let invalid = |column| InvalidRow { state, column };
        let next_at_ms = row.next_at_ms.ok_or(invalid("next_at_ms"));
        let since_ms = row.since_ms.ok_or(invalid("since_ms"));
        Ok(match state {
            StateName::Queued => Self::Queued { seal_attempt, not_before_ms: next_at_ms?, backoff_prev_ms },
            StateName::Sealed => {
                Self::Sealed { seal_attempt, publish_tries, republish_count, next_at_ms: next_at_ms?, backoff_prev_ms }
            }
            StateName::Stored => Self::Stored {
                seal_attempt,
                republish_count,
                since_ms: since_ms?,
                next_at_ms: next_at_ms?,
                backoff_prev_ms,
            },
            StateName::Delivered => Self::Delivered { at_ms: since_ms? },
            StateName::Read => Self::Read { at_ms: since_ms? },
            StateName::Expired => Self::Expired,
            StateName::Cancelled => Self::Cancelled,
            StateName::Dead => {
                Self::Dead { cause: dead_cause(row.dead_cause.as_deref(), row.dead_code).ok_or(invalid("dead_cause"))? }
            }
        })
    }
}

fn dead_cause(word: Option<&str>, number: Option<u32>) -> Option<DeadCause> {
    let code = match number {
        Some(number) => Some(Code::from_number(number)?),
        None => None,
    };
    DeadCause::from_parts(word?, code)
}
