//! The main job: one agent asks another, through every part.

use murmur_tests::network::Network;
use serde_json::json;

#[tokio::test]
async fn a_request_reaches_the_other_session_and_its_reply_comes_back() {
    let network = Network::start().await;
    let (here, there) = (network.node("here", "jdoe").await, network.node("there", "jdoe").await);
    let mut bob = there.shim("bob").await;
    bob.ok("register", json!({"description": "answers"})).await;
    let alice = here.shim("alice").await;
    until_known(&alice, "/w/acme/u/jdoe/bob").await;

    let asked = alice.ok("request", json!({"to": "bob", "text": "what is 6 x 7?"}));
    let answered = async {
        let push = bob.push().await;
        assert_eq!(push["meta"]["kind"], "request");
        assert_eq!(push["meta"]["from"], "/w/acme/u/jdoe/alice");
        assert_eq!(push["meta"]["tier"], "verified");
        assert!(push["content"].as_str().unwrap().contains("what is 6 x 7?"), "{push}");
        let msg_id = push["meta"]["msg_id"].as_str().unwrap().to_owned();
        bob.ok("send", json!({"text": "42", "in_reply_to": msg_id})).await;
    };
    let (result, ()) = tokio::join!(asked, answered);

    assert_eq!(result["status"], "replied", "{result}");
    assert_eq!(result["reply"]["text"], "42");
    assert_eq!(result["reply"]["from"], "/w/acme/u/jdoe/bob");
    let inbox = alice.ok("inbox", json!({})).await;
    assert_eq!(inbox["messages"], json!([]), "a reply that the request returned is not unread as well");
}

#[tokio::test]
async fn two_agents_of_one_node_talk_the_same_way() {
    let network = Network::start().await;
    let node = network.node("here", "jdoe").await;
    let alice = node.shim("alice").await;
    alice.ok("register", json!({})).await;
    let mut bob = node.shim("bob").await;
    bob.ok("register", json!({})).await;

    let sent = alice.ok("send", json!({"to": "bob", "text": "next door"})).await;
    assert_eq!(sent["to"], "/w/acme/u/jdoe/bob");
    assert_eq!(bob.push().await["meta"]["msg_id"], sent["msg_id"]);
    let inbox = bob.ok("inbox", json!({})).await;
    assert_eq!(inbox["messages"][0]["text"], "next door");
    let again = bob.ok("inbox", json!({})).await;
    assert_eq!(again["messages"], json!([]), "read once");
}

#[tokio::test]
async fn a_request_without_an_answer_times_out_as_a_result_and_the_late_reply_is_a_message() {
    let network = Network::start().await;
    let node = network.node("here", "jdoe").await;
    let mut bob = node.shim("bob").await;
    bob.ok("register", json!({})).await;
    let mut alice = node.shim("alice").await;

    let result = alice.ok("request", json!({"to": "bob", "text": "anybody?", "timeout_ms": 50})).await;
    assert_eq!(result["status"], "timeout", "{result}");
    let msg_id = result["msg_id"].as_str().unwrap().to_owned();
    assert_eq!(bob.push().await["meta"]["msg_id"], msg_id.as_str());
    bob.ok("send", json!({"text": "late", "in_reply_to": msg_id})).await;

    let push = alice.push().await;
    assert_eq!(push["meta"]["kind"], "reply");
    assert_eq!(push["meta"]["in_reply_to"], msg_id.as_str());
}

/// Waits until the session's node has heard of a peer and its keys.
pub(crate) async fn until_known(shim: &murmur_tests::shim::Shim, slug: &str) {
    murmur_tests::wait::until("the peer is known", || async {
        let peers = shim.ok("peers", json!({})).await;
        let known =
            peers["peers"].as_array().unwrap().iter().any(|peer| peer["slug"] == slug && peer["fingerprint"] != "");
        known.then_some(())
    })
    .await;
}
