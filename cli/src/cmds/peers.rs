//! `peers`: who there is, from the node's own copy of the directory.

use murmur_proto::node::v1::{ListPeersRequest, ListPeersResponse, Peer};
use serde_json::{Value, json};

use crate::{
    args::Speaker,
    connect::Target,
    failure::Failure,
    output::{self, Outcome, Output},
    time,
    view::some,
};

const PAGE: u32 = 1000;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    speaker: Speaker,
    /// Only those of this group
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    group: String,
    /// Only those with somebody listening
    #[arg(long)]
    online: bool,
}

pub(crate) async fn run(target: &Target, args: Args, output: Output) -> Outcome {
    let (peers, last) = list(target, &args).await?;
    let value = json!({
        "peers": peers.iter().map(peer_json).collect::<Vec<Value>>(),
        "confirmed_time": time::rfc3339(last.confirmed_time.as_ref()),
        "live": last.live,
    });
    output.show(&value, || {
        let mut text = if peers.is_empty() { "no peers".to_owned() } else { peers_table(&peers) };
        if !last.live {
            text.push_str(&format!(
                "\n\nThe control plane is away; this list is from {}.",
                time::ago(last.confirmed_time.as_ref())
            ));
        }
        text
    })
}

/// All pages, and the last of them.
async fn list(target: &Target, args: &Args) -> Result<(Vec<Peer>, ListPeersResponse), Failure> {
    let Args { speaker, group, online } = args;
    let mut node = target.node_as(speaker).await?;
    let mut peers = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListPeersRequest {
            agent: speaker.agent.clone(),
            group: group.clone(),
            online_only: *online,
            page_size: PAGE,
            page_token,
        };
        let mut page = node.host.list_peers(request).await?.into_inner();
        peers.append(&mut page.peers);
        if page.next_page_token.is_empty() {
            return Ok((peers, page));
        }
        page_token = page.next_page_token;
    }
}

fn peer_json(peer: &Peer) -> Value {
    json!({
        "slug": peer.slug,
        "agent_id": peer.agent_id,
        "description": some(&peer.description),
        "group": some(&peer.group),
        "host": peer.host,
        "node_id": peer.node_id,
        "online": peer.online,
        "local": peer.local,
        "tier": peer.tier,
        "fingerprint": some(&peer.fingerprint),
        "trouble": some(&peer.trouble),
        "create_time": time::rfc3339(peer.create_time.as_ref()),
    })
}

fn peers_table(peers: &[Peer]) -> String {
    let rows = peers.iter().map(|peer| {
        let presence = if peer.online { "online" } else { "offline" };
        let trouble = some(&peer.trouble).map(|trouble| format!(" ({trouble})")).unwrap_or_default();
        let fingerprint = peer.fingerprint.chars().take(16).collect();
        vec![
            peer.slug.clone(),
            presence.into(),
            format!("{}{trouble}", peer.tier),
            peer.host.clone(),
            fingerprint,
            peer.group.clone(),
            peer.description.clone(),
        ]
    });
    output::table(&["SLUG", "PRESENCE", "TIER", "HOST", "KEY", "GROUP", "DESCRIPTION"], rows)
}
