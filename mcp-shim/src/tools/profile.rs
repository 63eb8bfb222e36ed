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
const SELDOM: [&str; 3] = ["interrupt", "clear_queue", "task_get"];

impl Profile {
    /// Whether the tool of this name, if there is one, belongs to it.
    pub(crate) fn offers(self, tool: &str) -> bool {
        self == Self::All || !SELDOM.contains(&tool)
    }
}
