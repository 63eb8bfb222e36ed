//! What every measure runs on: a raw broker, and a network of two nodes with as many pairs of agents as are asked for.

use std::collections::HashSet;

use murmur_proto::node::v1::{ListPeersRequest, RegisterRequest, SendRequest};
use murmur_tests::network::{Network, Node, Options};

use crate::{body, raw::Raw};

/// Limits that protect users from runaway agents. They are raised, so that the path is measured and not the limit.
pub(crate) const RAISED: [(&str, &str); 6] = [
    ("MURMUR_NODE_PAIR_RATE_PER_MINUTE", "100000000"),
    ("MURMUR_NODE_PAIR_BURST", "100000000"),
    ("MURMUR_NODE_SOURCE_RATE_PER_SECOND", "1000000"),
    ("MURMUR_NODE_SOURCE_BURST", "1000000"),
    ("MURMUR_SERVER_CALLS_PER_SECOND", "100000"),
    ("MURMUR_SERVER_CALLS_BURST", "100000"),
];

/// A running network and the raw broker beside it, which idles while it is not asked.
pub(crate) struct Stage {
    /// The limit.
    pub(crate) raw: Raw,
    /// Broker and control plane.
    pub(crate) network: Network,
    /// The senders' node.
    pub(crate) here: Node,
    /// The receivers' node.
    pub(crate) there: Node,
}

impl Stage {
    /// Starts everything, with one pair of agents.
    pub(crate) async fn start(sync_always: bool) -> Self {
        let env = RAISED.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let raw = Raw::start(sync_always).await;
        let network = Network::start_with(Options { sync_always, env, ..Options::default() }).await;
        let here = network.node("here", "bench").await;
        let there = network.node("there", "bench").await;
        let stage = Self { raw, network, here, there };
        stage.pairs(1).await;
        stage
    }

    /// Sees to it that there are so many pairs, who know each other's keys.
    pub(crate) async fn pairs(&self, count: usize) {
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..count).map(|pair| (sender(pair), receiver(pair))).unzip();
        register(&self.here, &senders).await;
        register(&self.there, &receivers).await;
        know(&self.here, &receivers).await;
        know(&self.there, &senders).await;
    }

    /// The first so many pairs.
    pub(crate) fn ends(&self, pairs: usize) -> Ends<'_> {
        let pairs = (0..pairs).map(|pair| (sender(pair), receiver(pair))).collect();
        Ends { from: &self.here, to: &self.there, pairs }
    }

    /// The processes that share the work, the two nodes first.
    pub(crate) fn processes(&self) -> Vec<(&'static str, u32)> {
        vec![
            ("sender's node", self.here.process.pid()),
            ("receiver's node", self.there.process.pid()),
            ("broker", self.network.broker.pid()),
            ("control plane", self.network.server.pid()),
            ("bench", std::process::id()),
        ]
    }
}

/// Who writes to whom.
#[derive(Clone)]
pub(crate) struct Ends<'a> {
    /// The senders' node.
    pub(crate) from: &'a Node,
    /// The receivers' node.
    pub(crate) to: &'a Node,
    /// Names of sender and receiver.
    pub(crate) pairs: Vec<(String, String)>,
}

/// A message of a pair.
pub(crate) fn draft((sender, receiver): &(String, String), number: u64, bytes: usize) -> SendRequest {
    SendRequest { agent: sender.clone(), to: receiver.clone(), body: body(number, bytes).into(), ..Default::default() }
}

/// Name of a pair's sending agent.
pub(crate) fn sender(pair: usize) -> String {
    format!("sender-{pair}")
}

/// Name of a pair's receiving agent.
pub(crate) fn receiver(pair: usize) -> String {
    format!("receiver-{pair}")
}

/// Makes agents that are not there yet.
pub(crate) async fn register(node: &Node, agents: &[String]) {
    let mut client = node.client().await;
    for agent in agents {
        let request = RegisterRequest { agent: agent.clone(), ..Default::default() };
        client.sessions.register(request).await.unwrap();
    }
}

/// Waits until a node has the keys of these agents of its account.
pub(crate) async fn know(node: &Node, agents: &[String]) {
    let mut client = node.client().await;
    let mut missing: HashSet<String> = agents.iter().map(|agent| format!("/w/acme/u/bench/{agent}")).collect();
    while !missing.is_empty() {
        let before = missing.len();
        let mut request = ListPeersRequest { page_size: 1_000, ..Default::default() };
        loop {
            let page = client.host.list_peers(request.clone()).await.unwrap().into_inner();
            for peer in page.peers.iter().filter(|peer| !peer.fingerprint.is_empty()) {
                missing.remove(&peer.slug);
            }
            if page.next_page_token.is_empty() {
                break;
            }
            request.page_token = page.next_page_token;
        }
        if missing.len() == before {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }
}
