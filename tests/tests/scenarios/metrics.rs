//! What an operator's dashboard reads.

use std::fs;

use murmur_tests::{
    network::{Network, Node},
    wait,
};
use serde_json::json;

#[tokio::test]
async fn both_parts_count_what_they_do() {
    let network = Network::start().await;
    let node = network.node("here", "jdoe").await;
    let mut bob = node.shim("bob").await;
    bob.ok("register", json!({})).await;
    let alice = node.shim("alice").await;
    alice.ok("send", json!({"to": "bob", "text": "count me"})).await;
    bob.push().await;

    wait::until("the node counted one message each way", || async {
        let text = get(&node_metrics(&node)).await?;
        let counted = |direction| {
            let name = format!("murmur_local_messages_total{{direction=\"{direction}\"}} 1");
            text.lines().any(|line| line == name)
        };
        (counted("in") && counted("out")).then_some(())
    })
    .await;
    let text = get(&format!("{}/metrics", network.server_url)).await.expect("the server's metrics");
    assert!(text.contains("murmur.v1.NodeService/EnrollNode"), "{text}");
    let health = get(&format!("{}/healthz", network.server_url)).await;
    assert_eq!(health.as_deref().map(str::trim), Some("ok"));
}

pub(crate) fn node_metrics(node: &Node) -> String {
    let address = fs::read_to_string(node.dir.join("metrics.addr")).unwrap();
    format!("http://{}/metrics", address.trim())
}

/// What a node has counted under a name; `None` while it tells no metrics.
pub(crate) async fn counted(node: &Node, name: &str) -> Option<u64> {
    let text = get(&node_metrics(node)).await?;
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name} in {text}"));
    Some(line.rsplit(' ').next().unwrap().parse().unwrap())
}

/// A plain HTTP/1.1 GET; `None` unless it answers 200.
pub(crate) async fn get(url: &str) -> Option<String> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let rest = url.strip_prefix("http://")?;
    let (address, path) = rest.split_once('/')?;
    let mut stream = tokio::net::TcpStream::connect(address).await.ok()?;
    let request = format!("GET /{path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.starts_with("HTTP/1.1 200").then(|| body.to_owned())
}
