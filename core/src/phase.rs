//! Phases of an agent's life, and which follows which (AGENTS-AND-TOOLS §2).

use std::{fmt, str::FromStr};

/// Where an agent's life stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Its process is to be started, and may wait for a node that has room.
    Starting,
    /// A turn runs.
    Running,
    /// The turn has ended and what it was to do is done.
    TaskComplete,
    /// What it did is being checked by others.
    ChecksPending,
    /// It lives and nothing is to be done.
    Idle,
    /// Its process was stopped, to be started again when there is work.
    Sleeping,
    /// It is being ended: nothing is begun any more.
    Destroying,
    /// It ended as it should.
    Completed,
    /// It ended in trouble.
    Failed,
    /// Somebody ended it.
    Canceled,
}

impl Phase {
    /// Every phase, in the order of the contract.
    pub const ALL: [Self; 10] = [
        Self::Starting,
        Self::Running,
        Self::TaskComplete,
        Self::ChecksPending,
        Self::Idle,
        Self::Sleeping,
        Self::Destroying,
        Self::Completed,
        Self::Failed,
        Self::Canceled,
    ];

    /// The word shown and stored.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::TaskComplete => "task-complete",
            Self::ChecksPending => "checks-pending",
            Self::Idle => "idle",
            Self::Sleeping => "sleeping",
            Self::Destroying => "destroying",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
        }
    }

    /// Whether the agent has ended. Only [`Phase::revive`] leads out of here.
    #[must_use]
    pub const fn is_ended(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Canceled)
    }

    /// Whether a node is to have a process of it.
    #[must_use]
    pub const fn has_process(self) -> bool {
        matches!(self, Self::Running | Self::TaskComplete | Self::ChecksPending | Self::Idle | Self::Destroying)
    }

    /// Whether somebody who waits for no phase in particular is answered: a result, nothing to do, or an end.
    #[must_use]
    pub const fn needs_attention(self) -> bool {
        matches!(self, Self::TaskComplete | Self::Idle | Self::Sleeping) || self.is_ended()
    }

    /// Moves on.
    ///
    /// # Errors
    /// [`InvalidTransition`] when there is no such step.
    pub const fn become_(self, to: Self) -> Result<Self, InvalidTransition> {
        if self.leads_to(to) { Ok(to) } else { Err(InvalidTransition { from: self, to }) }
    }

    /// The steps to an end from anywhere: ends that are no neighbours are reached through [`Phase::Destroying`].
    ///
    /// # Errors
    /// [`InvalidTransition`] when `to` is no end, or this phase is one already.
    pub const fn end_as(self, to: Self) -> Result<&'static [Self], InvalidTransition> {
        use Phase::{Canceled, Completed, Destroying, Failed};
        if self.is_ended() || !to.is_ended() {
            return Err(InvalidTransition { from: self, to });
        }
        let is_direct = self.leads_to(to);
        Ok(match to {
            Completed if is_direct => &[Completed],
            Failed if is_direct => &[Failed],
            Canceled if is_direct => &[Canceled],
            Completed => &[Destroying, Completed],
            Failed => &[Destroying, Failed],
            _ => &[Destroying, Canceled],
        })
    }

    /// Begins again after an end: by `resurrect` or `force_new`, as a new incarnation.
    ///
    /// # Errors
    /// [`InvalidTransition`] when it has not ended.
    pub const fn revive(self) -> Result<Self, InvalidTransition> {
        if self.is_ended() { Ok(Self::Starting) } else { Err(InvalidTransition { from: self, to: Self::Starting }) }
    }

    const fn leads_to(self, to: Self) -> bool {
        use Phase::{ChecksPending, Completed, Destroying, Failed, Idle, Running, Sleeping, Starting, TaskComplete};
        match self {
            Starting => matches!(to, Running | Failed | Destroying),
            Running => matches!(to, TaskComplete | ChecksPending | Idle | Failed | Destroying),
            TaskComplete => matches!(to, Running | ChecksPending | Idle | Destroying),
            ChecksPending => matches!(to, Running | TaskComplete | Idle | Failed | Destroying),
            Idle => matches!(to, Running | Sleeping | Destroying),
            Sleeping => matches!(to, Starting | Destroying),
            Destroying => to.is_ended(),
            Completed | Failed | Self::Canceled => false,
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A step that there is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an agent that is {from} cannot become {to}")]
pub struct InvalidTransition {
    /// Where it stands.
    pub from: Phase,
    /// Where it was to go.
    pub to: Phase,
}

/// A word that names no phase.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be a phase, such as task-complete, got `{0}`")]
pub struct InvalidPhase(String);

impl FromStr for Phase {
    type Err = InvalidPhase;

    /// Accepts `task-complete`, `TASK_COMPLETE` and `PHASE_TASK_COMPLETE`.
    fn from_str(text: &str) -> Result<Self, InvalidPhase> {
        let is_upper = text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
        let folded = if is_upper {
            text.strip_prefix("PHASE_").unwrap_or(text).to_ascii_lowercase().replace('_', "-")
        } else {
            text.to_owned()
        };
        let found = Self::ALL.into_iter().find(|phase| phase.as_str() == folded);
        found.ok_or_else(|| InvalidPhase(text.chars().take(64).collect()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        Phase::{
            Canceled, ChecksPending, Completed, Destroying, Failed, Idle, Running, Sleeping, Starting, TaskComplete,
        },
        *,
    };

    /// The table of AGENTS-AND-TOOLS §2, written down once more.
    const TABLE: [(Phase, &[Phase]); 10] = [
        (Starting, &[Running, Failed, Destroying]),
        (Running, &[TaskComplete, ChecksPending, Idle, Failed, Destroying]),
        (TaskComplete, &[Running, ChecksPending, Idle, Destroying]),
        (ChecksPending, &[Running, TaskComplete, Idle, Failed, Destroying]),
        (Idle, &[Running, Sleeping, Destroying]),
        (Sleeping, &[Starting, Destroying]),
        (Destroying, &[Completed, Failed, Canceled]),
        (Completed, &[]),
        (Failed, &[]),
        (Canceled, &[]),
    ];

    fn any_phase() -> impl Strategy<Value = Phase> {
        prop::sample::select(Phase::ALL.to_vec())
    }

    #[test]
    fn only_the_steps_of_the_table_are_taken() {
        for (from, followers) in TABLE {
            for to in Phase::ALL {
                let expected = if followers.contains(&to) { Ok(to) } else { Err(InvalidTransition { from, to }) };
                assert_eq!(from.become_(to), expected, "{from} to {to}");
            }
        }
    }

    #[test]
    fn a_phase_has_three_spellings_and_no_fourth() {
        for phase in Phase::ALL {
            let upper = phase.as_str().to_uppercase().replace('-', "_");
            for text in [phase.as_str().to_owned(), upper.clone(), format!("PHASE_{upper}")] {
                assert_eq!(text.parse(), Ok(phase), "{text}");
            }
        }
        for text in
            ["", "PHASE_", "Task-Complete", "task_complete", "phase-idle", "PHASE_PHASE_IDLE", "PHASE_UNSPECIFIED"]
        {
            assert!(text.parse::<Phase>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_end_is_reached_by_steps_of_the_table(from in any_phase(), to in any_phase()) {
            match from.end_as(to) {
                Ok(steps) => {
                    let mut at = from;
                    for step in steps {
                        at = at.become_(*step).unwrap();
                    }
                    prop_assert_eq!(at, to);
                    prop_assert!(to.is_ended() && !from.is_ended());
                }
                Err(_) => prop_assert!(from.is_ended() || !to.is_ended()),
            }
        }

        #[test]
        fn a_life_of_any_steps_ends_once_and_begins_anew_only_when_revived(steps in prop::collection::vec(any_phase(), 0..64)) {
            let mut at = Starting;
            for to in steps {
                match at.become_(to) {
                    Ok(next) => {
                        prop_assert!(!at.is_ended() && next == to);
                        at = next;
                    }
                    Err(error) => prop_assert_eq!(error, InvalidTransition { from: at, to }),
                }
                prop_assert_eq!(at.revive().is_ok(), at.is_ended());
            }
        }

        #[test]
        fn no_text_is_a_panic(text in ".{0,80}") {
            if let Ok(phase) = text.parse::<Phase>() {
                prop_assert_eq!(phase.to_string().parse(), Ok(phase));
            }
        }
    }
}
