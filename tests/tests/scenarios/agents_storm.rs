//! Many agents at once, nodes that die under them, spawns that race each other and kills, and what a spawn can ask for.

use std::{collections::BTreeSet, fs};

use murmur_proto::v1::{self, Phase};
use murmur_tests::{
    network::{Network, Node, Options},
    spawned::{Owner, is_gone},
    wait,
};
use serde_json::json;

const RUNTIME: &str = r#"
[runtime]
capacity = 200
grace_ms = 2000
stuck_after_ms = 300
default_backend = "bash"

[runtime.backends.bash]
preset = "command"
program = "bash"
prompt = "argument"
args = ["-c", "{prompt}"]

[runtime.backends.asks]
preset = "command"
program = "bash"
args = ["-c", "echo \"model {model}\"; echo \"system {system_prompt}\"; cat"]

[runtime.backends.counts]
program = "bash"
args = ["-c", "cat >/dev/null; echo '{\"text\":\"x\",\"cost\":0.4}'"]
resume_args = ["-c", "cat >/dev/null; echo '{\"text\":\"x\",\"cost\":0.4}'"]
session = "s"
output = "json"
events = [{ text = "/text", cost_usd = "/cost" }]

[runtime.personas.critic]
system_prompt = "Find what is wrong."
model = "sharp"
backend = "asks"

[runtime.mcp_servers.files]
command = "files-mcp"
args = ["--root", "/srv"]
"#;

async fn many() -> (Network, Node) {
    // Spawns of one account are bounded, and a storm is what this is about.
    let env = [
        ("MURMUR_SERVER_SPAWN_PER_MINUTE", "1000"),
        ("MURMUR_SERVER_AGENTS_LIVE_MAX", "400"),
        ("MURMUR_SERVER_CALLS_PER_SECOND", "2000"),
        ("MURMUR_SERVER_CALLS_BURST", "4000"),
        ("MURMUR_SERVER_CHILDREN_MAX", "400"),
    ];
    let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let network = Network::start_with(Options { env, ..Options::default() }).await;
    let node = network.node_configured("here", "jdoe", RUNTIME).await;
    (network, node)
}

fn says(text: &str) -> v1::AgentSpec {
    v1::AgentSpec { description: text.to_owned(), on_idle: v1::OnIdle::KeepAlive.into(), ..v1::AgentSpec::default() }
}

#[tokio::test]
async fn a_storm_of_two_hundred_spawns_runs_each_of_them_once() {
    let (network, here) = many().await;
    let owner = here.owner("jdoe").await;
    let marks = network.dir.path().join("marks");
    fs::create_dir(&marks).unwrap();
    let script = format!("echo $MURMUR_AGENT_ID >> {}/$(basename $MURMUR_SLUG)", marks.display());
    let lines = (0..200).map(|n| format!("{n}"));
    let request = v1::SpawnAgentRequest {
        slug: owner.slug("storm-{}"),
        spec: Some(v1::AgentSpec { on_idle: v1::OnIdle::Unspecified.into(), ..says(&script) }),
        each: lines.collect(),
        ..v1::SpawnAgentRequest::default()
    };
    let spawned = owner.client().agents.spawn_agent(request).await.unwrap().into_inner().agents;
    assert_eq!(spawned.len(), 200);
    let ids: BTreeSet<_> = spawned.iter().map(|agent| agent.agent_id.clone()).collect();
    assert_eq!(ids.len(), 200);
    wait::step_by_step("all of them are done", || async {
        let ran = fs::read_dir(&marks).unwrap().count();
        let done = if ran == 200 { completed(&owner).await } else { 0 };
        if done == 200 { Ok(()) } else { Err((ran, done)) }
    })
    .await;
    for agent in &spawned {
        let path = agent.slug.rsplit('/').next().unwrap();
        owner.is(path, Phase::Completed).await;
        let ran = fs::read_to_string(marks.join(path)).unwrap();
        assert_eq!(ran.lines().collect::<Vec<_>>(), [agent.agent_id.as_str()], "{path} ran once, as itself");
    }
    wait::until("nothing of them is left", || async { here.agent_processes().is_empty().then_some(()) }).await;
}

#[tokio::test]
async fn a_control_plane_that_takes_few_calls_hears_of_every_agent_all_the_same() {
    let env = [("MURMUR_SERVER_CALLS_PER_SECOND", "5"), ("MURMUR_SERVER_CALLS_BURST", "8")];
    let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let network = Network::start_with(Options { env, ..Options::default() }).await;
    let here = network.node_configured("here", "jdoe", RUNTIME).await;
    let owner = here.owner("jdoe").await;
    let request = v1::SpawnAgentRequest {
        slug: owner.slug("few-{}"),
        spec: Some(v1::AgentSpec { on_idle: v1::OnIdle::Unspecified.into(), ..says("true") }),
        each: (0..10).map(|n| n.to_string()).collect(),
        ..v1::SpawnAgentRequest::default()
    };
    owner.client().agents.spawn_agent(request).await.unwrap();
    // Starting, keys, claims, turns and ends are some sixty calls, of which the first eight are taken at once.
    for n in 0..10 {
        owner.is(&format!("few-{n}"), Phase::Completed).await;
    }
}

/// How many agents have done their work.
async fn completed(owner: &Owner) -> usize {
    let request = v1::ListAgentStatusRequest {
        all: true,
        phase: Phase::Completed.into(),
        page_size: 500,
        ..v1::ListAgentStatusRequest::default()
    };
    owner.client().agents.list_agent_status(request).await.unwrap().into_inner().agents.len()
}

#[tokio::test]
async fn ten_agents_of_a_killed_node_are_found_again_and_never_doubled() {
    let (network, mut here) = many().await;
    let owner = here.owner("jdoe").await;
    let marks = network.dir.path().join("marks");
    fs::create_dir(&marks).unwrap();
    let gate = network.dir.path().join("gate");
    let script = format!(
        "f={}/$(basename $MURMUR_SLUG); echo $$ >> $f; while [ ! -e {} ]; do sleep 0.05; done; echo done >> $f",
        marks.display(),
        gate.display()
    );
    let mut agents = Vec::new();
    for n in 0..10 {
        owner.spawn(&format!("ten-{n}"), says(&script)).await;
        agents.push(owner.is(&format!("ten-{n}"), Phase::Running).await);
    }
    let groups: Vec<_> = agents.iter().map(|agent| here.group(agent).unwrap()).collect();
    here.process.kill_9();
    assert!(groups.iter().all(|group| !is_gone(*group)), "they go on without their node");
    here.process.start();
    here.ready().await;
    let owner = here.owner("jdoe").await;
    fs::write(&gate, "").unwrap();
    for (n, agent) in agents.iter().enumerate() {
        let ended = owner.is(&format!("ten-{n}"), Phase::Idle).await;
        assert_eq!((&ended.agent_id, ended.incarnation), (&agent.agent_id, 1), "the same one, not started again");
        let ran = fs::read_to_string(marks.join(format!("ten-{n}"))).unwrap();
        let lines: Vec<_> = ran.lines().collect();
        assert_eq!((lines.len(), lines[1]), (2, "done"), "one process, to its end: {ran}");
    }
}

#[tokio::test]
async fn of_many_spawns_of_one_slug_at_once_one_wins() {
    let (_network, here) = many().await;
    let owner = here.owner("jdoe").await;
    let spawn = || {
        let mut client = owner.client().agents;
        let request = v1::SpawnAgentRequest {
            slug: owner.slug("same"),
            spec: Some(says("sleep 600")),
            ..v1::SpawnAgentRequest::default()
        };
        async move { client.spawn_agent(request).await }
    };
    let all = futures::future::join_all((0..8).map(|_| spawn())).await;
    let refused: Vec<_> = all.iter().filter_map(|result| result.as_ref().err()).collect();
    assert_eq!(refused.len(), 7);
    for status in refused {
        let error = murmur_proto::status::RpcError::from(status);
        assert_eq!(error.reason, Some(murmur_core::reason::Reason::AgentLive));
    }
    owner.is("same", Phase::Running).await;
}

#[tokio::test]
async fn a_kill_during_a_spawn_leaves_nothing_behind() {
    let (_network, here) = many().await;
    let owner = here.owner("jdoe").await;
    for round in 0..10 {
        let path = format!("short-{round}");
        owner.spawn(&path, says("sleep 600")).await;
        // Before, while, or after its process starts: whichever it is, it ends.
        owner.kill(&path).await;
        owner.is(&path, Phase::Canceled).await;
    }
    wait::until("nothing of them is left", || async { here.agent_processes().is_empty().then_some(()) }).await;
}

#[tokio::test]
async fn a_persona_gives_model_backend_and_system_prompt() {
    let (_network, here) = many().await;
    let owner = here.owner("jdoe").await;
    let spec =
        v1::AgentSpec { persona: "critic".to_owned(), append_system_prompt: "Be brief.".to_owned(), ..says("look") };
    owner.spawn("critic", spec).await;
    let said = owner.is("critic", Phase::TaskComplete).await.output.unwrap().response;
    assert!(
        said.contains("model sharp") && said.contains("Find what is wrong.") && said.contains("Be brief."),
        "{said}"
    );
    assert!(said.contains("look"), "{said}");
    let unknown = v1::SpawnAgentRequest {
        slug: owner.slug("nobody"),
        spec: Some(v1::AgentSpec { persona: "nobody".to_owned(), ..says("x") }),
        ..v1::SpawnAgentRequest::default()
    };
    let refused = owner.client().agents.spawn_agent(unknown).await.unwrap_err();
    let error = murmur_proto::status::RpcError::from(&refused);
    assert_eq!(error.reason, Some(murmur_core::reason::Reason::PersonaNotFound));
}

#[tokio::test]
async fn mcp_servers_that_a_spawn_asks_for_are_in_the_agents_configuration() {
    let (_network, here) = many().await;
    let owner = here.owner("jdoe").await;
    owner
        .spawn("tools", v1::AgentSpec { mcp_servers: vec!["files".to_owned()], ..says("cat $MURMUR_MCP_CONFIG") })
        .await;
    let said = owner.is("tools", Phase::TaskComplete).await.output.unwrap().response;
    let config: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(config["mcpServers"]["files"]["command"], "files-mcp", "{config}");
    assert!(config["mcpServers"]["murmur"]["command"].as_str().unwrap().ends_with("murmur-mcp"));
    let unknown = v1::SpawnAgentRequest {
        slug: owner.slug("more"),
        spec: Some(v1::AgentSpec { mcp_servers: vec!["none".to_owned()], ..says("true") }),
        ..Default::default()
    };
    let refused = owner.client().agents.spawn_agent(unknown).await.unwrap_err();
    assert!(refused.message().contains("`none`"), "{refused:?}");
}

#[tokio::test]
async fn a_silent_agent_is_flagged_stuck_until_it_speaks() {
    let (network, here) = many().await;
    let owner = here.owner("jdoe").await;
    let gate = network.dir.path().join("gate");
    nix::unistd::mkfifo(&gate, nix::sys::stat::Mode::S_IRWXU).unwrap();
    owner.spawn("silent", says(&format!("cat {}; echo speaks; sleep 600", gate.display()))).await;
    wait::until("it is stuck", || async { owner.status("silent").await.stuck.then_some(()) }).await;
    assert_eq!(owner.status("silent").await.phase(), Phase::Running, "a flag, not a phase");
    let open = gate.clone();
    tokio::task::spawn_blocking(move || fs::write(open, "go\n").unwrap()).await.unwrap();
    let agent = owner.status("silent").await;
    wait::until("it has spoken", || async {
        let said = owner.output("silent").await;
        said.iter().any(|chunk| chunk.data.starts_with(b"go") || chunk.data.ends_with(b"speaks\n")).then_some(())
    })
    .await;
    drop(agent);
}

#[tokio::test]
async fn budgets_of_time_turns_and_money_end_an_agent() {
    let (_network, here) = many().await;
    let owner = here.owner("jdoe").await;
    let budget = |budget: v1::Budget, spec: v1::AgentSpec| v1::AgentSpec { budget: Some(budget), ..spec };
    let time = v1::Budget { timeout: Some(prost_types::Duration { seconds: 1, nanos: 0 }), ..v1::Budget::default() };
    owner.spawn("late", budget(time, says("sleep 600"))).await;
    let ended = owner.is("late", Phase::Failed).await;
    assert!(ended.reason.contains("budget"), "{}", ended.reason);

    let counts = |spec: v1::AgentSpec| v1::AgentSpec { backend: "counts".to_owned(), ..spec };
    owner
        .spawn("rich", budget(v1::Budget { max_cost_micros: 500_000, ..v1::Budget::default() }, counts(says("a"))))
        .await;
    owner.is("rich", Phase::TaskComplete).await;
    owner.add("rich", "b").await;
    let ended = owner.is("rich", Phase::Failed).await;
    assert!(ended.reason.contains("budget"), "{}", ended.reason);

    owner.spawn("turns", budget(v1::Budget { max_turns: 1, ..v1::Budget::default() }, counts(says("a")))).await;
    owner.is("turns", Phase::TaskComplete).await;
    owner.add("turns", "b").await;
    let ended = owner.is("turns", Phase::Failed).await;
    assert!(ended.reason.contains("budget"), "{}", ended.reason);
}

#[tokio::test]
async fn a_resurrected_agent_goes_on_with_its_history_checklist_and_name() {
    let (_network, here) = many().await;
    let owner = here.owner("jdoe").await;
    let spec = v1::AgentSpec {
        tasks: vec!["look".to_owned()],
        on_idle: v1::OnIdle::Unspecified.into(),
        ..says("echo first > kept; echo one")
    };
    let born = owner.spawn("phoenix", spec).await;
    owner.is("phoenix", Phase::Completed).await;
    let again = v1::SpawnAgentRequest {
        slug: owner.slug("phoenix"),
        spec: Some(v1::AgentSpec {
            description: "cat kept; cat $MURMUR_HISTORY_FILE".to_owned(),
            ..v1::AgentSpec::default()
        }),
        resurrect: true,
        ..v1::SpawnAgentRequest::default()
    };
    let risen = owner.spawn_as(again).await;
    assert_eq!((&risen.agent_id, risen.incarnation), (&born.agent_id, 2));
    let said = owner.is("phoenix", Phase::Completed).await.output.unwrap().response;
    assert!(said.starts_with("first\n") && said.contains("echo one"), "its folder and its history: {said}");
    let tasks = here.ctl_json(None, &["task", "ls", "--for", "phoenix"]).await;
    assert_eq!(tasks["tasks"][0]["subject"], json!("look"));
}
