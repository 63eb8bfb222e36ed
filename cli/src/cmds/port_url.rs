//! `port-url PORT`: gives what listens on a port of the node's host a URL.

use murmur_proto::node::v1::OpenPortRequest;
use serde_json::json;

use crate::{
    args::Speaker,
    connect::Target,
    output::{Outcome, Output},
    text::clean_line,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The port, on the loopback interface of the node's host; something must listen there
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    #[command(flatten)]
    speaker: Speaker,
}

pub(crate) async fn run(target: &Target, args: Args, output: Output) -> Outcome {
    let Args { port, speaker } = args;
    let request = OpenPortRequest { agent: speaker.agent.clone(), port: port.into() };
    let url = target.node_as(&speaker).await?.share.open_port(request).await?.into_inner().url;
    output.show(&json!({ "url": url }), || clean_line(&url))
}
