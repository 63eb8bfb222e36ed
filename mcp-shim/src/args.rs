//! The command line, and what it says about who speaks and where the node is.

use std::path::{Path, PathBuf};

use clap::Parser;
use murmur_core::{place::BaseDirs, slug::normalise_name};

use crate::tools::Profile;

/// Murmur as an MCP server over stdio. Add it with: claude mcp add murmur -- murmur-mcp
#[derive(Debug, Clone, Parser)]
#[command(name = "murmur-mcp", version)]
pub(crate) struct Args {
    /// Speak as this agent of your account; by default the working directory's name, suffixed when taken
    #[arg(long, env = "MURMUR_AGENT", value_name = "NAME")]
    pub(crate) agent: Option<String>,
    /// The node's socket; by default murmur/node.sock in the user's runtime directory
    #[arg(long, env = "MURMUR_NODE_SOCKET", value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// Take the agent over from another live session, which is told and ends
    #[arg(long)]
    pub(crate) takeover: bool,
    /// What other agents read about this one
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) description: String,
    /// The group that this agent is listed under
    #[arg(long, value_name = "NAME", default_value = "")]
    pub(crate) group: String,
    /// Which tools to offer
    #[arg(long, env = "MURMUR_PROFILE", value_enum, default_value_t)]
    pub(crate) profile: Profile,
    /// Let the owner of your account and agents above this one answer when the client asks whether a tool may be used
    #[arg(long, env = "MURMUR_RELAY_PERMISSIONS")]
    pub(crate) relay_permissions: bool,
    /// File with the token of the one agent to speak for (0600), as given to agents that a node starts
    #[arg(long, env = "MURMUR_AGENT_TOKEN_FILE", value_name = "PATH")]
    pub(crate) token_file: Option<PathBuf>,
}

/// As whom this process speaks until somebody calls `register`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Identity {
    /// The agent that the token is bound to; the name, if any, must be its own.
    Token(String),
    /// A name that the user chose: never changed, so a second session under it is refused.
    Named(String),
    /// A name derived from the working directory: suffixed when another session has it.
    Derived(String),
}

impl Args {
    /// Who speaks; `directory` is the working directory.
    pub(crate) fn identity(&self, directory: Option<&Path>) -> Identity {
        match (&self.token_file, &self.agent) {
            (Some(_), name) => Identity::Token(name.clone().unwrap_or_default()),
            (None, Some(name)) if !name.trim().is_empty() => Identity::Named(name.clone()),
            (None, _) => Identity::Derived(derived_name(directory)),
        }
    }

    /// The node's socket (DESIGN §8 point 14).
    pub(crate) fn socket_path(&self) -> PathBuf {
        let by_default = || BaseDirs::new(std::env::var_os).socket();
        // Without any home the path is relative, and the error that follows shows it.
        self.socket.clone().or_else(by_default).unwrap_or_else(|| "murmur/run/node.sock".into())
    }
}

fn derived_name(directory: Option<&Path>) -> String {
    let name = directory.and_then(Path::file_name).unwrap_or_default().to_string_lossy();
    // A directory such as `/` leaves no name, and `self` is reserved.
    normalise_name(&name).map_or_else(|_| "session".to_owned(), String::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(args: &[&str], directory: &str) -> Identity {
        let line = ["murmur-mcp"].into_iter().chain(args.iter().copied());
        Args::try_parse_from(line).unwrap().identity(Some(Path::new(directory)))
    }

    #[test]
    fn the_directory_names_the_agent_unless_something_better_does() {
        assert_eq!(identity(&[], "/home/jo/My App"), Identity::Derived("my-app".to_owned()));
        assert_eq!(identity(&[], "/"), Identity::Derived("session".to_owned()));
        assert_eq!(identity(&["--agent", "team/alice"], "/x"), Identity::Named("team/alice".to_owned()));
        assert_eq!(identity(&["--token-file", "/t", "--agent", "bob"], "/x"), Identity::Token("bob".to_owned()));
    }
}
