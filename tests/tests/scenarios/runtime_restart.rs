//! Agents outlive their node: found again, told of, or honestly failed, and never doubled (ADR 12).

use std::{fs, path::Path};

use murmur_proto::v1::{AgentSpec, AgentStatus, Phase};
use murmur_tests::{
    network::{Network, Node},
    spawned::{Owner, is_gone},
    wait,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

const BASH: &str = "[runtime]\ncapacity = 50\n[runtime.backends.command]\nprogram = 'bash'\nargs = ['-c', '{prompt}']\nprompt = 'argument'\n";

/// Says what it hears on a pipe, and counts how often it was started.
const LISTENER: &str = "echo start >> starts; mkfifo go; read -r line < go; echo \"heard $line\"";

fn bash(script: &str) -> AgentSpec {
    AgentSpec { description: script.to_owned(), backend: "command".to_owned(), ..AgentSpec::default() }
}

struct Stage {
    network: Network,
    node: Node,
    owner: Owner,
}

impl Stage {
    async fn new() -> Self {
        let network = Network::start().await;
        let node = network.node_configured("here", "jdoe", BASH).await;
        let owner = node.owner("jdoe").await;
        Self { network, node, owner }
    }

    async fn listener(&self, path: &str) -> AgentStatus {
        let agent = self.owner.spawn(path, bash(LISTENER)).await;
        self.owner.is(path, Phase::Running).await;
        self.listens(&agent).await;
        agent
    }

    async fn listens(&self, agent: &AgentStatus) {
        let go = self.node.place(agent).join("work/go");
        wait::until("it listens", || async { go.exists().then_some(()) }).await;
    }

    async fn say(&self, agent: &AgentStatus, word: &str) {
        say(&self.node.place(agent).join("work/go"), word).await;
    }

    async fn back(&mut self) {
        self.node.process.start();
        self.node.ready().await;
        self.owner = self.node.owner("jdoe").await;
    }

    fn starts(&self, agent: &AgentStatus) -> usize {
        fs::read_to_string(self.node.place(agent).join("work/starts")).unwrap().lines().count()
    }
}

async fn say(pipe: &Path, word: &str) {
    let (pipe, word) = (pipe.to_owned(), format!("{word}\n"));
    tokio::task::spawn_blocking(move || fs::write(pipe, word).unwrap()).await.unwrap();
}

#[tokio::test]
async fn agents_of_a_killed_node_are_found_running_and_heard_to_their_end() {
    let mut stage = Stage::new().await;
    let mut agents = Vec::new();
    for number in 0..10 {
        agents.push(stage.listener(&format!("a{number}")).await);
    }
    let groups: Vec<i32> = agents.iter().map(|agent| stage.node.group(agent).unwrap()).collect();
    stage.node.process.kill_9();
    assert!(groups.iter().all(|group| !is_gone(*group)), "they go on");
    // One ends well while nobody is there, one in trouble.
    stage.say(&agents[0], "early").await;
    kill(Pid::from_raw(groups[1]), Signal::SIGABRT).unwrap();
    wait::until("both have ended", || async { (is_gone(groups[0]) && is_gone(groups[1])).then_some(()) }).await;
    stage.back().await;
    let early = stage.owner.is("a0", Phase::Completed).await;
    assert_eq!(early.output.unwrap().response, "heard early");
    assert!(stage.owner.is("a1", Phase::Failed).await.reason.contains("SIGABRT"));
    for (number, agent) in agents.iter().enumerate().skip(2) {
        assert_eq!(stage.node.group(agent), Some(groups[number]));
        stage.say(agent, "late").await;
        let ended = stage.owner.is(&format!("a{number}"), Phase::Completed).await;
        assert_eq!((ended.output.unwrap().response.as_str(), ended.incarnation), ("heard late", 1));
    }
    assert!(agents.iter().all(|agent| stage.starts(agent) == 1), "none was started twice");
}

#[tokio::test]
async fn a_process_that_is_lost_with_its_keeper_is_failed_and_ended() {
    let mut stage = Stage::new().await;
    let agent = stage.listener("lost").await;
    let (group, keeper) = (stage.node.group(&agent).unwrap(), stage.node.keeper(&agent).unwrap());
    stage.node.process.kill_9();
    kill(Pid::from_raw(keeper), Signal::SIGKILL).unwrap();
    stage.back().await;
    let failed = stage.owner.is("lost", Phase::Failed).await;
    assert!(failed.reason.contains("lost"), "{}", failed.reason);
    wait::until("what was left of it is ended", || async { is_gone(group).then_some(()) }).await;
    assert_eq!(stage.starts(&agent), 1);
}

#[tokio::test]
async fn an_agent_whose_node_dies_while_it_starts_is_started_once() {
    // Noted only; its folder prepared; its keeper on its way, which goes on.
    for point in ["A1", "A2", "A3"] {
        let mut stage = Stage::new().await;
        stage.node.process.terminate().await;
        stage.node.process.start_to_die_at(point);
        stage.node.ready().await;
        stage.owner = stage.node.owner("jdoe").await;
        let agent = stage.owner.spawn("born", bash(LISTENER)).await;
        stage.node.process.died_at(point).await;
        stage.back().await;
        stage.listens(&agent).await;
        stage.say(&agent, point).await;
        let ended = stage.owner.is("born", Phase::Completed).await;
        assert_eq!((ended.output.unwrap().response, ended.incarnation), (format!("heard {point}"), 1));
        assert_eq!(stage.starts(&agent), 1, "{point}");
    }
}

#[tokio::test]
async fn an_agent_that_is_killed_while_its_node_is_away_is_ended_when_it_is_back() {
    let mut stage = Stage::new().await;
    let agent = stage.listener("doomed").await;
    let other = stage.network.node("there", "jdoe").await;
    let owner = other.owner("jdoe").await;
    stage.node.process.kill_9();
    assert_eq!(owner.kill("doomed").await.pending, 1);
    let group = stage.node.group(&agent).unwrap();
    assert!(!is_gone(group));
    stage.back().await;
    owner.is("doomed", Phase::Canceled).await;
    assert!(is_gone(group));
}

#[tokio::test]
async fn what_happens_while_the_control_plane_is_away_is_told_when_it_is_back() {
    let mut stage = Stage::new().await;
    let (one, two) = (stage.listener("one").await, stage.listener("two").await);
    stage.network.server.kill_9();
    stage.say(&one, "alone").await;
    let group = stage.node.group(&one).unwrap();
    wait::until("it has ended", || async { is_gone(group).then_some(()) }).await;
    // And the node does not live to tell of it either.
    stage.node.process.kill_9();
    stage.network.server.start();
    stage.network.ready().await;
    stage.back().await;
    let ended = stage.owner.is("one", Phase::Completed).await;
    assert_eq!(ended.output.unwrap().response, "heard alone");
    stage.say(&two, "again").await;
    stage.owner.is("two", Phase::Completed).await;
}

#[tokio::test]
async fn a_node_that_is_told_to_end_leaves_its_agents_running() {
    let mut stage = Stage::new().await;
    let agent = stage.listener("steady").await;
    assert!(stage.node.process.terminate().await.success());
    assert!(!is_gone(stage.node.group(&agent).unwrap()));
    stage.back().await;
    stage.say(&agent, "still here").await;
    assert_eq!(stage.owner.is("steady", Phase::Completed).await.output.unwrap().response, "heard still here");
    assert_eq!(stage.starts(&agent), 1);
}
