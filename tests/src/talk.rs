//! Agents that talk: registering, sending, reading an inbox.

use std::cmp::Reverse;

use murmur_proto::node::v1::{ListInboxRequest, Message, RegisterRequest, SendRequest, SendResponse};

use crate::{
    network::{Network, Node, Options},
    wait,
};

/// The slug of the agent on the first of two nodes.
pub const ALICE: &str = "/w/acme/u/jdoe/alice";
/// The slug of the agent on the second.
pub const BOB: &str = "/w/acme/u/jdoe/bob";

/// Two nodes with alice on the first and bob on the second, known to each other.
///
/// # Panics
/// When something does not start.
pub async fn alice_and_bob(options: Options) -> (Network, Node, Node) {
    let network = Network::start_with(options).await;
    let (here, there) = (network.node("here", "jdoe").await, network.node("there", "jdoe").await);
    introduce(&here, &there).await;
    (network, here, there)
}

/// Registers alice on the first node and bob on the second, and waits until each knows the other.
///
/// # Panics
/// When a node refuses.
pub async fn introduce(here: &Node, there: &Node) {
    register(here, "alice").await;
    register(there, "bob").await;
    here.knows(BOB).await;
    there.knows(ALICE).await;
}

/// Registers an agent on a node.
///
/// # Panics
/// When the node refuses.
pub async fn register(node: &Node, agent: &str) {
    let request = RegisterRequest { agent: agent.into(), ..Default::default() };
    node.client().await.sessions.register(request).await.unwrap();
}

/// Sends a text.
///
/// # Panics
/// When the node refuses.
pub async fn send(node: &Node, from: &str, to: &str, text: &str) -> SendResponse {
    let request = SendRequest { agent: from.into(), to: to.into(), body: text.to_owned().into(), ..Default::default() };
    node.client().await.messages.send(request).await.unwrap().into_inner()
}

/// Everything in an agent's inbox, read or not, oldest first; nothing is marked. `None` while the node does not answer.
pub async fn inbox(node: &Node, agent: &str) -> Option<Vec<Message>> {
    let channel = murmur_proto::client::connect_socket(&node.socket).await.ok()?;
    let mut client = murmur_proto::client::NodeClient::new(channel, murmur_proto::client::Headers::new());
    let (mut messages, mut after) = (Vec::new(), 0);
    loop {
        let request =
            ListInboxRequest { agent: agent.into(), after, limit: 1000, peek: true, all: true, ..Default::default() };
        let page = client.messages.list_inbox(request).await.ok()?.into_inner();
        messages.extend(page.messages);
        if page.next_after == 0 {
            return Some(messages);
        }
        after = page.next_after;
    }
}

/// The texts in an agent's inbox, in the order of their sending: by sequence, which is one sender's.
pub async fn texts(node: &Node, agent: &str) -> Option<Vec<String>> {
    let text = |message: Message| String::from_utf8_lossy(&message.body).into_owned();
    let mut messages = inbox(node, agent).await?;
    messages.sort_by_key(|message| message.sequence);
    Some(messages.into_iter().map(text).collect())
}

/// Waits until an agent's inbox holds exactly these texts, in this order.
///
/// # Panics
/// When it never does, or holds too many.
pub async fn until_texts(node: &Node, agent: &str, wanted: &[&str]) {
    wait::until("the inbox holds what was sent", || async {
        let found = texts(node, agent).await?;
        assert!(found.len() <= wanted.len(), "{agent} has more than was sent: {found:?}, wanted {wanted:?}");
        (found == wanted).then_some(())
    })
    .await;
}

/// Waits until all of a node's deliveries have ended, however many there are.
pub async fn until_empty(node: &Node) {
    wait::step_by_step("the outbox is empty", || async {
        let open = node.status().await.map(|status| status.outbox.values().sum::<u64>());
        if open == Some(0) { Ok(()) } else { Err(open.map(Reverse)) }
    })
    .await;
}
