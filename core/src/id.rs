//! Identifiers: sixteen raw bytes, each kind its own type (PROTOCOL, notation).
//!
//! New ids are UUIDv7, so that they sort by creation time. They are printed as a UUID in JSON, logs and on the command line
//! ([`std::fmt::Display`]) and as 32 lowercase hex digits in broker subjects ([`AgentId::hex`]).

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A text or byte string that is no identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} id must be a UUID (16 bytes, 32 hex digits), got `{text}`")]
pub struct InvalidId {
    /// Which kind of id was expected, such as `agent`.
    pub kind: &'static str,
    /// What was given, cut at 64 characters.
    pub text: String,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 16]);

        impl $name {
            /// Wraps sixteen raw bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// Makes a UUIDv7 from a Unix time in milliseconds and ten random bytes.
            #[must_use]
            pub fn new_v7(now_ms: u64, random: [u8; 10]) -> Self {
                Self(*uuid::Builder::from_unix_timestamp_millis(now_ms, &random).as_uuid().as_bytes())
            }

            /// Reads an id from a byte string that must be exactly sixteen bytes.
            ///
            /// # Errors
            /// [`InvalidId`] when the length differs.
            pub fn from_slice(bytes: &[u8]) -> Result<Self, InvalidId> {
                bytes.try_into().map(Self).map_err(|_| InvalidId {
                    kind: $kind,
                    text: format!("{} bytes", bytes.len()),
                })
            }

            /// The raw bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }

            /// The raw bytes as a vector, for protobuf fields and database columns.
            #[must_use]
            pub fn to_vec(self) -> Vec<u8> {
                self.0.to_vec()
            }

            /// Thirty-two lowercase hex digits, as used in broker subjects.
            #[must_use]
            pub fn hex(&self) -> String {
                self.encode_hex(&mut [0; 32]).to_owned()
            }

            /// The same, written to a place of the caller's.
            pub fn encode_hex<'a>(&self, digits: &'a mut [u8; 32]) -> &'a str {
                uuid::Uuid::from_bytes(self.0).simple().encode_lower(digits)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                uuid::Uuid::from_bytes(self.0).hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            /// Accepts a UUID with or without hyphens.
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                uuid::Uuid::try_parse(text)
                    .map(|id| Self(*id.as_bytes()))
                    .map_err(|_| InvalidId { kind: $kind, text: text.chars().take(64).collect() })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

id! {
    /// A workspace: the unit of isolation, one root key each.
    WorkspaceId, "workspace"
}
id! {
    /// A node: one per host and user, holder of private keys.
    NodeId, "node"
}
id! {
    /// An agent, immutable for its life; a slug names it, a message is addressed to it.
    AgentId, "agent"
}
id! {
    /// A message. Unique per sender; the recipient deduplicates on (sender, message).
    MessageId, "message"
}
id! {
    /// A conversation: derived from the two agents for a direct message, random for a channel.
    ConversationId, "conversation"
}
id! {
    /// A chunk stream: random, chosen by its sender, known to the two nodes and the broker between them.
    StreamId, "transfer"
}
id! {
    /// A bearer token's public half.
    TokenId, "token"
}
id! {
    /// An invite.
    InviteId, "invite"
}
id! {
    /// An entry of an agent's queue.
    FollowUpId, "follow-up"
}
id! {
    /// A turn: entries of an agent's queue that were handed out together.
    TurnId, "turn"
}
id! {
    /// A source of webhooks; part of the address that deliveries come to.
    WebhookId, "webhook"
}
id! {
    /// One start of a node or of the control plane, new each time.
    Incarnation, "incarnation"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_as_a_uuid_and_reads_both_forms() {
        let id = AgentId::from_bytes([0xa1; 16]);
        assert_eq!(id.to_string(), "a1a1a1a1-a1a1-a1a1-a1a1-a1a1a1a1a1a1");
        assert_eq!(id.hex(), "a1".repeat(16));
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.hex().parse(), Ok(id));
    }

    #[test]
    fn v7_ids_sort_by_time() {
        let older = MessageId::new_v7(1, [0xff; 10]);
        let newer = MessageId::new_v7(2, [0; 10]);
        assert!(older < newer);
    }

    #[test]
    fn refuses_what_is_no_id() {
        let error = "nope".parse::<AgentId>().unwrap_err();
        assert_eq!(error.to_string(), "agent id must be a UUID (16 bytes, 32 hex digits), got `nope`");
        assert!(AgentId::from_slice(&[0; 15]).is_err());
    }
}
