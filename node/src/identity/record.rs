//! What is kept as JSON beside the keys.

use murmur_core::{
    id::{NodeId, WorkspaceId},
    slug::{AccountName, WorkspaceName},
};
use serde::{Deserialize, Serialize};

/// `node.json`: what enrolment answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeRecord {
    /// The node.
    pub node_id: NodeId,
    /// Its workspace.
    pub workspace_id: WorkspaceId,
    /// The workspace's name.
    pub workspace: WorkspaceName,
    /// Whose node it is.
    pub account: AccountName,
    /// The host's name, for people.
    pub name: String,
    /// Where the control plane is.
    pub control_plane_url: String,
    /// `SignedStatement` of the pinned root.
    #[serde(with = "base64")]
    pub root_certificate: Vec<u8>,
    /// `SignedStatement` of the node's certificate, once approved.
    #[serde(with = "base64_option", default, skip_serializing_if = "Option::is_none")]
    pub node_certificate: Option<Vec<u8>>,
    /// Slug prefixes that the node may name agents under.
    pub slug_scope: Vec<String>,
}

/// `broker.json`: the last credentials, so that a restart with the control plane down still delivers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BrokerRecord {
    /// NATS user JWT.
    pub jwt: String,
    /// Where the broker listens.
    pub urls: Vec<String>,
    /// Where this node takes deliveries.
    pub route: murmur_core::subject::Route,
    /// The stream of its shard.
    pub stream: String,
    /// Its consumer.
    pub consumer: String,
    /// The broker's certificate authority; empty for the system's.
    pub ca_pem: String,
    /// When the control plane handed it out.
    pub issued_ms: u64,
    /// When it ends.
    pub expire_ms: u64,
    /// When the stream was made; 0 when an earlier version saved this.
    #[serde(default)]
    pub stream_created_ms: u64,
}

impl BrokerRecord {
    /// When to ask for the next one: after two thirds of its life.
    #[must_use]
    pub const fn renew_at_ms(&self) -> u64 {
        self.issued_ms.saturating_add(self.expire_ms.saturating_sub(self.issued_ms) / 3 * 2)
    }

    /// Whether the stream of the newer record is another one under the same name: what was in this one's is gone.
    #[must_use]
    pub fn lost_its_stream(&self, newer: &Self) -> bool {
        // A clock that was set back makes a new stream look older.
        self.stream_created_ms != 0 && self.stream_created_ms != newer.stream_created_ms
    }
}

mod base64 {
    use data_encoding::BASE64;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        BASE64.decode(text.as_bytes()).map_err(D::Error::custom)
    }
}

mod base64_option {
    use data_encoding::BASE64;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    #[expect(clippy::ref_option, reason = "serde's `with` passes a reference to the field")]
    pub(super) fn serialize<S: Serializer>(bytes: &Option<Vec<u8>>, serializer: S) -> Result<S::Ok, S::Error> {
        match bytes {
            Some(bytes) => serializer.serialize_str(&BASE64.encode(bytes)),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u8>>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| BASE64.decode(text.as_bytes()).map_err(D::Error::custom)).transpose()
    }
}
