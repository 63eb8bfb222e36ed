//! Neither the broker nor the control plane, no log, no trace and no core dump ever holds what agents say to each other.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use murmur_proto::node::v1::DeliveryState;
use murmur_tests::{
    network::{Network, Options},
    otlp::Collector,
    wait,
};
use serde_json::json;

use crate::{delivery::until_delivery, message::until_known};

const CANARY: &str = "canary-3f9c1e-the-plaintext-of-a-message";

#[tokio::test]
async fn plaintext_is_in_no_broker_file_no_control_plane_file_no_log_and_no_trace() {
    let collector = Collector::start().await;
    let mut env = collector.env();
    // As much as any operator can ask for.
    env.push(("MURMUR_LOG".to_owned(), "trace".to_owned()));
    let network = Network::start_with(Options { env: env.clone(), ..Options::default() }).await;
    let env: Vec<(&str, &str)> = env.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let (here, mut there) = (network.node("here", "jdoe").await, network.node("there", "jdoe").await);
    let mut bob = there.shim_with("bob", &env).await;
    bob.ok("register", json!({})).await;
    let alice = here.shim_with("alice", &env).await;
    until_known(&alice, "/w/acme/u/jdoe/bob").await;
    alice.ok("send", json!({"to": "bob", "text": CANARY})).await;
    assert!(bob.push().await["content"].as_str().unwrap().contains(CANARY));
    // A message that waits in the broker's files, too.
    there.process.kill_9();
    let waiting = alice.ok("send", json!({"to": "bob", "text": CANARY})).await;
    until_delivery(&here, waiting["msg_id"].as_str().unwrap(), DeliveryState::Stored).await;
    wait::until("the traces of both calls have arrived", || async {
        (collector.spans().iter().filter(|span| span.name == "tool.send").count() >= 2).then_some(())
    })
    .await;

    assert_eq!(holding(network.files("broker/")), [""; 0].map(PathBuf::from), "the broker");
    assert_eq!(holding(network.files("server/")), [""; 0].map(PathBuf::from), "the control plane");
    assert_eq!(holding(network.files("logs/")), [""; 0].map(PathBuf::from), "the logs");
    assert!(forms().iter().all(|form| !collector.heard().contains(form.as_str())), "the traces");
    let stores = holding(network.files("nodes/there"));
    assert!(!stores.is_empty(), "the search itself must be able to find it");
}

/// What a debugger of the same user or a core dump would see of a node holds plaintext and keys: release builds, and debug builds that
/// are told to, let neither happen.
#[tokio::test]
async fn a_node_leaves_no_core_dump_and_lets_no_debugger_in() {
    let network = Network::start().await;
    let mut node = network.enrol("here", "jdoe").await;
    node.process.set_env("MURMUR_HARDEN", Some("1"));
    node.process.start();
    network.approve("here").await;
    node.ready().await;
    let proc = Path::new("/proc").join(node.process.pid().to_string());
    let limits = fs::read_to_string(proc.join("limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
    // The kernel gives what belongs to a process that may not be looked at to root.
    let owner = fs::metadata(proc.join("environ")).unwrap().uid();
    assert_eq!(owner, 0, "any process of this user may look into it");
}

/// The files that hold the plaintext. There are some to look at.
fn holding(files: Vec<PathBuf>) -> Vec<PathBuf> {
    assert!(!files.is_empty());
    files.into_iter().filter(|path| holds(path)).collect()
}

fn holds(path: &Path) -> bool {
    let bytes = fs::read(path).unwrap_or_default();
    forms().iter().any(|form| bytes.windows(form.len()).any(|window| window == form.as_bytes()))
}

/// As it is, as hex, and as base64 of any alignment has it.
fn forms() -> Vec<String> {
    vec![CANARY.to_owned(), hex::encode(CANARY)]
}
