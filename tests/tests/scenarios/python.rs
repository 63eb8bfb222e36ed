//! Another language, over the shipped contract: the script of the guide, run as a user would run it.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use murmur_tests::network::Network;
use serde_json::json;

#[tokio::test]
async fn a_python_script_lists_peers_and_sends_a_message_through_its_node() {
    let network = Network::start().await;
    let node = network.node("here", "jdoe").await;
    let mut bob = node.shim("bob").await;
    bob.ok("register", json!({})).await;

    let output = run_script(&node.socket, "bob").await;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{printed}{}", String::from_utf8_lossy(&output.stderr));
    assert!(printed.contains("/w/acme/u/jdoe/bob  online  verified"), "{printed}");
    let push = bob.push().await;
    assert_eq!(push["meta"]["from"], "/w/acme/u/jdoe/script");
    assert!(push["content"].as_str().unwrap().contains("hello from Python"));

    let refused = run_script(&node.socket, "nobody").await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).starts_with("NOT_FOUND: "));
}

async fn run_script(socket: &Path, to: &str) -> Output {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut command = Command::new("sh");
    command.arg(root.join("deploy/tool.sh")).arg("python").arg(root.join("docs/guide/python/send.py"));
    command.args(["--agent", "script", "--to", to, "--socket"]).arg(socket).arg("hello from Python");
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}
