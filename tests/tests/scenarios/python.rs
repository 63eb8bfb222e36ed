//! Another language, over the shipped contract: the script of the guide, run as a user would run it.

use std::{
    ffi::OsStr,
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

#[tokio::test]
async fn both_doors_tell_a_python_client_what_they_serve() {
    let network = Network::start().await;
    let node = network.node("here", "jdoe").await;
    let server = network.server_url.strip_prefix("http://").unwrap().to_owned();
    for (address, service) in [
        (format!("unix:{}", node.socket.display()), "murmur.node.v1.MessageService"),
        (server, "murmur.v1.DirectoryService"),
    ] {
        let output = python("reflect.py", &[address.as_ref()]).await;
        let listed = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(listed.lines().any(|line| line == service), "{listed}{}", String::from_utf8_lossy(&output.stderr));
    }
}

async fn run_script(socket: &Path, to: &str) -> Output {
    let mut arguments = ["--agent", "script", "--to", to, "--socket"].map(OsStr::new).to_vec();
    arguments.extend([socket.as_os_str(), OsStr::new("hello from Python")]);
    python("send.py", &arguments).await
}

/// Runs a script of the guide.
async fn python(script: &str, arguments: &[&OsStr]) -> Output {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut command = Command::new("sh");
    command
        .arg(root.join("deploy/tool.sh"))
        .arg("python")
        .arg(root.join("docs/guide/python").join(script))
        .args(arguments);
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}
