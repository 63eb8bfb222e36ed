//! Two nodes with alice on the first and bob on the second, and what must hold of them at the end.

use std::path::{Path, PathBuf};

use murmur_proto::{
    client::{Headers, NodeClient, connect_socket},
    node::v1::{Delivery, DeliveryState, GetDeliveryRequest, ListInboxRequest, Message, SendRequest, SendResponse},
};
use murmur_tests::{
    network::{Network, Node, Options},
    store,
    talk::{alice_and_bob, inbox},
    wait,
};

/// A rate of a pair that holds nobody back.
pub(crate) const RATE: [(&str, &str); 2] =
    [("MURMUR_NODE_PAIR_RATE_PER_MINUTE", "1000000"), ("MURMUR_NODE_PAIR_BURST", "1000000")];

/// Alice, who sends, and bob, who receives.
pub(crate) struct Pair {
    pub(crate) network: Network,
    pub(crate) here: Node,
    pub(crate) there: Node,
}

/// A message that was accepted.
#[derive(Debug, Clone)]
pub(crate) struct Accepted {
    pub(crate) msg_id: String,
    pub(crate) text: String,
}

impl Pair {
    /// Starts everything with these variables, and waits until the two know each other.
    pub(crate) async fn start(env: &[(&str, &str)]) -> Self {
        let env = env.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let (network, here, there) = alice_and_bob(Options { env, ..Options::default() }).await;
        Self { network, here, there }
    }

    /// Alice writes to bob.
    pub(crate) async fn send(&self, text: &str) -> Accepted {
        let sent = self.here.client().await.messages.send(draft(text)).await.unwrap().into_inner();
        Accepted { msg_id: sent.msg_id, text: text.to_owned() }
    }

    /// How alice's message stands.
    pub(crate) async fn delivery(&self, message: &Accepted) -> Option<Delivery> {
        delivery(&self.here, &message.msg_id).await
    }

    /// Waits until alice's message is in a state.
    pub(crate) async fn until(&self, message: &Accepted, state: DeliveryState) -> Delivery {
        wait::until(&format!("{} is {state:?}", message.text), || async {
            self.delivery(message).await.filter(|delivery| delivery.state == state as i32)
        })
        .await
    }

    /// The promise: each message is in bob's inbox once, in the order of sending, alice knows it, nothing waits anywhere, and nothing
    /// was put aside. Returns what bob was shown, now read.
    pub(crate) async fn settled(&self, accepted: &[Accepted]) -> Vec<Message> {
        wait::until("every message has arrived", || async {
            (inbox(&self.there, "bob").await?.len() >= accepted.len()).then_some(())
        })
        .await;
        for message in accepted {
            wait::until(&format!("alice knows that {} has arrived", message.text), || async {
                let state = self.delivery(message).await?.state;
                [DeliveryState::Delivered as i32, DeliveryState::Read as i32].contains(&state).then_some(())
            })
            .await;
        }
        let shown = read(&self.there, "bob").await;
        for message in accepted {
            self.until(message, DeliveryState::Read).await;
        }
        for node in [&self.here, &self.there] {
            nothing_waits(node).await;
            assert_eq!(store::rows(node, "quarantine"), 0, "{} has quarantined something", node.name);
            assert_eq!(store::rows(node, "dead_letter"), 0, "{} has given something up", node.name);
        }
        let mut rows = inbox(&self.there, "bob").await.unwrap();
        rows.sort_by_key(|message| message.sequence);
        let wanted: Vec<_> = accepted.iter().map(|message| message.text.as_str()).collect();
        assert_eq!(texts(&rows), wanted, "one row each, in the order of sending");
        shown
    }
}

pub(crate) fn draft(text: &str) -> SendRequest {
    SendRequest { agent: "alice".into(), to: "bob".into(), body: text.to_owned().into(), ..Default::default() }
}

pub(crate) fn texts(messages: &[Message]) -> Vec<&str> {
    messages.iter().map(|message| std::str::from_utf8(&message.body).unwrap()).collect()
}

/// Sends as a careful program does: the same key again until it hears that the message was accepted.
pub(crate) async fn send_surely(socket: &Path, draft: SendRequest, key: &str) -> SendResponse {
    wait::until(&format!("the node accepts {key}"), || async {
        let channel = connect_socket(socket).await.ok()?;
        let request = SendRequest { idempotency_key: key.to_owned(), ..draft.clone() };
        Some(NodeClient::new(channel, Headers::new()).messages.send(request).await.ok()?.into_inner())
    })
    .await
}

/// Alice writes `count` messages to bob, one after the other, whatever happens to her node.
pub(crate) async fn send_all(socket: PathBuf, count: usize) -> Vec<Accepted> {
    let mut accepted = Vec::new();
    for number in 0..count {
        let text = format!("message {number}");
        let sent = send_surely(&socket, draft(&text), &text).await;
        accepted.push(Accepted { msg_id: sent.msg_id, text });
    }
    accepted
}

/// Reads what is unread.
pub(crate) async fn read(node: &Node, agent: &str) -> Vec<Message> {
    let request = ListInboxRequest { agent: agent.into(), limit: 1000, ..Default::default() };
    node.client().await.messages.list_inbox(request).await.unwrap().into_inner().messages
}

/// How a message of alice stands; `None` while her node is away.
pub(crate) async fn delivery(node: &Node, msg_id: &str) -> Option<Delivery> {
    let channel = connect_socket(&node.socket).await.ok()?;
    let request = GetDeliveryRequest { agent: "alice".into(), msg_id: msg_id.to_owned() };
    let answer = NodeClient::new(channel, Headers::new()).messages.get_delivery(request).await.ok()?;
    answer.into_inner().deliveries.pop()
}

/// Waits until a node's outboxes, of messages and of acknowledgements, are empty.
pub(crate) async fn nothing_waits(node: &Node) {
    wait::until(&format!("the outboxes of {} are empty", node.name), || async {
        let open = node.status().await?.outbox;
        (open.values().all(|open| *open == 0) && store::rows(node, "ack_outbox") == 0).then_some(())
    })
    .await;
}
