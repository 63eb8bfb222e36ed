//! Agents that nodes start: how a test configures a node for them, drives them as the account's owner, and leaves none behind.

use std::{
    fs,
    future::Future,
    path::{Path, PathBuf},
};

use murmur_proto::{
    client::{ControlClient, Headers, connect_socket},
    v1::{self, Phase},
};
use nix::{
    errno::Errno,
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};
use prost_types::Duration;
use tonic::{Code, Response, Status};

use crate::{
    network::{Network, Node, WORKSPACE},
    wait,
};

/// Drives the agents of an account through one of its nodes.
pub struct Owner {
    client: ControlClient,
    account: String,
}

impl Network {
    /// Starts a node whose configuration file says this.
    pub async fn node_configured(&self, name: &str, account: &str, toml: &str) -> Node {
        let file = self.dir.path().join(format!("{name}.toml"));
        fs::write(&file, toml).unwrap();
        self.node_with(name, account, &[("MURMUR_NODE_CONFIG", file.to_string_lossy().into_owned())]).await
    }

    /// Writes a program of a test.
    ///
    /// # Panics
    /// When the disk refuses.
    #[must_use]
    pub fn script(&self, name: &str, text: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.dir.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        path
    }
}

impl Node {
    /// Drives agents through its socket, as the account's owner.
    ///
    /// # Panics
    /// When nobody listens.
    pub async fn owner(&self, account: &str) -> Owner {
        let channel = connect_socket(&self.socket).await.unwrap();
        Owner { client: ControlClient::new(channel, Headers::new()), account: account.to_owned() }
    }

    /// The folder of an agent that runs here.
    #[must_use]
    pub fn place(&self, agent: &v1::AgentStatus) -> PathBuf {
        self.dir.join("runtime/agents").join(&agent.agent_id)
    }

    /// The process group of an agent's newest process, once it has one.
    #[must_use]
    pub fn group(&self, agent: &v1::AgentStatus) -> Option<i32> {
        newest_run(&self.place(agent)).and_then(|run| pid(&run, "pid"))
    }

    /// The keeper of an agent's newest process, once it has one.
    #[must_use]
    pub fn keeper(&self, agent: &v1::AgentStatus) -> Option<i32> {
        newest_run(&self.place(agent)).and_then(|run| pid(&run, "keeper_pid"))
    }
}

impl Owner {
    /// The absolute slug of a path.
    #[must_use]
    pub fn slug(&self, path: &str) -> String {
        format!("/w/{WORKSPACE}/u/{}/{path}", self.account)
    }

    /// The client, for what the shortcuts do not cover.
    #[must_use]
    pub fn client(&self) -> ControlClient {
        self.client.clone()
    }

    /// Spawns an agent.
    ///
    /// # Panics
    /// When that is refused.
    pub async fn spawn(&self, path: &str, spec: v1::AgentSpec) -> v1::AgentStatus {
        let request =
            v1::SpawnAgentRequest { slug: self.slug(path), spec: Some(spec), ..v1::SpawnAgentRequest::default() };
        self.spawn_as(request).await
    }

    /// Spawns as asked, and returns the first agent.
    ///
    /// # Panics
    /// When that is refused.
    pub async fn spawn_as(&self, request: v1::SpawnAgentRequest) -> v1::AgentStatus {
        let answer = patiently("spawn", || {
            let (mut agents, request) = (self.client().agents, request.clone());
            async move { agents.spawn_agent(request).await.map(Response::into_inner) }
        })
        .await;
        answer.agents.into_iter().next().unwrap()
    }

    /// An agent as it is now.
    ///
    /// # Panics
    /// When it cannot be read.
    pub async fn status(&self, path: &str) -> v1::AgentStatus {
        let request = v1::GetAgentStatusRequest { slug: self.slug(path), ..v1::GetAgentStatusRequest::default() };
        let answer = patiently("status", || {
            let (mut agents, request) = (self.client().agents, request.clone());
            async move { agents.get_agent_status(request).await.map(Response::into_inner) }
        })
        .await;
        answer.agent.unwrap()
    }

    /// Waits until an agent is in a phase. One that has completed a task and is kept alive is idle a moment later, so that this counts, too:
    /// while more work waits for it, the control plane takes neither for an answer.
    ///
    /// # Panics
    /// When it never is, with what it is instead.
    pub async fn is(&self, path: &str, phase: Phase) -> v1::AgentStatus {
        let phases = match phase {
            Phase::TaskComplete => vec![phase.into(), Phase::Idle.into()],
            _ => vec![phase.into()],
        };
        let timeout = Some(Duration { seconds: 60, nanos: 0 });
        let request = v1::WaitAgentRequest { slug: self.slug(path), phases, timeout };
        let answer = patiently("wait", || {
            let (mut agents, request) = (self.client().agents, request.clone());
            async move { agents.wait_agent(request).await?.into_inner().message().await }
        })
        .await
        .unwrap();
        let agent = answer.agent.unwrap();
        assert!(answer.matched, "never {}: {agent:?}", phase.as_str_name());
        agent
    }

    /// Gives an agent more to do.
    ///
    /// # Panics
    /// When that is refused.
    pub async fn add(&self, path: &str, description: &str) {
        let request = v1::AddFollowUpRequest {
            slug: self.slug(path),
            description: description.to_owned(),
            ..v1::AddFollowUpRequest::default()
        };
        patiently("add", || {
            let (mut queue, request) = (self.client().queue, request.clone());
            async move { queue.add_follow_up(request).await }
        })
        .await;
    }

    /// Ends an agent and all below it.
    ///
    /// # Panics
    /// When that is refused.
    pub async fn kill(&self, path: &str) -> v1::KillAgentResponse {
        let request = v1::KillAgentRequest { slug: self.slug(path), ..v1::KillAgentRequest::default() };
        patiently("kill", || {
            let (mut agents, request) = (self.client().agents, request.clone());
            async move { agents.kill_agent(request).await.map(Response::into_inner) }
        })
        .await
    }

    /// All that an agent's processes and its node have said.
    ///
    /// # Panics
    /// When it cannot be read.
    pub async fn output(&self, path: &str) -> Vec<v1::OutputChunk> {
        let request = v1::WatchAgentOutputRequest {
            slug: self.slug(path),
            follow: false,
            ..v1::WatchAgentOutputRequest::default()
        };
        patiently("output", || {
            let (mut agents, request) = (self.client().agents, request.clone());
            async move {
                let mut answers = agents.watch_agent_output(request).await?.into_inner();
                let mut chunks = Vec::new();
                while let Some(answer) = answers.message().await? {
                    chunks.extend(answer.chunk);
                }
                Ok(chunks)
            }
        })
        .await
    }
}

/// Calls again what the control plane refused because it was called too often: a test that looks every few milliseconds is.
async fn patiently<T, F, Fut>(what: &str, mut call: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, Status>>,
{
    wait::until(what, || {
        let called = call();
        async move {
            match called.await {
                Ok(answer) => Some(answer),
                Err(status) if status.code() == Code::ResourceExhausted => None,
                Err(status) => panic!("{what}: {status:?}"),
            }
        }
    })
    .await
}

/// Whether a process is gone, or only waits for its parent to look.
#[must_use]
pub fn is_gone(pid: i32) -> bool {
    let is_zombie = fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "));
    is_zombie || kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH)
}

/// Waits until a file is there, and returns what is in it.
pub async fn file(path: &Path) -> String {
    wait::until(&format!("{} is there", path.display()), || async {
        fs::read_to_string(path).ok().filter(|text| text.ends_with('\n'))
    })
    .await
}

/// Ends the processes of every agent whose folder lies below a directory.
pub fn end_all(nodes: &Path) {
    for node in entries(nodes) {
        for agent in entries(&node.join("runtime/agents")) {
            for run in entries(&agent.join("runs")) {
                let Ok(text) = fs::read_to_string(run.join("run.json")) else { continue };
                if run.join("exit.json").exists() {
                    continue;
                }
                let Ok(run) = serde_json::from_str(&text) else { continue };
                // The keeper ends what is in no group.
                let (Some(group), Some(keeper)) = (pid(&run, "pid"), pid(&run, "keeper_pid")) else { continue };
                if is_ours(keeper, &agent) {
                    let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
                }
            }
        }
    }
}

/// Whether a process is the keeper of an agent, and not a stranger under its number.
fn is_ours(keeper: i32, agent: &Path) -> bool {
    let command = fs::read(format!("/proc/{keeper}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&command).contains(&*agent.to_string_lossy())
}

fn newest_run(place: &Path) -> Option<serde_json::Value> {
    let number = |path: &PathBuf| path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok());
    let newest = entries(&place.join("runs")).into_iter().max_by_key(number)?;
    serde_json::from_str(&fs::read_to_string(newest.join("run.json")).ok()?).ok()
}

fn pid(run: &serde_json::Value, name: &str) -> Option<i32> {
    run[name].as_i64().and_then(|pid| i32::try_from(pid).ok())
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}
