//! Another language, over the shipped contract: the script of the guide, run as a user would run it.

use std::{
    ffi::OsStr,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use murmur_tests::{
    network::{Network, Options},
    talk::{register, until_texts},
};
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
async fn a_python_script_sends_its_input_line_by_line_over_one_stream() {
    // More to one than the rate of a pair lets pass at once.
    let env = [("MURMUR_NODE_PAIR_BURST".to_owned(), "1000".to_owned())].into();
    let network = Network::start_with(Options { env, ..Options::default() }).await;
    let node = network.node("here", "jdoe").await;
    for agent in ["script", "bob"] {
        register(&node, agent).await;
    }
    let lines: Vec<String> = (0..60).map(|number| format!("line {number}")).collect();
    // One is too long, and refused alone.
    let long = "x".repeat(200_000);
    let input = [&lines[..30].join("\n"), &long, &lines[30..].join("\n"), ""].join("\n");
    let arguments = ["--agent", "script", "--to", "bob", "--socket"].map(OsStr::new);
    let output = python_with(input, "send_many.py", &[&arguments[..], &[node.socket.as_os_str()]].concat()).await;
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.starts_with("line 31: INVALID_ARGUMENT: body: "), "{told}");
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), lines.len(), "{told}");
    let wanted: Vec<_> = lines.iter().map(String::as_str).collect();
    until_texts(&node, "bob", &wanted).await;
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
    python_with(String::new(), script, arguments).await
}

async fn python_with(input: String, script: &str, arguments: &[&OsStr]) -> Output {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut command = Command::new("sh");
    command
        .arg(root.join("deploy/tool.sh"))
        .arg("python")
        .arg(root.join("docs/guide/python").join(script))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let run = move || {
        let mut child = command.spawn().unwrap();
        // What it prints is less than a pipe holds.
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    tokio::task::spawn_blocking(run).await.unwrap()
}
