//! `version`: what runs here.

use murmur_proto::{PROTOCOL, node::v1::GetVersionRequest};
use rmcp::model::ToolAnnotations;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Call, Murmur};
use crate::errors::Failure;

pub(super) struct Version;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Args {}

#[derive(Serialize, JsonSchema)]
pub(super) struct Answer {
    /// Of this MCP server.
    client_version: &'static str,
    /// Of the node on this host.
    node_version: String,
    /// Of the control plane; empty while it is away.
    server_version: String,
    /// The protocol that the node speaks with its programs.
    protocol: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

impl Murmur for Version {
    const NAME: &'static str = "version";
    const TITLE: &'static str = "Show versions";
    const DESCRIPTION: &'static str = "Show the versions of this MCP server, the node and the control plane. Useful to report a \
        problem; nothing else needs it.";
    type Args = Args;
    type Answer = Answer;

    fn annotations() -> ToolAnnotations {
        ToolAnnotations::new().read_only(true).idempotent(true).open_world(false)
    }

    async fn run(Args {}: Args, call: &Call) -> Result<Answer, Failure> {
        let version = call.shared.node.answer(call.node()?.host.get_version(GetVersionRequest {})).await?;
        Ok(Answer {
            client_version: env!("CARGO_PKG_VERSION"),
            node_version: version.node_version,
            server_version: version.server_version,
            protocol: version.protocol,
            hint: (version.protocol != PROTOCOL).then(|| {
                format!("This MCP server speaks protocol {PROTOCOL}: upgrade the older side and restart both.")
            }),
        })
    }
}
