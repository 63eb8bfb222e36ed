//! Which tools a session is offered: each costs its reader tokens in every conversation.

use clap::ValueEnum;

/// A choice of tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Profile {
    /// Messages, starting and following agents, and your own checklist
    #[default]
    Default,
    /// Every tool
    All,
}

/// What only [`Profile::All`] has: tools that a session seldom needs, or that another one does with one argument more.
const SELDOM: [&str; 6] = ["interrupt", "clear_queue", "task_get", "notify", "agent_url", PERMISSION_ANSWER];

/// What a session that relays permissions needs, too.
const PERMISSION_ANSWER: &str = "permission_answer";

impl Profile {
    /// Whether the tool of this name, if there is one, belongs to it; in a session that relays permissions or does not.
    pub(crate) fn offers(self, tool: &str, relays_permissions: bool) -> bool {
        self == Self::All || (relays_permissions && tool == PERMISSION_ANSWER) || !SELDOM.contains(&tool)
    }
}
