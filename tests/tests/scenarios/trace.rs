//! One trace from the tool call in one session to the notification in the other.

use murmur_proto::node::v1::{SendManyRequest, SendRequest};
use murmur_tests::{
    network::{Network, Options},
    otlp::{Collector, Span},
    talk::{inbox, register},
    wait,
};
use serde_json::json;

use crate::message::until_known;

#[tokio::test]
async fn a_tool_call_and_the_notification_it_causes_are_one_trace() {
    let collector = Collector::start().await;
    let env = collector.env();
    let network = Network::start_with(Options { env: env.clone(), ..Options::default() }).await;
    let (here, there) = (network.node("here", "jdoe").await, network.node("there", "jdoe").await);
    let env: Vec<(&str, &str)> = env.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let mut bob = there.shim_with("bob", &env).await;
    bob.ok("register", json!({})).await;
    let alice = here.shim_with("alice", &env).await;
    until_known(&alice, "/w/acme/u/jdoe/bob").await;

    alice.ok("send", json!({"to": "bob", "text": "traced"})).await;
    bob.push().await;

    let chain = wait::until("every span of the way has arrived", || {
        let chain = chain(&collector.spans());
        async { chain }
    })
    .await;
    let steps: Vec<_> = chain.iter().map(|span| (span.service.as_str(), span.name.as_str())).collect();
    let expected = [
        ("murmur-mcp", "tool.send"),
        ("murmur-node", "murmur.node.v1.MessageService/Send"),
        ("murmur-node", "post.send"),
        ("murmur-node", "post.receive"),
        ("murmur-mcp", "shim.notify"),
    ];
    assert_eq!(steps, expected);
    assert!(chain.iter().all(|span| span.trace_id == chain[0].trace_id));
}

#[tokio::test]
async fn a_message_of_a_stream_carries_the_trace_of_its_send() {
    let collector = Collector::start().await;
    let env = collector.env();
    let network = Network::start_with(Options { env, ..Options::default() }).await;
    let node = network.node("here", "jdoe").await;
    for agent in ["alice", "bob"] {
        register(&node, agent).await;
    }
    let send = SendRequest { agent: "alice".into(), to: "bob".into(), body: "traced".into(), ..Default::default() };
    let requests = futures::stream::iter([SendManyRequest { send: Some(send) }]);
    let mut answers = node.client().await.messages.send_many(requests).await.unwrap().into_inner();
    while answers.message().await.unwrap().is_some() {}
    let message = wait::until("it has arrived", || async { inbox(&node, "bob").await?.pop() }).await;
    let names = ["murmur.node.v1.MessageService/SendMany", "post.send", "post.receive"];
    let [call, sent, received] = wait::until("its spans have arrived", || {
        let spans = collector.spans();
        let found = names.map(|name| spans.iter().find(|span| span.name == name).cloned());
        async { if let [Some(call), Some(sent), Some(received)] = found { Some([call, sent, received]) } else { None } }
    })
    .await;
    assert_eq!((&sent.parent_id, &received.parent_id), (&call.span_id, &sent.span_id));
    assert_eq!(message.traceparent, format!("00-{}-{}-01", call.trace_id, received.span_id));
}

/// The spans from the notification up to the root, root first; `None` while one is missing.
fn chain(spans: &[Span]) -> Option<Vec<Span>> {
    let mut chain = vec![spans.iter().find(|span| span.name == "shim.notify")?.clone()];
    while !chain.last()?.parent_id.is_empty() {
        let parent = &chain.last()?.parent_id;
        chain.push(spans.iter().find(|span| &span.span_id == parent)?.clone());
    }
    chain.reverse();
    Some(chain)
}
