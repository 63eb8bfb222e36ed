//! Who says so.

use std::fmt;

use crate::slug::{AccountName, Slug};

/// Who an event comes from. It is what the control plane found out, never what a publisher writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A service whose signature was verified, by its name, such as `github`.
    Verified(&'static str),
    /// An agent.
    Agent(Slug),
    /// A person, by account.
    Human(AccountName),
    /// A program with a token of an account, or of nobody's.
    Program(Option<AccountName>),
    /// The control plane.
    Murmur,
}

impl Origin {
    /// The word for what kind of speaker it is: the attribute `from_kind`.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Verified(_) => "service",
            Self::Agent(_) => "agent",
            Self::Human(_) => "human",
            Self::Program(_) => "ci",
            Self::Murmur => "murmur",
        }
    }

    /// The speaker's name alone: the attribute `from`.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Verified(service) => (*service).to_owned(),
            Self::Agent(slug) => slug.to_string(),
            Self::Human(account) | Self::Program(Some(account)) => account.to_string(),
            Self::Program(None) => "ci".to_owned(),
            Self::Murmur => "murmur".to_owned(),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Verified(service) => write!(f, "{service}:verified"),
            Self::Agent(slug) => write!(f, "agent:{slug}"),
            Self::Human(account) => write!(f, "human:{account}"),
            Self::Program(Some(account)) => write!(f, "ci:{account}"),
            Self::Program(None) => f.write_str("ci"),
            Self::Murmur => f.write_str("murmur"),
        }
    }
}
