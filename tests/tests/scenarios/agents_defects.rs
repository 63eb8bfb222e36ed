//! What a live system of this kind was seen to get wrong, one test each (AGENTS-AND-TOOLS §3).

use std::{fs::OpenOptions, io::Write as _, path::Path, sync::Arc};

use murmur_tests::{
    network::{Network, Node},
    shim::Shim,
    talk::register,
};
use nix::sys::stat::Mode;
use serde_json::json;

/// A script that works until somebody writes into its pipe.
struct Gate(std::path::PathBuf);

impl Gate {
    fn new(network: &Network) -> Self {
        let path = network.dir.path().join("gate");
        nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
        Self(path)
    }

    fn script(&self) -> String {
        format!("cat {} && echo through", self.0.display())
    }

    /// Blocks until the script reads, so that it is known to run.
    async fn open(&self) {
        let path: Arc<Path> = self.0.as_path().into();
        let open = move || OpenOptions::new().write(true).open(path).unwrap().write_all(b"go\n").unwrap();
        tokio::task::spawn_blocking(open).await.unwrap();
    }
}

async fn spawn(node: &Node, slug: &str, script: &str) {
    node.ctl_json(None, &["spawn", slug, script, "--on-idle", "keep_alive"]).await;
}

#[tokio::test]
async fn wait_does_not_return_before_the_phase() {
    let network = Network::start().await;
    let here = network.host("here", "jdoe").await;
    let gate = Gate::new(&network);
    spawn(&here, "worker", &gate.script()).await;
    here.until_phase("worker", "running").await;
    let lead = Arc::new(here.shim("lead").await);
    let asking = Arc::clone(&lead);
    let waiting =
        tokio::spawn(async move { asking.ok("wait", json!({"slug": "/u/jdoe/worker", "timeout_s": 60})).await });
    // By the time this one is over, the other is asked for, too, and a phase that is there already answers at once.
    let late = lead.ok("wait", json!({"slug": "/u/jdoe/worker", "phase": "idle", "timeout_s": 1})).await;
    assert_eq!((&late["timed_out"], &late["matched"]), (&json!(true), &json!(false)), "a timeout is a result: {late}");
    assert_eq!(late["phase"], "running");
    let there = lead.ok("wait", json!({"slug": "/u/jdoe/worker", "phase": "RUNNING", "timeout_s": 60})).await;
    assert_eq!((&there["phase"], &there["matched"]), (&json!("running"), &json!(true)));
    assert!(!waiting.is_finished(), "nothing of what is waited for has happened");
    gate.open().await;
    let waited = waiting.await.unwrap();
    assert_eq!((&waited["matched"], &waited["timed_out"]), (&json!(true), &json!(false)), "{waited}");
    assert_ne!(waited["phase"], "running", "{waited}");
}

#[tokio::test]
async fn wait_during_the_transition_misses_nothing() {
    let network = Network::start().await;
    let here = network.host("here", "jdoe").await;
    let lead = Arc::new(here.shim("lead").await);
    for round in 0..5 {
        let slug = format!("quick-{round}");
        let spawn = json!({"slug": slug, "description": "quick", "backend": "echo", "on_idle": "keep_alive"});
        lead.ok("spawn", spawn).await;
        // Both are asked while it goes from one phase to the next; neither may hang nor lie. The first may come too late to match.
        let (running, done) = tokio::join!(
            lead.ok("wait", json!({"slug": slug, "phase": "running", "timeout_s": 2})),
            lead.ok("wait", json!({"slug": slug, "timeout_s": 60})),
        );
        assert_eq!(done["matched"], true, "{done}");
        // A wait that came after the turn was over has nothing to match; else it matched.
        assert!(running["matched"] == true || running["timed_out"] == true, "{running}");
        lead.ok("kill", json!({"slug": slug})).await;
    }
}

#[tokio::test]
async fn an_update_that_changes_nothing_is_refused_and_one_that_is_reported_happened() {
    let network = Network::start().await;
    let here = network.host("here", "jdoe").await;
    let lead = here.shim_with("lead", &[("MURMUR_PROFILE", "all")]).await;
    let task = lead.ok("task_create", json!({"subject": "look"})).await["task_id"].clone();
    let nothing = lead.call("task_update", json!({"task_id": task})).await;
    assert!(nothing.is_error && nothing.text.starts_with("FIELD_INVALID: "), "{}", nothing.text);
    let changed = lead.ok("task_update", json!({"task_id": task, "status": "completed", "subject": "looked"})).await;
    assert_eq!((&changed["status"], &changed["subject"]), (&json!("completed"), &json!("looked")));
    let stored = lead.ok("task_get", json!({"task_id": task})).await;
    assert_eq!(stored, changed, "what was told is what is stored");
    let unknown = lead.call("task_update", json!({"task_id": "99", "status": "completed"})).await;
    assert!(unknown.is_error && unknown.text.starts_with("TASK_NOT_FOUND: "), "{}", unknown.text);
    // All or nothing: the subject of a refused update is not changed either.
    let half = lead.call("task_update", json!({"task_id": task, "subject": "half", "add_blocked_by": ["99"]})).await;
    assert!(half.is_error, "{}", half.text);
    assert_eq!(lead.ok("task_get", json!({"task_id": task})).await["subject"], "looked");
}

#[tokio::test]
async fn a_message_to_a_slug_that_does_not_exist_does_not_exit_0() {
    let network = Network::start().await;
    let here = network.host("here", "jdoe").await;
    register(&here, "lead").await;
    for args in [
        &["send", "nobody", "hello"][..],
        &["request", "nobody", "hello", "--timeout", "5s"],
        &["queue", "add", "nobody", "hello"],
        &["interrupt", "nobody"],
        &["kill", "nobody"],
        &["wait", "nobody"],
        &["status", "nobody"],
        &["task", "ls", "--for", "nobody"],
        &["logs", "nobody"],
    ] {
        let output = here.ctl(Some("lead"), args).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(3), "{args:?}: {said}");
        assert!(said.contains("nobody"), "{args:?}: {said}");
    }
    let lead = here.shim("lead").await;
    for (tool, arguments) in [
        ("send", json!({"to": "nobody", "text": "hello"})),
        ("queue_add", json!({"slug": "nobody", "description": "hello"})),
        ("wait", json!({"slug": "nobody"})),
        ("kill", json!({"slug": "nobody"})),
        ("status", json!({"slug": "nobody"})),
    ] {
        let refused = lead.call(tool, arguments).await;
        assert!(refused.is_error && refused.text.starts_with("AGENT_NOT_FOUND: "), "{tool}: {}", refused.text);
        assert_eq!(refused.raw["_meta"]["reason"], "AGENT_NOT_FOUND");
    }
}

#[tokio::test]
async fn relative_slugs_keep_their_workspace_and_account() {
    let network = Network::start().await;
    let here = network.host("here", "jdoe").await;
    let other = network.host("other", "eve").await;
    let lead = here.shim("lead").await;
    let spec = json!({"slug": "worker", "description": "x", "backend": "echo", "on_idle": "keep_alive"});
    assert_eq!(lead.ok("spawn", spec).await["slug"], "/w/acme/u/jdoe/lead/worker");
    other.ctl_json(None, &["spawn", "worker", "x", "--backend", "echo", "--on-idle", "keep_alive"]).await;
    for slug in ["worker", "./worker", "/u/jdoe/lead/worker", "/w/acme/u/jdoe/lead/worker"] {
        let status = lead.ok("status", json!({"slug": slug})).await;
        assert_eq!(status["slug"], "/w/acme/u/jdoe/lead/worker", "{slug}");
        assert_eq!(lead.ok("status", json!({"slug": slug, "workspace": "acme"})).await["slug"], status["slug"]);
    }
    let foreign = lead.call("status", json!({"slug": "worker", "workspace": "elsewhere"})).await;
    assert!(foreign.is_error && foreign.text.contains("`workspace`"), "{}", foreign.text);
    // The same name in another account is another agent, and not to be seen from here.
    assert_eq!(other.ctl_json(None, &["status", "worker"]).await["slug"], "/w/acme/u/eve/worker");
    for tool in ["status", "kill"] {
        let hidden = lead.call(tool, json!({"slug": "/u/eve/worker"})).await;
        assert!(hidden.is_error && hidden.text.starts_with("AGENT_NOT_FOUND: "), "{tool}: {}", hidden.text);
    }
    let both = here.ctl(Some("lead"), &["spawn", "../worker", "x", "--backend", "echo"]).await;
    assert!(!both.status.success(), "nobody is born beside its parent");
}

#[tokio::test]
async fn a_call_comes_as_the_agent_that_the_session_is_bound_to() {
    let network = Network::start().await;
    let here = network.host("here", "jdoe").await;
    let (alice, bob) = (here.shim("alice").await, here.shim("bob").await);
    let of = async |shim: &Shim| shim.ok("status", json!({})).await["slug"].clone();
    assert_eq!((of(&alice).await, of(&bob).await), (json!("/w/acme/u/jdoe/alice"), json!("/w/acme/u/jdoe/bob")));
    let spec = json!({"slug": "worker", "description": "x", "backend": "echo", "on_idle": "keep_alive"});
    alice.ok("spawn", spec).await;
    let others = bob.call("kill", json!({"slug": "/u/jdoe/alice/worker"})).await;
    assert!(others.is_error, "an agent ends itself and those below it: {}", others.text);
    let selfish = alice.call("wait", json!({"slug": "self"})).await;
    assert!(selfish.is_error && selfish.text.contains("FIELD_INVALID: "), "{}", selfish.text);
    alice.ok("register", json!({"name": "carol"})).await;
    assert_eq!(of(&alice).await, "/w/acme/u/jdoe/carol", "who changes the name changes the caller");
}

#[tokio::test]
async fn switches_are_booleans_and_choices_are_listed_in_every_schema() {
    let network = Network::start().await;
    let here = network.host("here", "jdoe").await;
    let lead = here.shim_with("lead", &[("MURMUR_PROFILE", "all")]).await;
    let tools = lead.client().list_all_tools().await.unwrap();
    let property = |tool: &str, name: &str| {
        let tool = tools.iter().find(|known| known.name == tool).unwrap_or_else(|| panic!("there is no tool {tool}"));
        let property = tool.input_schema["properties"][name].clone();
        assert!(property.is_object(), "{}: {name}", tool.name);
        property
    };
    for (tool, name) in
        [("spawn", "resurrect"), ("spawn", "force_new"), ("ls", "all"), ("status", "children"), ("task_list", "active")]
    {
        let kind = &property(tool, name)["type"];
        let is_boolean = kind == "boolean" || kind.as_array().is_some_and(|kinds| kinds.contains(&json!("boolean")));
        assert!(is_boolean, "{tool}: {name} is {kind}");
    }
    for (tool, name, word) in [
        ("spawn", "session_mode", "autonomous"),
        ("spawn", "completion_check", "assessor"),
        ("spawn", "on_idle", "terminate_when_prs_resolved"),
        ("spawn", "dequeue_strategy", "five"),
        ("spawn", "out", "pr"),
        ("spawn", "trust_level", "sandbox"),
        ("wait", "phase", "task-complete"),
        ("ls", "phase", "running"),
        ("task_update", "status", "in_progress"),
    ] {
        let schema = property(tool, name).to_string();
        assert!(schema.contains("\"enum\"") && schema.contains(&format!("\"{word}\"")), "{tool}: {name}: {schema}");
    }
    // A switch in quotes is refused and not taken for one or the other; an answer's switch is none in quotes either.
    let quoted = lead.call("ls", json!({"all": "false"})).await;
    assert!(quoted.is_error && quoted.text.contains("`all`"), "{}", quoted.text);
    spawn(&here, "/u/jdoe/quick", "true").await;
    let waited = lead.ok("wait", json!({"slug": "/u/jdoe/quick"})).await;
    assert_eq!((&waited["matched"], &waited["timed_out"]), (&json!(true), &json!(false)));
}
