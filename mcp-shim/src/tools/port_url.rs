//! `port_url`: give what listens on a port of this host a URL.

use murmur_proto::node::v1::OpenPortRequest;
use rmcp::model::ToolAnnotations;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Call, Murmur};
use crate::errors::Failure;

pub(super) struct PortUrl;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Args {
    /// Something must listen there, on loopback.
    #[schemars(range(min = 1, max = 65535))]
    port: u32,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Answer {
    /// Whoever has it reaches the port, by HTTP and WebSocket.
    url: String,
}

impl Murmur for PortUrl {
    const NAME: &'static str = "port_url";
    const TITLE: &'static str = "Share a local port by link";
    const DESCRIPTION: &'static str = "Give a web server on this host a URL that anybody who has it can visit while you live. Start the \
        server first.";
    type Args = Args;
    type Answer = Answer;

    fn annotations() -> ToolAnnotations {
        ToolAnnotations::new().read_only(false).destructive(false).idempotent(true).open_world(true)
    }

    async fn run(args: Args, call: &Call) -> Result<Answer, Failure> {
        let request = OpenPortRequest { agent: call.speaker().await?, port: args.port };
        let mut share = call.node()?.share;
        let url = call.shared.node.answer(share.open_port(request)).await?.url;
        Ok(Answer { url })
    }
}
