//! The built shim over pipes, as a client sees it, on a host without a node.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

struct Shim {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    directory: tempfile::TempDir,
}

impl Shim {
    fn start() -> Self {
        Self::start_with(&[])
    }

    fn start_with(environment: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_murmur-mcp"))
            .arg("--socket")
            .arg(directory.path().join("node.sock"))
            .current_dir(directory.path())
            .env_clear()
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdin, stdout, directory }
    }

    /// Started, and past the handshake.
    fn connected() -> Self {
        Self::start().shaken()
    }

    fn shaken(self) -> Self {
        let mut shim = self;
        let answer = shim.ask("initialize", &initialize("2025-11-25"));
        assert_eq!(answer["result"]["protocolVersion"], "2025-11-25");
        shim.write(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
        shim
    }

    fn write(&mut self, message: &Value) {
        writeln!(self.stdin.as_mut().unwrap(), "{message}").unwrap();
    }

    fn ask(&mut self, method: &str, params: &Value) -> Value {
        self.write(&json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}));
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn call(&mut self, tool: &str, arguments: &Value) -> Value {
        self.ask("tools/call", &json!({"name": tool, "arguments": arguments}))["result"].clone()
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    /// Waits for the end and returns how it ended and what was logged.
    fn ended(mut self) -> (ExitStatus, String) {
        let mut log = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        (self.child.wait().unwrap(), log)
    }
}

fn initialize(version: &str) -> Value {
    json!({"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}})
}

fn text(result: &Value) -> &str {
    result["content"][0]["text"].as_str().unwrap()
}

#[test]
fn a_client_is_told_of_the_channel_and_the_tools_without_a_node() {
    let mut shim = Shim::start();
    let server = shim.ask("initialize", &initialize("2025-11-25"))["result"].clone();
    assert_eq!(server["capabilities"]["experimental"], json!({"claude/channel": {}}));
    assert!(server["instructions"].as_str().unwrap().contains("in_reply_to"));
    let tools = shim.ask("tools/list", &json!({}))["result"]["tools"].clone();
    let names: Vec<_> = tools.as_array().unwrap().iter().map(|tool| tool["name"].as_str().unwrap()).collect();
    let (messages, agents) = (
        ["request", "send", "inbox", "peers", "register", "deregister"],
        ["spawn", "wait", "status", "ls", "queue_add", "kill", "task_list", "task_update", "task_create"],
    );
    assert_eq!(names, [&messages[..], &agents, &["upload", "port_url", "version"]].concat());
}

#[test]
fn a_tool_is_offered_and_taken_in_its_profile_alone() {
    let seldom = ["interrupt", "clear_queue", "task_get", "agent_url", "permission_answer", "notify"];
    let mut shim = Shim::connected();
    for tool in seldom {
        let refused = shim.ask("tools/call", &json!({"name": tool, "arguments": {}}));
        assert!(refused["error"]["message"].as_str().unwrap().contains("--profile all has more"), "{refused}");
    }
    let mut shim = Shim::start_with(&[("MURMUR_PROFILE", "all")]).shaken();
    let tools = shim.ask("tools/list", &json!({}))["result"]["tools"].clone();
    let names: Vec<_> = tools.as_array().unwrap().iter().map(|tool| tool["name"].as_str().unwrap()).collect();
    assert_eq!(names.len(), 24);
    for tool in seldom {
        assert!(names.contains(&tool), "{tool}");
        assert_eq!(shim.call(tool, &json!({"slug": "x", "task_id": "1", "subject": "x", "nope": 1}))["isError"], true);
    }
}

#[test]
fn permissions_are_relayed_where_that_is_asked_for_alone() {
    let mut shim = Shim::start_with(&[("MURMUR_RELAY_PERMISSIONS", "true")]);
    let server = shim.ask("initialize", &initialize("2025-11-25"))["result"].clone();
    let expected = json!({"claude/channel": {}, "claude/channel/permission": {}});
    assert_eq!(server["capabilities"]["experimental"], expected);
    let tools = shim.ask("tools/list", &json!({}))["result"]["tools"].clone();
    let answer = tools.as_array().unwrap().iter().find(|tool| tool["name"] == "permission_answer").unwrap();
    assert_eq!(answer["inputSchema"]["properties"]["behavior"]["enum"], json!(["allow", "deny"]));
    let refused = shim.call("permission_answer", &json!({"request_id": "abcde", "behavior": "maybe"}));
    assert!(text(&refused).contains("`behavior`"), "{refused}");
    // Without a node a question is lost to nobody: the client goes on asking its own user.
    let params = json!({"request_id": "abcde", "tool_name": "Bash", "description": "", "input_preview": ""});
    let method = "notifications/claude/channel/permission_request";
    shim.write(&json!({"jsonrpc": "2.0", "method": method, "params": params}));
    shim.write(&json!({"jsonrpc": "2.0", "method": method, "params": {"request_id": 7}}));
    assert_eq!(shim.ask("ping", &json!({}))["result"], json!({}));
}

#[test]
fn booleans_are_booleans_in_the_schema_and_as_arguments() {
    let mut shim = Shim::start_with(&[("MURMUR_PROFILE", "all")]).shaken();
    let tools = shim.ask("tools/list", &json!({}))["result"]["tools"].clone();
    for (name, arguments) in [
        ("spawn", json!({"slug": "a", "description": "x", "resurrect": "true"})),
        ("spawn", json!({"slug": "a", "description": "x", "force_new": "true"})),
        ("ls", json!({"all": "true"})),
        ("status", json!({"children": "true"})),
        ("task_list", json!({"active": "true"})),
    ] {
        let tool = tools.as_array().unwrap().iter().find(|tool| tool["name"] == name).unwrap();
        let (argument, _) = arguments.as_object().unwrap().iter().find(|(_, value)| **value == "true").unwrap();
        assert_eq!(tool["inputSchema"]["properties"][argument]["type"], "boolean", "{name}");
        assert_eq!(tool["inputSchema"]["properties"][argument]["default"], false, "{name}");
        let refused = shim.call(name, &arguments);
        assert!(text(&refused).contains("must be true or false, without quotes"), "{name}: {refused}");
    }
}

#[test]
fn a_probe_for_a_later_protocol_is_refused_at_once_and_the_old_handshake_follows() {
    let mut shim = Shim::start();
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let refused = shim.ask("server/discover", &json!({"_meta": meta}));
    assert_eq!(refused["error"]["code"], -32022, "{refused}");
    let answer = shim.ask("initialize", &initialize("2026-07-28"));
    assert_eq!(answer["result"]["protocolVersion"], "2025-11-25", "{answer}");
}

#[test]
fn a_missing_node_is_an_error_that_says_where_it_was_looked_for_and_what_to_do() {
    let mut shim = Shim::connected();
    let socket = shim.directory.path().join("node.sock").display().to_string();
    for (tool, arguments) in [
        ("send", json!({"to": "bob", "text": "hi"})),
        ("request", json!({"to": "bob", "text": "hi"})),
        ("inbox", json!({})),
        ("peers", json!({})),
        ("register", json!({"name": "alice"})),
        ("deregister", json!({})),
        ("version", json!({})),
        ("spawn", json!({"slug": "worker", "description": "work"})),
        ("wait", json!({"slug": "worker", "timeout_s": 1})),
        ("status", json!({})),
        ("ls", json!({})),
        ("queue_add", json!({"slug": "worker", "description": "more"})),
        ("kill", json!({"slug": "worker"})),
        ("task_list", json!({})),
        ("task_update", json!({"task_id": "1", "status": "completed"})),
    ] {
        let result = shim.call(tool, &arguments);
        assert_eq!(result["isError"], true, "{tool}: {result}");
        let text = text(&result);
        assert!(text.starts_with("NODE_DOWN: ") && text.contains(&socket), "{tool}: {text}");
        assert!(text.contains("murmurctl up"), "{tool}: {text}");
        assert_eq!(result["_meta"]["chars"], text.chars().count());
        assert_eq!(result["_meta"]["reason"], "NODE_DOWN");
    }
}

#[test]
fn a_wrong_call_is_told_to_the_model() {
    let mut shim = Shim::connected();
    let result = shim.call("send", &json!({"recipient": "bob", "text": "hi"}));
    assert_eq!(result["isError"], true);
    let expected = "FIELD_INVALID: there is no argument `recipient`; \
                    valid are `file`, `idempotency_key`, `in_reply_to`, `text`, `to`, `ttl_seconds`.";
    assert!(text(&result).starts_with(expected), "{result}");
    let unaddressed = shim.call("send", &json!({"text": "hi"}));
    assert!(text(&unaddressed).contains("`to` is missing"), "{unaddressed}");
    let unknown = shim.ask("tools/call", &json!({"name": "shout"}));
    assert!(unknown["error"]["message"].as_str().unwrap().contains("there is no tool `shout`"), "{unknown}");
}

#[test]
fn a_signal_ends_it_with_success_although_input_is_open() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let shim = Shim::connected();
        shim.signal(signal);
        let (status, log) = shim.ended();
        assert!(status.success(), "{signal}: {status} {log}");
    }
}

#[test]
fn the_end_of_input_ends_it_quietly_before_and_after_the_handshake() {
    for mut shim in [Shim::start(), Shim::connected()] {
        drop(shim.stdin.take());
        let (status, log) = shim.ended();
        assert!(status.success() && log.is_empty(), "{status} {log}");
    }
}

#[test]
fn what_is_no_request_is_passed_over_before_the_handshake() {
    let mut shim = Shim::start();
    for message in [
        json!({"jsonrpc": "2.0", "method": "notifications/initialized"}),
        json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1, "reason": "timed out"}}),
        json!({"jsonrpc": "2.0", "method": "notifications/of/mine", "params": {"a": 1}}),
        json!({"jsonrpc": "2.0", "id": 9, "result": {}}),
        json!({"jsonrpc": "2.0", "id": 9, "error": {"code": -32603, "message": "no"}}),
    ] {
        shim.write(&message);
    }
    let mut shim = shim.shaken();
    assert_eq!(shim.ask("ping", &json!({}))["result"], json!({}));
    drop(shim.stdin.take());
    let (status, log) = shim.ended();
    assert!(status.success() && log.is_empty(), "{status} {log}");
}

#[test]
fn a_client_that_reads_no_more_ends_it_although_input_is_open() {
    for (shim, method, params) in [
        (Shim::start(), "initialize", initialize("2025-11-25")),
        (Shim::connected(), "tools/call", json!({"name": "version", "arguments": {}})),
        (Shim::connected(), "tools/call", json!({"name": 7})),
    ] {
        let Shim { mut child, mut stdin, stdout, directory: _directory } = shim;
        drop(stdout);
        let call = json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params});
        writeln!(stdin.as_mut().unwrap(), "{call}").unwrap();
        assert!(child.wait().unwrap().success(), "{method}");
    }
}

#[test]
fn calls_in_flight_are_answered_when_input_ends() {
    let mut shim = Shim::connected();
    // One that is answered shows that the handshake is over on its side too, and the next is in flight.
    shim.ask("tools/list", &json!({}));
    shim.write(&json!({"jsonrpc": "2.0", "id": 7, "method": "tools/list", "params": {}}));
    drop(shim.stdin.take());
    let mut rest = String::new();
    shim.stdout.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("\"id\":7"), "{rest}");
}

#[test]
fn no_log_level_shows_a_body() {
    let mut shim = Shim::start_with(&[("MURMUR_LOG", "trace")]).shaken();
    let result = shim.call("send", &json!({"to": "bob", "text": "plainly-secret"}));
    assert_eq!(result["isError"], true);
    shim.signal(Signal::SIGTERM);
    let (_, log) = shim.ended();
    assert!(!log.is_empty() && !log.contains("plainly-secret"), "{log}");
}
