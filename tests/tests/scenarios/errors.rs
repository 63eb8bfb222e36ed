//! Trouble says what happened and what to do, at every surface.

use murmur_core::reason::Reason;
use murmur_proto::{
    client::{ControlClient, Headers, NodeClient, connect_server, connect_socket},
    node::v1::{GetVersionRequest, SendRequest},
    status::RpcError,
    v1::WhoAmIRequest,
};
use murmur_tests::{network::Network, shim::Shim};
use serde_json::json;

#[tokio::test]
async fn an_unknown_peer_is_an_error_with_a_way_out() {
    let network = Network::start().await;
    let node = network.node("here", "jdoe").await;
    let alice = node.shim("alice").await;
    let refused = alice.call("send", json!({"to": "nobody", "text": "hello?"})).await;
    assert!(refused.is_error, "a message to nobody is no success");
    assert!(refused.text.contains("nobody"), "{}", refused.text);

    let request = SendRequest { agent: "alice".into(), to: "nobody".into(), ..Default::default() };
    let status = node.client().await.messages.send(request).await.unwrap_err();
    assert_eq!(RpcError::from(&status).reason, Some(Reason::AgentNotFound));
}

#[tokio::test]
async fn a_message_to_oneself_is_refused() {
    let network = Network::start().await;
    let node = network.node("here", "jdoe").await;
    let request = SendRequest { agent: "alice".into(), to: "self".into(), ..Default::default() };
    let status = node.client().await.messages.send(request).await.unwrap_err();
    assert_eq!(RpcError::from(&status).reason, Some(Reason::SelfMessage));
}

#[tokio::test]
async fn a_shim_without_a_node_says_so_and_recovers_when_it_comes() {
    let network = Network::start().await;
    let mut node = network.node("here", "jdoe").await;
    node.process.terminate().await;
    let alice = node.shim("alice").await;
    let refused = alice.call("peers", json!({})).await;
    assert!(refused.is_error);
    assert!(refused.text.contains("murmurctl up"), "{}", refused.text);

    node.process.start();
    node.ready().await;
    alice.ok("peers", json!({})).await;
}

#[tokio::test]
async fn a_stopped_node_is_given_up() {
    use nix::sys::signal::Signal::{SIGCONT, SIGSTOP};
    let network = Network::start().await;
    let node = network.node("here", "jdoe").await;
    let mut client = node.client().await;
    client.host.get_version(GetVersionRequest {}).await.unwrap();
    node.process.signal(SIGSTOP);
    // Its threads stop one after the other, and a call may slip through.
    let silent = loop {
        if let Err(status) = client.host.get_version(GetVersionRequest {}).await {
            break status;
        }
    };
    node.process.signal(SIGCONT);
    assert_eq!(RpcError::from(&silent).reason, None, "no answer, and none of the node's");
    client.host.get_version(GetVersionRequest {}).await.unwrap();
}

#[tokio::test]
async fn a_wrong_socket_is_named() {
    let args = ["--agent", "alice", "--socket", "/nonexistent/murmur.sock"].map(Into::into);
    let alice = Shim::start(args.to_vec(), &[]).await;
    let refused = alice.call("version", json!({})).await;
    assert!(refused.text.contains("/nonexistent/murmur.sock"), "{}", refused.text);
}

#[tokio::test]
async fn wrong_and_missing_tokens_are_told_apart() {
    let network = Network::start().await;
    let channel = connect_server(&network.server_url, None).await.unwrap();
    let mut nobody = ControlClient::new(channel.clone(), Headers::new());
    let missing = nobody.auth.who_am_i(WhoAmIRequest {}).await.unwrap_err();
    assert_eq!(RpcError::from(&missing).reason, Some(Reason::TokenMissing));
    let headers = Headers::new().with_token("mmt_admin_not-a-token").unwrap();
    let wrong = ControlClient::new(channel, headers).auth.who_am_i(WhoAmIRequest {}).await.unwrap_err();
    assert_eq!(RpcError::from(&wrong).reason, Some(Reason::TokenInvalid));
}

#[tokio::test]
async fn a_client_of_another_protocol_is_refused_by_both_doors() {
    let network = Network::start().await;
    let node = network.node("here", "jdoe").await;
    let skewed = Headers::new().with_trace(|metadata| {
        metadata.insert("murmur-protocol", "999".parse().unwrap());
    });
    let socket = connect_socket(&node.socket).await.unwrap();
    let refused = NodeClient::new(socket, skewed.clone()).host.get_version(GetVersionRequest {}).await.unwrap_err();
    assert_eq!(RpcError::from(&refused).reason, Some(Reason::VersionSkew));
    let channel = connect_server(&network.server_url, None).await.unwrap();
    let refused = ControlClient::new(channel, skewed).auth.who_am_i(WhoAmIRequest {}).await.unwrap_err();
    assert_eq!(RpcError::from(&refused).reason, Some(Reason::VersionSkew));
}

#[tokio::test]
async fn a_send_while_the_broker_is_down_is_accepted_and_a_new_name_without_the_control_plane_is_not() {
    let mut network = Network::start().await;
    let node = network.node("here", "jdoe").await;
    let (alice, bob) = (node.shim("alice").await, node.shim("bob").await);
    alice.ok("register", json!({})).await;
    bob.ok("register", json!({})).await;
    network.broker.kill_9();
    let sent = alice.ok("send", json!({"to": "bob", "text": "later"})).await;
    assert_eq!(sent["status"], "queued");

    network.server.kill_9();
    let carol = node.shim("carol").await;
    let refused = carol.call("register", json!({})).await;
    assert!(refused.is_error && refused.text.contains("control plane"), "{}", refused.text);
}

#[tokio::test]
async fn a_wait_ends_in_time_although_the_control_plane_says_nothing() {
    use nix::sys::signal::Signal::{SIGCONT, SIGSTOP};
    let network = Network::start().await;
    let node = network.node("here", "jdoe").await;
    let alice = node.shim("alice").await;
    alice.ok("register", json!({})).await;
    node.shim("bob").await.ok("register", json!({})).await;
    network.server.signal(SIGSTOP);
    let waited = alice.ok("wait", json!({"slug": "bob", "phase": "failed", "timeout_s": 1})).await;
    network.server.signal(SIGCONT);
    assert_eq!((&waited["timed_out"], &waited["matched"]), (&json!(true), &json!(false)), "{waited}");
    assert!(waited["reason"].as_str().unwrap().contains("control plane"), "{waited}");
}
