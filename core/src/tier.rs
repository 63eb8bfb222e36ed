//! Trust tiers (PROTOCOL §3.1): how much is known about who is speaking, shown on every message and peer.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// How a sender's root key came to be trusted, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// Refused by default.
    Untrusted,
    /// Imported from version 1, whose signatures cover little.
    Legacy,
    /// The chain has a link issued by the control plane's operator.
    Operator,
    /// The root was pinned on first use.
    Pinned,
    /// The chain ends in a root pinned out of band and every link is the owner's.
    Verified,
}

impl Tier {
    /// The word shown to people and models.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Untrusted => "untrusted",
            Self::Legacy => "legacy",
            Self::Operator => "operator",
            Self::Pinned => "pinned",
            Self::Verified => "verified",
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that names no tier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("tier must be untrusted, legacy, operator, pinned or verified, got `{0}`")]
pub struct InvalidTier(String);

impl FromStr for Tier {
    type Err = InvalidTier;

    fn from_str(text: &str) -> Result<Self, InvalidTier> {
        [Self::Untrusted, Self::Legacy, Self::Operator, Self::Pinned, Self::Verified]
            .into_iter()
            .find(|tier| tier.as_str() == text)
            .ok_or_else(|| InvalidTier(text.chars().take(32).collect()))
    }
}
