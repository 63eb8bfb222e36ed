//! Following agents: a tree that changes, output that comes, a wait that shows signs of life and can be given up.

use std::{process::Stdio, time::Duration};

use murmur_tests::{
    network::{Network, Node},
    process::binary,
    wait::{self, PATIENCE},
    web,
};
use rmcp::{
    model::{CallToolRequest, CallToolRequestParams, ClientRequest},
    service::PeerRequestOptions,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

/// A `murmurctl` that goes on, and what it prints.
struct Following {
    lines: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

impl Following {
    fn start(node: &Node, args: &[&str]) -> Self {
        let mut command = Command::new(binary("murmurctl"));
        command.args(args).env_clear().env("HOME", &node.dir).env("MURMUR_NODE_SOCKET", &node.socket);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { lines, _child: child }
    }

    async fn until(&mut self, what: &str, fits: impl Fn(&str) -> bool) -> String {
        loop {
            let line =
                timeout(PATIENCE, self.lines.next_line()).await.unwrap_or_else(|_| panic!("never printed: {what}"));
            let line = line.unwrap().unwrap_or_else(|| panic!("it ended before it printed: {what}"));
            if fits(&line) {
                return line;
            }
        }
    }

    async fn next(&mut self, what: &str) -> String {
        self.until(what, |_| true).await
    }

    /// A line that is there, or is there soon.
    async fn at_once(&mut self) -> Option<String> {
        timeout(Duration::from_secs(1), self.lines.next_line()).await.ok()?.unwrap()
    }

    async fn until_phase(&mut self, slug: &str, phase: &str) {
        self.until(&format!("{slug} is {phase}"), |line| {
            let agent: Value = serde_json::from_str(line).unwrap();
            agent["slug"] == slug && agent["phase"] == phase
        })
        .await;
    }
}

#[tokio::test]
async fn a_watched_tree_tells_every_change_until_the_end() {
    let network = Network::start().await;
    let here = network.host("here", "jdoe").await;
    here.ctl_json(None, &["spawn", "first", "hello", "--backend", "echo", "--on-idle", "keep_alive"]).await;
    let mut watch = Following::start(&here, &["ls", "--watch", "--json"]);
    watch.until("what is there already", |line| line.contains("/w/acme/u/jdoe/first")).await;
    here.ctl_json(None, &["spawn", "second", "hello", "--backend", "echo", "--on-idle", "keep_alive"]).await;
    watch.until_phase("/w/acme/u/jdoe/second", "starting").await;
    here.ctl_json(None, &["kill", "second"]).await;
    watch.until_phase("/w/acme/u/jdoe/second", "canceled").await;
}

#[tokio::test]
async fn logs_show_what_was_kept_and_what_comes() {
    let network = Network::start().await;
    let (here, there) = (network.host("here", "jdoe").await, network.host("there", "jdoe").await);
    let spawn = ["spawn", "talker", "hello", "--backend", "echo", "--node", "there", "--on-idle", "keep_alive"];
    here.ctl_json(None, &spawn).await;
    assert!(here.ctl(None, &["wait", "talker", "--timeout", "1m"]).await.status.success());
    let kept = here.ctl(None, &["logs", "talker"]).await;
    let said = String::from_utf8_lossy(&kept.stdout).into_owned();
    assert_eq!(said.trim(), "heard: hello", "{}", String::from_utf8_lossy(&kept.stderr));
    let mut following = Following::start(&here, &["logs", "talker", "--follow"]);
    following.until("what was kept", |line| line == "heard: hello").await;
    there.ctl_json(None, &["queue", "add", "talker", "more"]).await;
    following.until("what comes", |line| line.contains("more")).await;
}

#[tokio::test]
async fn what_is_followed_goes_on_over_restarts_and_shows_nothing_twice() {
    let mut network = Network::start().await;
    let mut here = network.host("here", "jdoe").await;
    here.ctl_json(None, &["spawn", "talker", "hello", "--backend", "echo", "--on-idle", "keep_alive"]).await;
    here.ctl_json(None, &["wait", "talker", "--timeout", "1m"]).await;
    here.ctl_json(None, &["register", "bob"]).await;
    let mut logs = Following::start(&here, &["logs", "talker", "--follow"]);
    logs.until("what was kept", |line| line == "heard: hello").await;
    let mut tree = Following::start(&here, &["ls", "--watch", "--json"]);
    tree.until("what is there already", |line| line.contains("/w/acme/u/jdoe/talker")).await;
    here.ctl_json(None, &["send", "bob", "before", "--agent", "alice"]).await;
    let mut tail = Following::start(&here, &["tail", "--agent", "bob", "--backlog", "1"]);
    tail.until("what went by before", |line| line.contains("before")).await;
    let mut reply = Following::start(&here, &["request", "bob", "what is it?", "--agent", "alice"]);
    let here_is = &here;
    let asked = wait::until("bob is asked", || async {
        let inbox = here_is.ctl_json(None, &["inbox", "--agent", "bob", "--peek"]).await;
        let messages = inbox["messages"].as_array().unwrap().clone();
        messages.into_iter().find(|message| message["kind"] == "request")
    })
    .await;

    network.server.kill_9();
    here.process.kill_9();
    network.server.start();
    network.ready().await;
    here.process.start();
    here.ready().await;
    let answer = ["send", "alice", "42", "--agent", "bob", "--in-reply-to", asked["msg_id"].as_str().unwrap()];
    here.ctl_json(None, &answer).await;
    assert_eq!(reply.next("the reply").await, "42");
    here.ctl_json(None, &["queue", "add", "talker", "more"]).await;
    assert_eq!(logs.next("what comes").await, "heard: more", "what was shown is not shown again");
    here.ctl_json(None, &["kill", "talker"]).await;
    tree.until_phase("/w/acme/u/jdoe/talker", "canceled").await;
    // The tail is there again at a time of its own, and shows nothing of before.
    let (tail, here) = (&tokio::sync::Mutex::new(tail), &here);
    wait::until("the tail is there again", || async {
        here.ctl_json(None, &["send", "bob", "after", "--agent", "alice"]).await;
        tail.lock().await.at_once().await.filter(|line| line.contains("after"))
    })
    .await;
}

#[tokio::test]
async fn a_queue_is_shown_and_cleared_and_the_turn_goes_on() {
    let network = Network::start().await;
    let here = network.host("here", "jdoe").await;
    here.ctl_json(None, &["spawn", "slow", "exec sleep 3600", "--on-idle", "keep_alive"]).await;
    here.until_phase("slow", "running").await;
    for text in ["first", "second"] {
        here.ctl_json(None, &["queue", "add", "slow", text]).await;
    }
    let queued = here.ctl_json(None, &["queue", "ls", "slow"]).await;
    let waiting: Vec<_> =
        queued["follow_ups"].as_array().unwrap().iter().map(|one| one["description"].clone()).collect();
    assert_eq!(waiting, ["first", "second"], "{queued}");
    assert_eq!(here.ctl_json(None, &["queue", "clear", "slow"]).await["cleared"], 2);
    assert_eq!(here.ctl_json(None, &["status", "slow"]).await["phase"], "running");
    let shown = here.ctl(None, &["queue", "add", "slow", "third"]).await;
    assert!(String::from_utf8_lossy(&shown.stdout).starts_with("queued for "), "{shown:?}");
}

#[tokio::test]
async fn a_long_wait_over_mcp_shows_signs_of_life_and_can_be_cancelled() {
    let network = Network::start().await;
    let here = network.host("here", "jdoe").await;
    let mut lead = here.shim("lead").await;
    let spawn = json!({"slug": "slow", "description": "exec sleep 3600", "backend": "bash", "on_idle": "keep_alive"});
    lead.ok("spawn", spawn).await;
    let arguments = json!({"slug": "slow", "timeout_s": 3600}).as_object().unwrap().clone();
    let call = CallToolRequest::new(CallToolRequestParams::new("wait").with_arguments(arguments));
    let options = PeerRequestOptions::no_options();
    let asked = lead.client().send_cancellable_request(ClientRequest::CallToolRequest(call), options).await.unwrap();
    let told = lead.progress().await;
    assert!(
        told.message.is_some_and(|message| message.contains("waiting for slow")),
        "a client gives up on a silent call"
    );
    assert_eq!(told.total, Some(3600.0));
    asked.cancel(Some("enough".to_owned())).await.unwrap();
    // The session goes on, and the agent never noticed.
    assert_eq!(lead.ok("status", json!({"slug": "slow"})).await["phase"], "running");
}

#[tokio::test]
async fn a_wait_goes_on_through_a_restart_of_the_control_plane() {
    let mut network = Network::start().await;
    let here = network.host("here", "jdoe").await;
    let gate = network.dir.path().join("gate");
    nix::unistd::mkfifo(&gate, nix::sys::stat::Mode::S_IRWXU).unwrap();
    here.ctl_json(None, &["spawn", "slow", &format!("read x < {}; echo it heard $x", gate.display())]).await;
    here.until_phase("slow", "running").await;
    let mut waiting = Following::start(&here, &["wait", "slow", "--response"]);
    let waits = async |network: &Network| {
        wait::until("the control plane has the wait", || async {
            let text = web::get(&format!("{}/metrics", network.server_url)).await.body;
            let counted = "murmur_server_rpc_calls_total{method=\"murmur.v1.AgentService/WaitAgent\",code=\"OK\"} 1";
            text.contains(counted).then_some(())
        })
        .await;
    };
    waits(&network).await;
    network.server.kill_9();
    network.server.start();
    network.ready().await;
    // It asks again by itself.
    waits(&network).await;
    let go = gate.clone();
    tokio::task::spawn_blocking(move || std::fs::write(go, "well\n").unwrap()).await.unwrap();
    waiting.until("the answer", |line| line == "it heard well").await;
}
