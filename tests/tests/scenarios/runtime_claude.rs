//! A program that takes prompts line by line, as Claude Code does: turns, follow-ups, interrupts, sleep, history.

use murmur_proto::v1::{self, AgentSpec, OnIdle, Phase};
use murmur_tests::{
    network::{Network, Node},
    spawned::{Owner, is_gone},
    wait,
};

struct Stage {
    node: Node,
    owner: Owner,
    _network: Network,
}

impl Stage {
    async fn new() -> Self {
        let network = Network::start().await;
        let program = network.script("claude", include_str!("claude.py"));
        let home = network.dir.path().display();
        let toml = format!(
            "[runtime.backends.claude]\nprogram = '{}'\nenv = {{ FAKE_CLAUDE_HOME = '{home}' }}\n",
            program.display()
        );
        let node = network.node_configured("here", "jdoe", &toml).await;
        let owner = node.owner("jdoe").await;
        Self { node, owner, _network: network }
    }

    /// Waits for an answer of an agent.
    async fn answers(&self, path: &str, answer: &str) -> v1::AgentStatus {
        wait::until(&format!("{path} answers `{answer}`"), || async {
            let agent = self.owner.status(path).await;
            let is_there = agent.output.as_ref().is_some_and(|output| output.response == answer);
            (is_there && agent.phase() != Phase::Running).then_some(agent)
        })
        .await
    }
}

fn claude(description: &str) -> AgentSpec {
    AgentSpec { description: description.to_owned(), backend: "claude".to_owned(), ..AgentSpec::default() }
}

#[tokio::test]
async fn turns_follow_each_other_in_one_process() {
    let stage = Stage::new().await;
    let owner = &stage.owner;
    let agent = owner.spawn("coder", claude("the parser")).await;
    let done = owner.is("coder", Phase::TaskComplete).await;
    let output = done.output.unwrap();
    assert_eq!((output.response.as_str(), output.cost_micros, output.tokens), ("did the parser", 250_000, 15));
    let group = stage.node.group(&agent).unwrap();
    owner.add("coder", "the tests").await;
    let answer = "did [from jdoe]\nthe tests";
    let done = wait::until("the second turn", || async {
        let agent = owner.status("coder").await;
        (agent.turns == 2 && agent.phase() == Phase::TaskComplete).then_some(agent)
    })
    .await;
    let output = done.output.unwrap();
    assert!(output.response.contains("the tests"), "{} is not like {answer}", output.response);
    assert_eq!((output.cost_micros, output.tokens), (500_000, 30));
    assert_eq!(stage.node.group(&agent), Some(group), "the same process");
    owner.kill("coder").await;
    owner.is("coder", Phase::Canceled).await;
    assert!(is_gone(group));
}

#[tokio::test]
async fn an_interrupted_turn_ends_and_the_queue_goes_on() {
    let stage = Stage::new().await;
    let owner = &stage.owner;
    owner.spawn("slow", claude("wait for me")).await;
    owner.is("slow", Phase::Running).await;
    owner.add("slow", "something else").await;
    let request = v1::InterruptAgentRequest { slug: owner.slug("slow"), ..v1::InterruptAgentRequest::default() };
    assert!(owner.client().agents.interrupt_agent(request).await.unwrap().into_inner().interrupted);
    wait::until("the queue goes on", || async {
        let agent = owner.status("slow").await;
        let did = agent.output.as_ref().is_some_and(|output| output.response.contains("something else"));
        (did && agent.phase() == Phase::TaskComplete).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_turn_that_fails_or_a_crash_in_it_is_told() {
    let stage = Stage::new().await;
    let owner = &stage.owner;
    owner.spawn("unlucky", claude("fail now")).await;
    let failed = owner.is("unlucky", Phase::Failed).await;
    assert!(failed.reason.contains("API Error: overloaded"), "{}", failed.reason);
    owner.spawn("broken", claude("crash now")).await;
    let failed = owner.is("broken", Phase::Failed).await;
    assert_eq!(failed.reason, "exit code 1: out of memory");
}

#[tokio::test]
async fn an_idle_agent_sleeps_without_a_process_and_wakes_with_its_history() {
    let stage = Stage::new().await;
    let owner = &stage.owner;
    let agent = owner.spawn("sleeper", AgentSpec { on_idle: OnIdle::Sleep.into(), ..claude("one") }).await;
    owner.is("sleeper", Phase::Sleeping).await;
    assert!(is_gone(stage.node.group(&agent).unwrap()));
    owner.add("sleeper", "recall").await;
    let woken = wait::until("it has slept again", || async {
        let agent = owner.status("sleeper").await;
        (agent.incarnation == 2 && agent.phase() == Phase::Sleeping).then_some(agent)
    })
    .await;
    let output = woken.output.unwrap();
    assert!(output.response.starts_with("one | ") && output.response.ends_with("recall"), "{}", output.response);
    assert_eq!(output.cost_micros, 500_000, "of both processes");
}

#[tokio::test]
async fn a_fork_begins_with_a_copy_of_the_history() {
    let stage = Stage::new().await;
    let owner = &stage.owner;
    owner.spawn("root", claude("plant")).await;
    owner.is("root", Phase::TaskComplete).await;
    owner
        .spawn_as(v1::SpawnAgentRequest {
            slug: owner.slug("branch"),
            spec: Some(claude("recall")),
            fork_from: owner.slug("root"),
            ..v1::SpawnAgentRequest::default()
        })
        .await;
    stage.answers("branch", "plant | recall").await;
    owner.add("root", "recall").await;
    let root = wait::until("the root's own history", || async {
        let agent = owner.status("root").await;
        (agent.turns == 2 && agent.phase() == Phase::TaskComplete).then_some(agent)
    })
    .await;
    assert!(root.output.unwrap().response.starts_with("plant | "));
}

#[tokio::test]
async fn open_items_of_the_checklist_begin_another_turn_and_not_for_ever() {
    let stage = Stage::new().await;
    let owner = &stage.owner;
    let spec = AgentSpec {
        completion_check: v1::CompletionCheck::Assessor.into(),
        tasks: vec!["write the docs".to_owned()],
        on_idle: OnIdle::KeepAlive.into(),
        ..claude("the parser")
    };
    owner.spawn("thorough", spec).await;
    let idle = owner.is("thorough", Phase::Idle).await;
    assert_eq!(idle.turns, 6, "the first, and five more for what nobody does");
    assert!(idle.current_description.contains("write the docs"));
}

#[tokio::test]
async fn a_node_that_is_killed_in_a_turn_hears_its_end() {
    let mut stage = Stage::new().await;
    let agent = stage.owner.spawn("patient", claude("wait for me")).await;
    stage.owner.is("patient", Phase::Running).await;
    let group = stage.node.group(&agent).unwrap();
    stage.node.process.kill_9();
    stage.node.process.start();
    stage.node.ready().await;
    stage.owner = stage.node.owner("jdoe").await;
    let request =
        v1::InterruptAgentRequest { slug: stage.owner.slug("patient"), ..v1::InterruptAgentRequest::default() };
    wait::until("its turn is interrupted", || async {
        stage.owner.client().agents.interrupt_agent(request.clone()).await.ok()
    })
    .await;
    let idle = stage.owner.is("patient", Phase::Idle).await;
    assert_eq!(idle.output.unwrap().response, "interrupted");
    assert_eq!((stage.node.group(&agent), is_gone(group)), (Some(group), false));
    stage.owner.add("patient", "go on").await;
    let done = stage.owner.is("patient", Phase::TaskComplete).await;
    assert!(done.output.unwrap().response.contains("go on"));
}

#[tokio::test]
async fn in_a_streaming_session_a_follow_up_joins_the_turn() {
    let stage = Stage::new().await;
    let owner = &stage.owner;
    let spec = AgentSpec { session_mode: v1::SessionMode::Streaming.into(), ..claude("wait for me") };
    owner.spawn("pair", spec).await;
    owner.is("pair", Phase::Running).await;
    owner.add("pair", "here I am").await;
    let done = owner.is("pair", Phase::TaskComplete).await;
    let response = done.output.unwrap().response;
    assert!(response.starts_with("joined: ") && response.ends_with("here I am"), "{response}");
    assert_eq!(done.turns, 1);
}
