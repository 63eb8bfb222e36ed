//! Presence: whether anybody speaks for an agent right now (PROTOCOL §5.9). Offline is not gone; mail waits.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Whether an agent or a node has a live session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Presence {
    /// A session is attached.
    Online,
    /// No session; messages are kept until one comes.
    Offline,
}

impl Presence {
    /// The word shown and stored.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Offline => "offline",
        }
    }
}

impl fmt::Display for Presence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that names no presence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("presence must be online or offline, got `{0}`")]
pub struct InvalidPresence(String);

impl FromStr for Presence {
    type Err = InvalidPresence;

    fn from_str(text: &str) -> Result<Self, InvalidPresence> {
        match text {
            "online" => Ok(Self::Online),
            "offline" => Ok(Self::Offline),
            other => Err(InvalidPresence(other.chars().take(32).collect())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_read_back() {
        for presence in [Presence::Online, Presence::Offline] {
            assert_eq!(presence.as_str().parse(), Ok(presence));
        }
        assert!("away".parse::<Presence>().is_err());
    }
}
