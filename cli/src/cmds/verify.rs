//! `verify PEER`: the safety number (PROTOCOL §3.3, DESIGN §8.13).

use murmur_proto::node::v1::{GetSafetyNumberRequest, GetSafetyNumberResponse};
use serde_json::json;

use crate::{
    args::Speaker,
    connect::Target,
    output::{self, Outcome, Output},
    text,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Slug of the peer
    peer: String,
    #[command(flatten)]
    speaker: Speaker,
}

pub(crate) async fn run(target: &Target, args: Args, output: Output) -> Outcome {
    let Args { peer, speaker } = args;
    let request = GetSafetyNumberRequest { agent: speaker.agent.clone(), peer };
    let answer = target.node_as(&speaker).await?.host.get_safety_number(request).await?.into_inner();
    let GetSafetyNumberResponse { safety_number, peer, covers_roots } = &answer;
    output.show(&json!({"peer": peer, "safety_number": safety_number, "covers_roots": covers_roots}), || {
        let covers = if *covers_roots { "the roots of the two workspaces" } else { "the keys of the two nodes" };
        format!(
            "{}\n\n{}\n\nIt covers {covers}. Compare it with what the other side sees, over a channel that you trust\n\
             (in person, by voice). If one digit differs, somebody sits between you.",
            text::clean_line(peer),
            output::bold(&in_lines(safety_number)),
        )
    })
}

/// Four groups a line: easier to read out.
pub(super) fn in_lines(safety_number: &str) -> String {
    let groups: Vec<_> = safety_number.split_whitespace().collect();
    let lines: Vec<_> = groups.chunks(4).map(|line| format!("  {}", line.join(" "))).collect();
    lines.join("\n")
}
