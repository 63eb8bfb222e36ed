//! What the process tells its caller when it ends. `docs/guide/cli.md` and `--help` repeat this table.

use std::process::ExitCode;

/// An exit code. The numbers are a contract: scripts branch on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// It was done.
    Ok = 0,
    /// It was not done, for a reason that no other code names.
    Failed = 1,
    /// The command line, or a value on it, is wrong whatever the state.
    Usage = 2,
    /// There is no such agent, node, message or token, or the caller may not see it.
    NotFound = 3,
    /// Refused: no or wrong credentials, no permission, a policy or a limit.
    Refused = 4,
    /// Something needed does not answer: node, control plane or broker.
    Unavailable = 5,
    /// The time given was over.
    Timeout = 6,
    /// Ctrl-C, as shells tell it.
    Interrupted = 130,
}

/// The table, as `--help` shows it.
pub(crate) const HELP: &str = "\
Exit codes:
  0  done
  1  failed
  2  usage: the command line or a value on it is wrong
  3  not found
  4  refused: credentials, permission, policy or a limit
  5  unavailable: node, control plane or broker does not answer
  6  timeout
  130  interrupted by Ctrl-C";

impl Exit {
    /// The number.
    pub(crate) const fn code(self) -> u8 {
        self as u8
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_names_every_code() {
        use Exit::{Failed, Interrupted, NotFound, Ok, Refused, Timeout, Unavailable, Usage};
        for exit in [Ok, Failed, Usage, NotFound, Refused, Unavailable, Timeout, Interrupted] {
            assert!(HELP.contains(&format!("\n  {}  ", exit.code())), "{exit:?}");
        }
    }
}
