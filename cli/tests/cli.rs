//! The built binary without any network: usage, exit codes, help, and errors in both forms.

#![expect(clippy::unwrap_used, reason = "the helpers of these tests may fail only by failing the test")]

use std::{
    fs::{self, Permissions},
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

/// A home of its own for every test, so that no real network is found.
struct Home(TempDir);

/// What one run ended with.
struct Run {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_murmurctl"));
        command.args(args).env_clear().env("HOME", self.path()).env("PATH", "/usr/bin:/bin").env("COLUMNS", "100");
        command
    }

    fn run(&self, args: &[&str]) -> Run {
        self.command(args).stdin(Stdio::null()).output().unwrap().into()
    }
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code().unwrap(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

/// Compares with a file beside this test; `UPDATE_GOLDEN=1` writes it.
fn golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, text).unwrap();
    }
    let wanted = fs::read_to_string(&path).unwrap();
    assert_eq!(text, wanted, "{} differs; look at it, then run with UPDATE_GOLDEN=1", path.display());
}

#[test]
fn help_is_what_we_agreed_on() {
    let home = Home::new();
    for (name, args) in [
        ("help.txt", &["--help"][..]),
        ("up.txt", &["up", "--help"]),
        ("send.txt", &["send", "--help"]),
        ("node-invite.txt", &["node", "invite", "--help"]),
        ("spawn.txt", &["spawn", "--help"]),
        ("ls.txt", &["ls", "--help"]),
        ("wait.txt", &["wait", "--help"]),
        ("status.txt", &["status", "--help"]),
        ("task-set.txt", &["task", "set", "--help"]),
        ("logs.txt", &["logs", "--help"]),
    ] {
        let run = home.run(args);
        assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{args:?}");
        golden(name, &run.stdout);
    }
}

#[test]
fn a_wrong_command_line_is_exit_code_2() {
    let home = Home::new();
    for args in [
        &["nonsense"][..],
        &["send"],
        &["send", "bob", "hi", "--ttl", "5"],
        &["send", "bob", "hi", "--ttl", "8d"],
        &["send", "bob", "hi", "--timeout", "5s"],
        &["inbox", "--limit", "0"],
        &["token", "issue"],
        &["token", "issue", "--scope", "everything"],
        &["register", "a", "--agent", "b"],
        &["up", "--workspace", "no/slash"],
        &["workspace", "show"],
        &["spawn"],
        &["spawn", "a", "x", "--env", "novalue"],
        &["spawn", "a", "x", "--env", "=x"],
        &["spawn", "a", "x", "--repo", "#main"],
        &["spawn", "a", "x", "--budget-cost", "-1"],
        &["spawn", "a", "x", "--budget-turns", "0"],
        &["spawn", "a", "x", "--on-idle", "vanish"],
        &["spawn", "a", "x", "--timeout", "5s"],
        &["spawn", "a", "x", "--resurrect", "--force-new"],
        &["spawn", "a", "--each", "-"],
        &["spawn", "a", "x", "--agent", "b", "--server", "http://127.0.0.1:1"],
        &["wait"],
        &["wait", "a", "--phase", "done"],
        &["wait", "a", "--timeout", "2h"],
        &["ls", "--phase", "done"],
        &["ls", "--limit", "0"],
        &["queue", "add"],
        &["task", "add"],
        &["task", "add", "x", "--activate-when", "files_modified"],
        &["task", "add", "x", "--pattern", "*"],
        &["task", "set", "1", "--status", "done"],
        &["kill"],
        &["logs"],
    ] {
        let run = home.run(args);
        assert_eq!(run.code, 2, "{args:?}: {}", run.stderr);
        assert!(run.stdout.is_empty() && !run.stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn no_node_is_exit_code_5_and_says_what_to_do() {
    let home = Home::new();
    for args in [
        &["peers"][..],
        &["inbox"],
        &["send", "bob", "hi"],
        &["register", "bob"],
        &["tail"],
        &["verify", "bob"],
        &["spawn", "a", "x"],
        &["ls"],
        &["ls", "--watch"],
        &["status", "a"],
        &["wait", "a"],
        &["kill", "a"],
        &["interrupt", "a"],
        &["queue", "add", "a", "x"],
        &["queue", "ls", "a"],
        &["queue", "clear", "a"],
        &["task", "add", "x", "--for", "a"],
        &["task", "ls"],
        &["task", "show", "1"],
        &["task", "set", "1", "--status", "in-progress"],
        &["logs", "a"],
    ] {
        let run = home.run(args);
        assert_eq!(run.code, 5, "{args:?}: {}", run.stderr);
        assert!(run.stderr.contains("the socket does not exist"), "{args:?}: {}", run.stderr);
        assert!(run.stderr.contains("→ Start a network with `murmurctl up`"), "{args:?}: {}", run.stderr);
    }
}

#[test]
fn a_dead_socket_is_told_from_a_missing_one() {
    let home = Home::new();
    let socket = home.path().join("node.sock");
    // A listener that is gone leaves its file.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let run = home.run(&["peers", "--socket", socket.to_str().unwrap()]);
    assert_eq!(run.code, 5);
    assert!(run.stderr.contains("the node is not running"), "{}", run.stderr);
}

#[test]
fn a_socket_path_that_no_kernel_takes_is_exit_code_2() {
    let run = Home::new().run(&["peers", "--socket", &format!("/{}", "x".repeat(107))]);
    assert_eq!(run.code, 2);
    assert!(run.stderr.contains("at most 107"), "{}", run.stderr);
}

#[test]
fn errors_for_programs_are_json() {
    let home = Home::new();
    let error =
        |args: &[&str]| -> Value { serde_json::from_str::<Value>(&home.run(args).stderr).unwrap()["error"].take() };
    let down = error(&["peers", "--json"]);
    assert_eq!((&down["exit"], &down["reason"]), (&5.into(), &"NODE_DOWN".into()));
    assert!(down["hint"].as_str().unwrap().contains("murmurctl up"));
    let usage = error(&["send", "--json"]);
    assert_eq!(usage["exit"], 2);
    assert!(usage["message"].as_str().unwrap().contains("required arguments"), "{usage}");
}

#[test]
fn a_damaged_token_file_is_exit_code_4_before_anybody_is_asked() {
    let home = Home::new();
    let file = home.path().join("token");
    fs::write(&file, "mmt_user_123").unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    let run = home.run(&["token", "whoami", "--server", "http://127.0.0.1:1", "--token-file", file.to_str().unwrap()]);
    assert_eq!(run.code, 4, "{}", run.stderr);
    assert!(run.stderr.contains("holds no token"), "{}", run.stderr);
    assert!(!run.stderr.contains("mmt_user_123"), "a token is never repeated");
}

#[test]
fn a_local_secret_never_goes_to_another_server() {
    let home = Home::new();
    let run = home.run(&["token", "whoami", "--server", "http://127.0.0.1:1"]);
    assert_eq!(run.code, 4, "{}", run.stderr);
    assert!(run.stderr.contains("there is no token for this control plane"), "{}", run.stderr);
}

#[test]
fn what_is_too_long_is_refused_before_it_is_sent() {
    let home = Home::new();
    let mut child = home
        .command(&["send", "bob", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The reader stops at the limit, so the pipe may break.
    drop(child.stdin.take().unwrap().write_all(&vec![b'x'; 196_610]));
    let run: Run = child.wait_with_output().unwrap().into();
    assert_eq!(run.code, 2, "{}", run.stderr);
    assert!(run.stderr.contains("longer than 196608 bytes"), "{}", run.stderr);
}

#[test]
fn down_and_status_without_a_network_do_no_harm() {
    let home = Home::new();
    let down = home.run(&["down"]);
    assert_eq!(down.code, 0, "{}", down.stderr);
    assert!(down.stdout.starts_with("nothing was running"), "{}", down.stdout);
    assert_eq!(home.run(&["status"]).code, 5);
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0, "nothing was made");
}

#[test]
fn completions_name_the_commands() {
    let run = Home::new().run(&["completions", "bash"]);
    assert_eq!(run.code, 0);
    assert!(run.stdout.contains("murmurctl") && run.stdout.contains("deregister"));
    // What a word may be is completed, too.
    assert!(run.stdout.contains("task-complete") && run.stdout.contains("keep_alive"), "{}", run.stdout);
}

#[test]
fn a_word_is_taken_in_any_spelling() {
    let home = Home::new();
    for phase in ["task-complete", "TASK_COMPLETE", "PHASE_TASK_COMPLETE"] {
        let run = home.run(&["ls", "--phase", phase]);
        assert_eq!(run.code, 5, "{phase} is understood, and nobody answers: {}", run.stderr);
    }
    let run = home.run(&["ls", "--phase", "done"]);
    assert!(run.stderr.contains("task-complete"), "{}", run.stderr);
}

#[test]
fn a_file_of_each_must_have_lines() {
    let home = Home::new();
    let file = home.path().join("each");
    fs::write(&file, "\n  \n").unwrap();
    let run = home.run(&["spawn", "w-{}", "do {}", "--each", file.to_str().unwrap()]);
    assert_eq!(run.code, 2, "{}", run.stderr);
    assert!(run.stderr.contains("has no lines"), "{}", run.stderr);
    let missing = home.run(&["spawn", "w-{}", "do {}", "--each", "/nonexistent"]);
    assert_eq!(missing.code, 1, "{}", missing.stderr);
    assert!(missing.stderr.contains("/nonexistent"), "{}", missing.stderr);
}

#[test]
fn a_wrong_address_or_authority_is_named_and_no_token_goes_out_in_clear() {
    let home = Home::new();
    let no_pem = home.path().join("ca");
    fs::write(&no_pem, "no certificate").unwrap();
    let no_pem = no_pem.to_str().unwrap();
    let whoami = ["token", "whoami", "--token-file", "t"];
    for (option, args, rule) in [
        ("--server", &["--server", "http://192.0.2.2:18999"][..], "https://"),
        ("--server", &["--server", "http://murmur.example.org"], "https://"),
        ("--server", &["--server", "garbage"], "http://HOST:PORT"),
        ("--server", &["--server", "127.0.0.1:7700"], "http://HOST:PORT"),
        ("--server", &["--server", "ftp://127.0.0.1"], "http://HOST:PORT"),
        ("--ca", &["--server", "https://127.0.0.1:1", "--ca", no_pem], "a PEM file"),
        ("--ca", &["--server", "https://127.0.0.1:1", "--ca", "/nonexistent"], "a PEM file"),
    ] {
        let run = home.run(&[&whoami[..], args].concat());
        assert_eq!(run.code, 2, "{args:?}: {}", run.stderr);
        assert!(run.stderr.contains(&format!("error: {option}: must")) && run.stderr.contains(rule), "{}", run.stderr);
    }
}
