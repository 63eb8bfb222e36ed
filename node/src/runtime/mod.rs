//! Agents that run as processes of this node (docs/adr/0012-agent-processes.md).
//!
//! The control plane orders: start, stop, interrupt, drain. Each agent has a task here (`life`, `turn`) that owns its process, through a
//! keeper that outlives the node (`keeper`, `process`); what runs it is data (`backend`). Whatever happens is stored together with
//! the report of it, and reports are told in their order until they are heard (`reports`). So nothing that happened while the control plane
//! was away is lost, and after a restart of the node each agent is found running, or its end is told.

mod answer;
pub mod backend;
pub mod config;
mod copies;
pub mod git;
pub mod hosted;
pub mod keeper;
mod life;
mod orders;
mod place;
mod prepare;
pub mod process;
mod relay;
mod reports;
mod retention;
mod serve;
mod state;
mod tame;
mod template;
mod turn;
mod view;

use std::{
    collections::{BTreeMap, HashMap},
    ffi::OsString,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use murmur_core::{id::AgentId, slug::Slug};
use murmur_proto::v1;
use prost::Message as _;
use tokio::sync::{Notify, broadcast, mpsc, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    backend::Backend, config::RuntimeConfig, config::RuntimeConfigError, git::Mirrors, prepare::Whom, state::State,
};
use crate::{
    agents::Agents,
    clock::Clock,
    rpc::control::Control,
    store::{Store, StoreError, runtime as table},
    tunnel::Tunnels,
};

/// Failures that a slow follower may be behind before it misses some.
const FAILURES_CAPACITY: usize = 64;

/// What the runtime works with.
pub struct Parts {
    /// What the owner says.
    pub config: RuntimeConfig,
    /// The node's data directory.
    pub data_dir: PathBuf,
    /// The node's socket, which agents are told.
    pub socket: PathBuf,
    /// Where what happens is remembered.
    pub store: Store,
    /// Who orders and hears.
    pub control: Arc<Control>,
    /// Where agents are made known.
    pub agents: Arc<Agents>,
    /// Who answers visitors of agents' ports.
    pub tunnels: Arc<Tunnels>,
    /// What time it is.
    pub clock: Clock,
    /// Cancelled when the node goes down.
    pub stop: CancellationToken,
}

/// What the tasks of all agents share.
pub(crate) struct Workshop {
    config: RuntimeConfig,
    backends: BTreeMap<String, Backend>,
    dir: PathBuf,
    socket: PathBuf,
    /// This program, which is also the keeper.
    keeper: OsString,
    mcp_program: PathBuf,
    /// Where this program's companions are.
    bin: Option<PathBuf>,
    mirrors: Mirrors,
    store: Store,
    control: Arc<Control>,
    agents: Arc<Agents>,
    tunnels: Arc<Tunnels>,
    clock: Clock,
    stop: CancellationToken,
    /// There are reports.
    reports: Notify,
    /// An agent has ended.
    ended: Notify,
    /// What this node has is to be told anew.
    tell_again: Notify,
    /// Folders are cleared while nobody begins to live in them.
    clearing: tokio::sync::RwLock<()>,
    failures: broadcast::Sender<Arc<Failure>>,
}

/// An agent that failed here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Which.
    pub slug: Slug,
    /// Which life of it.
    pub incarnation: u32,
    /// Why, in part in its program's words.
    pub why: String,
    /// Unix milliseconds.
    pub at_ms: u64,
}

/// The agents that run here.
pub struct Runtime {
    shop: Arc<Workshop>,
    lines: Mutex<HashMap<AgentId, Line>>,
    tasks: TaskTracker,
    /// Reports are told one call after the other.
    telling: tokio::sync::Mutex<()>,
}

/// The way to an agent's task.
struct Line {
    inbox: mpsc::UnboundedSender<v1::Order>,
    /// Counts pieces of output.
    output: watch::Sender<u64>,
    incarnation: Arc<watch::Sender<u32>>,
}

impl Runtime {
    /// A runtime that does nothing until [`Runtime::run`].
    ///
    /// # Errors
    /// [`RuntimeConfigError`].
    pub fn new(parts: Parts) -> Result<Arc<Self>, RuntimeConfigError> {
        let Parts { config, data_dir, socket, store, control, agents, tunnels, clock, stop } = parts;
        let dir = config.dir(&data_dir);
        let program = std::env::current_exe().ok();
        let bin = program.as_ref().and_then(|path| path.parent()).map(Path::to_owned);
        // The very program that runs, whatever has been put in its place since.
        let keeper = match cfg!(target_os = "linux") {
            true => "/proc/self/exe".into(),
            false => program.map_or_else(|| "murmur-node".into(), PathBuf::into_os_string),
        };
        let beside = || bin.as_ref().map(|dir| dir.join("murmur-mcp")).filter(|path| path.exists());
        let mcp_program = config.mcp_program.clone().or_else(beside).unwrap_or_else(|| "murmur-mcp".into());
        let shop = Workshop {
            backends: config.backends()?,
            mirrors: Mirrors::new(dir.join("mirrors")),
            socket: std::path::absolute(&socket).unwrap_or(socket),
            dir,
            keeper,
            mcp_program,
            bin,
            store,
            control,
            agents,
            tunnels,
            clock,
            stop,
            config,
            reports: Notify::new(),
            ended: Notify::new(),
            tell_again: Notify::new(),
            clearing: tokio::sync::RwLock::new(()),
            failures: broadcast::Sender::new(FAILURES_CAPACITY),
        };
        let (lines, tasks, telling) = (Mutex::default(), TaskTracker::new(), tokio::sync::Mutex::default());
        Ok(Arc::new(Self { shop: Arc::new(shop), lines, tasks, telling }))
    }

    /// Looks after what an earlier process of the node left, then takes orders until the node goes down. Agents' processes go on.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read what there is.
    pub async fn run(self: &Arc<Self>) -> Result<(), StoreError> {
        for row in self.shop.store.read(table::live).await? {
            let (agent, line) = (row.agent_id, self.open(row.agent_id, Some(row), None));
            self.lines().insert(agent, line);
        }
        tokio::join!(self.follow_orders(), self.tell_reports(), self.keep_clear());
        self.tasks.close();
        self.tasks.wait().await;
        Ok(())
    }

    /// Agents that fail here from now on, once that is stored. Nobody waits for a follower.
    #[must_use]
    pub fn failures(&self) -> broadcast::Receiver<Arc<Failure>> {
        self.shop.failures.subscribe()
    }

    /// Agents that are looked after, with their incarnations.
    fn running(&self) -> Vec<v1::RunningAgent> {
        let told = |(agent, line): (&AgentId, &Line)| {
            let incarnation = *line.incarnation.borrow();
            (incarnation > 0).then(|| v1::RunningAgent { agent_id: agent.to_string(), incarnation })
        };
        self.lines().iter().filter_map(told).collect()
    }

    fn lines(&self) -> MutexGuard<'_, HashMap<AgentId, Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Workshop {
    fn grace(&self) -> Duration {
        Duration::from_millis(self.config.grace_ms)
    }

    /// Remembers an agent, and queues reports of it, in one transaction.
    async fn save(
        &self,
        whom: &Whom,
        incarnation: u32,
        live: bool,
        state: &State,
        reports: &[v1::AgentReport],
    ) -> Result<(), StoreError> {
        let row = table::RunAgentRow {
            agent_id: whom.agent,
            incarnation,
            live,
            start: whom.start.encode_to_vec(),
            state: serde_json::to_string(state).map_err(|_| StoreError::Corrupt("state of an agent"))?,
        };
        let failed =
            reports.iter().find(|report| report.phase() == v1::Phase::Failed).map(|report| report.reason.clone());
        let reports: Vec<Vec<u8>> = reports.iter().map(v1::AgentReport::encode_to_vec).collect();
        let (has_reports, now_ms) = (!reports.is_empty(), self.clock.now_ms());
        let saved = self.store.write(move |tx| {
            table::save(tx, &row, now_ms)?;
            reports.iter().try_for_each(|report| table::queue_report(tx, report))
        });
        saved.await?;
        if has_reports {
            self.reports.notify_one();
        }
        if !live {
            self.ended.notify_one();
        }
        if let Some(why) = failed {
            self.failed(&whom.slug, incarnation, why);
        }
        Ok(())
    }

    fn failed(&self, slug: &Slug, incarnation: u32, why: String) {
        let failure = Failure { slug: slug.clone(), incarnation, why, at_ms: self.clock.now_ms() };
        // Nobody may follow.
        let _ = self.failures.send(Arc::new(failure));
    }
}
