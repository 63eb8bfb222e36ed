//! The broker and the control plane never hold what agents say to each other.

use std::fs;

use murmur_proto::node::v1::DeliveryState;
use murmur_tests::network::Network;
use serde_json::json;

use crate::{delivery::until_delivery, message::until_known};

const CANARY: &str = "canary-3f9c1e-the-plaintext-of-a-message";

#[tokio::test]
async fn plaintext_is_in_no_broker_file_no_control_plane_file_and_no_log() {
    let network = Network::start().await;
    let (here, there) = (network.node("here", "jdoe").await, network.node("there", "jdoe").await);
    let mut bob = there.shim("bob").await;
    bob.ok("register", json!({})).await;
    let alice = here.shim("alice").await;
    until_known(&alice, "/w/acme/u/jdoe/bob").await;
    alice.ok("send", json!({"to": "bob", "text": CANARY})).await;
    assert!(bob.push().await["content"].as_str().unwrap().contains(CANARY));
    // A message that waits in the broker's files, too.
    drop(there);
    let waiting = alice.ok("send", json!({"to": "bob", "text": CANARY})).await;
    until_delivery(&here, waiting["msg_id"].as_str().unwrap(), DeliveryState::Stored).await;

    for part in ["broker/", "server/", "logs/"] {
        let files = network.files(part);
        assert!(!files.is_empty(), "no files under {part}");
        let holding: Vec<_> = files.into_iter().filter(|path| holds(path)).collect();
        assert!(holding.is_empty(), "the plaintext is in {holding:?}");
    }
    let stores = network.files("nodes/there");
    assert!(stores.iter().any(|path| holds(path)), "the search itself must be able to find it");
}

fn holds(path: &std::path::Path) -> bool {
    let bytes = fs::read(path).unwrap_or_default();
    let forms = [CANARY.to_owned(), hex::encode(CANARY)];
    forms.iter().any(|form| bytes.windows(form.len()).any(|window| window == form.as_bytes()))
}
