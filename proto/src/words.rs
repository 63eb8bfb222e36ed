//! Enumerations of the contract as the words that people and models read and write: `task-complete`, `in_progress`, `taskComplete`.
//!
//! What is written is one spelling; what is read is forgiving: upper or lower case, `-`, `_` or neither between the parts, with or without
//! the prefix of the contract, so that `PHASE_TASK_COMPLETE`, `TASK_COMPLETE` and `task-complete` are one phase.

use crate::v1::{
    ActivateWhen, Activation, CompletionCheck, DequeueStrategy, FollowUpKind, OnIdle, OutputMode, Phase, SessionMode,
    TaskStatus, TimelineKind, TrustLevel,
};

/// An enumeration that is written as words.
pub trait Words: Copy + PartialEq + Send + Sync + 'static {
    /// What the contract puts before every name, such as `PHASE_`.
    const PREFIX: &'static str;
    /// Every value that may be written, in the contract's order, with its word.
    const WORDS: &'static [(Self, &'static str)];

    /// The word; `unknown` for a value of a newer contract.
    #[must_use]
    fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(value, _)| *value == self).map_or("unknown", |(_, word)| word)
    }

    /// The value of a word in any of its spellings.
    #[must_use]
    fn from_word(text: &str) -> Option<Self> {
        let plain = plain(text);
        let bare = plain.strip_prefix(&self::plain(Self::PREFIX)).unwrap_or_default();
        let fits = |(_, word): &&(Self, &str)| [plain.as_str(), bare].contains(&self::plain(word).as_str());
        Self::WORDS.iter().find(fits).map(|(value, _)| *value)
    }

    /// Every word, separated by commas, for a sentence such as "must be one of …".
    #[must_use]
    fn all_words() -> String {
        Self::WORDS.iter().map(|(_, word)| *word).collect::<Vec<_>>().join(", ")
    }
}

/// Without what spellings differ in.
fn plain(text: &str) -> String {
    text.chars().filter(|c| !matches!(c, '-' | '_')).map(|c| c.to_ascii_lowercase()).collect()
}

macro_rules! words {
    ($($type:ident $prefix:literal { $($value:ident $word:literal),+ $(,)? })+) => {
        $(impl Words for $type {
            const PREFIX: &'static str = $prefix;
            const WORDS: &'static [(Self, &'static str)] = &[$((Self::$value, $word)),+];
        })+

        #[cfg(test)]
        fn check_all(check: fn(contract: &str, word: &str, back: bool)) {
            $($(check($type::$value.as_str_name(), $word, {
                let contract = $type::$value.as_str_name();
                let bare = contract.strip_prefix($prefix).unwrap();
                [$word, contract, bare].map($type::from_word) == [Some($type::$value); 3]
            });)+)+
        }
    };
}

words! {
    Phase "PHASE_" {
        Starting "starting", Running "running", TaskComplete "task-complete", ChecksPending "checks-pending", Idle "idle",
        Sleeping "sleeping", Destroying "destroying", Completed "completed", Failed "failed", Canceled "canceled",
    }
    SessionMode "SESSION_MODE_" {
        Autonomous "autonomous", Interactive "interactive", Streaming "streaming",
    }
    CompletionCheck "COMPLETION_CHECK_" {
        None "none", Assessor "assessor",
    }
    OnIdle "ON_IDLE_" {
        Sleep "sleep", Terminate "terminate", TerminateWhenPrsResolved "terminate_when_prs_resolved", KeepAlive "keep_alive",
    }
    DequeueStrategy "DEQUEUE_STRATEGY_" {
        Auto "auto", All "all", One "one", Five "five",
    }
    OutputMode "OUTPUT_MODE_" {
        Pr "pr", Push "push", Respond "respond", Freeform "freeform",
    }
    TrustLevel "TRUST_LEVEL_" {
        Sandbox "sandbox", Low "low", Medium "medium", High "high",
    }
    TimelineKind "TIMELINE_KIND_" {
        Phase "phase", Child "child", TaskComplete "taskComplete", Commit "commit", Push "push", Checks "checks",
        FollowUp "followUp", Upload "upload",
    }
    FollowUpKind "FOLLOW_UP_KIND_" {
        Written "written", Event "event",
    }
    TaskStatus "TASK_STATUS_" {
        Pending "pending", InProgress "in_progress", Completed "completed", Deleted "deleted",
    }
    Activation "ACTIVATION_" {
        Active "active", Dormant "dormant",
    }
    ActivateWhen "ACTIVATE_WHEN_" {
        FilesModified "files_modified",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_every_word_is_read() {
        check_all(|contract, word, reads_back| assert!(reads_back, "{contract} as {word}"));
    }

    #[test]
    fn all_three_spellings_of_a_phase_are_one() {
        for text in ["PHASE_TASK_COMPLETE", "TASK_COMPLETE", "task-complete", "task_complete", "taskComplete"] {
            assert_eq!(Phase::from_word(text), Some(Phase::TaskComplete), "{text}");
        }
        assert_eq!(Phase::TaskComplete.word(), "task-complete");
    }

    #[test]
    fn nothing_else_is_read() {
        for text in
            ["", "done", "phase", "PHASE_", "unspecified", "PHASE_UNSPECIFIED", "running ", "TASK_STATUS_RUNNING"]
        {
            assert_eq!(Phase::from_word(text), None, "{text}");
        }
    }

    #[test]
    fn every_value_of_the_contract_has_a_word() {
        fn count<T: Words>(known: fn(i32) -> bool) {
            // 0 is what the contract calls unspecified.
            let all = (1..100).take_while(|number| known(*number)).count();
            assert_eq!(T::WORDS.len(), all, "{}", T::PREFIX);
        }
        count::<Phase>(Phase::is_valid);
        count::<SessionMode>(SessionMode::is_valid);
        count::<CompletionCheck>(CompletionCheck::is_valid);
        count::<OnIdle>(OnIdle::is_valid);
        count::<DequeueStrategy>(DequeueStrategy::is_valid);
        count::<OutputMode>(OutputMode::is_valid);
        count::<TrustLevel>(TrustLevel::is_valid);
        count::<TimelineKind>(TimelineKind::is_valid);
        count::<FollowUpKind>(FollowUpKind::is_valid);
        count::<TaskStatus>(TaskStatus::is_valid);
        count::<Activation>(Activation::is_valid);
        count::<ActivateWhen>(ActivateWhen::is_valid);
    }
}
