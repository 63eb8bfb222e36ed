//! The program itself: flags in, files out, signals.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Output, Stdio},
};

const BINARY: &str = env!("CARGO_BIN_EXE_murmur-server");

/// Runs to the end.
pub(crate) fn output(args: &[&str]) -> Output {
    Command::new(BINARY).args(args).output().unwrap()
}

/// Starts and returns once it listens.
fn serve(data_dir: &Path) -> Child {
    let mut child = Command::new(BINARY)
        .args(["run", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(data_dir)
        .env("MURMUR_LOG", "info")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    let listens = log.any(|line| line.unwrap().contains("control plane listens on 127.0.0.1:"));
    assert!(listens, "it ended without listening");
    std::thread::spawn(move || log.count());
    child
}

#[test]
fn it_says_where_it_listens_and_ends_on_sigterm() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let mut child = serve(dir.path());
        let address = std::fs::read_to_string(dir.path().join("server.addr")).unwrap();
        std::net::TcpStream::connect(address).unwrap();
        let sent = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        assert!(child.wait().unwrap().success());
    }
}

#[test]
fn a_wrong_setting_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().display().to_string();
    let refused = output(&["run", "--data-dir", &data, "--listen", "0.0.0.0:0"]);
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && said.contains("listen: must be a loopback address"), "{said}");
}

#[test]
fn what_is_set_for_the_command_line_is_none_of_its_settings() {
    let dir = tempfile::tempdir().unwrap();
    let mut run = Command::new(BINARY);
    run.args(["run", "--listen", "0.0.0.0:0", "--data-dir"]).arg(dir.path());
    run.env("MURMUR_SERVER_URL", "https://murmur.example.org").env("MURMUR_SERVER_CA", "/ca.pem");
    let said = String::from_utf8(run.output().unwrap().stderr).unwrap();
    assert!(said.contains("listen: must be a loopback address"), "its own settings are what is wrong: {said}");
}

#[test]
fn a_broker_directory_is_prepared_again_and_again() {
    let dir = tempfile::tempdir().unwrap();
    let broker = dir.path().join("broker").display().to_string();
    let mut keys = Vec::new();
    for _ in 0..2 {
        let done = output(&["broker-init", "--dir", &broker, "--listen", "127.0.0.1:0"]);
        let layout: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
        assert!(Path::new(layout["config"].as_str().unwrap()).exists());
        keys.push(std::fs::read(Path::new(layout["keys"].as_str().unwrap()).join("operator.seed")).unwrap());
    }
    assert_eq!(keys[0], keys[1]);
}
