//! Wires the rooms together and decides nothing.

use std::{collections::BTreeSet, fmt, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use murmur_core::id::{Incarnation, NodeId};
use murmur_crypto::hash::key_fingerprint;
use nkeys::KeyPair;
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

use crate::{
    agents::Agents,
    bus::{Bus, BusConfig},
    clock::{CLOSE_MS, Clock},
    config::Config,
    directory::Directory,
    enroll::{Joining, find_invite},
    events::Events,
    identity::{IdentityDir, NodeIdentity, NodeRecord},
    keys::Keys,
    lifecycle::DataDir,
    metrics::{self, Metrics},
    notify::{self, Notify},
    permission::{self, Permissions},
    post::Post,
    rpc::{
        control::{self, Control, ControlTasks, Parts},
        forward::Forward,
        server::{Copies, Services, Shared},
        socket,
    },
    runtime::{self, Runtime},
    session::Sessions,
    store::{Store, StoreOptions},
    tunnel::{TunnelConfig, Tunnels},
    vital::Vital,
};

/// Threads that read the store.
const READERS: usize = 2;

/// Whether the node may speak for agents yet.
#[derive(Clone)]
pub enum Stage {
    /// It has just begun, and will know in a moment; calls wait for that.
    Starting(Arc<Pending>),
    /// It has not enrolled, or its owner has not approved it.
    Pending(Arc<Pending>),
    /// It is approved.
    Ready(Arc<Core>),
}

/// What is known of a node that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// The node, once it has enrolled.
    pub node_id: Option<NodeId>,
    /// The host's name.
    pub name: String,
    /// The workspace, once it has enrolled.
    pub workspace: Option<String>,
    /// Whose node it is, once it has enrolled.
    pub account: Option<String>,
    /// What the owner compares.
    pub fingerprint: String,
    /// Where the control plane is; empty before the invite is read.
    pub control_plane_url: String,
    /// What it waits for.
    pub why: String,
}

impl fmt::Display for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the node `{}` cannot speak for agents yet: {}", self.name, self.why)
    }
}

impl Pending {
    /// What a person does about it.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self.node_id {
            Some(_) => format!("On the owner's host, run `murmurctl node approve {}`.", self.fingerprint),
            None => format!("Check that the control plane at {} is running.", self.control_plane_url),
        }
    }
}

/// Everything that an approved node has.
pub struct Core {
    /// Who it is.
    pub identity: Arc<NodeIdentity>,
    /// Where its identity's files are.
    pub dir: IdentityDir,
    /// Who there is.
    pub directory: Arc<Directory>,
    /// Who lives here.
    pub agents: Arc<Agents>,
    /// Sends and receives.
    pub post: Arc<Post>,
    /// Who is attached.
    pub sessions: Arc<Sessions>,
    /// What happened around those who live here.
    pub events: Arc<Events>,
    /// Approvals of tool calls.
    pub permissions: Arc<Permissions>,
    /// The client of the control plane.
    pub control: Arc<Control>,
    /// The broker.
    pub bus: Arc<Bus>,
    /// What people are told.
    pub notify: Arc<Notify>,
    /// Ports that agents show.
    pub tunnels: Arc<Tunnels>,
    /// Files that interactive agents may show.
    pub file_roots: Vec<PathBuf>,
    /// Where agents that run here have their folders.
    pub runtime_dir: PathBuf,
}

/// What is there before the node is approved.
struct Base {
    config: Config,
    data_dir: DataDir,
    dir: IdentityDir,
    broker_key: Arc<KeyPair>,
    ca_pem: Option<String>,
    store: Store,
    clock: Clock,
    metrics: Arc<Metrics>,
    forward: Arc<Forward>,
    stage: watch::Sender<Stage>,
}

/// Runs a node until `drain` is cancelled and its calls have ended.
///
/// # Errors
/// When the node cannot start, or cannot join its workspace in a way that waiting does not cure.
pub async fn run(config: Config, drain: CancellationToken) -> anyhow::Result<()> {
    let base = Base::open(config)?;
    let (mut socket, listener) = socket::listen(&base.config.socket()).await?;
    if let Some(link) = base.config.socket_link()
        && let Err(error) = socket.link(&link).await
    {
        warn!("programs without XDG_RUNTIME_DIR will not find this node: {:#}", anyhow::Error::from(error));
    }
    let services = Arc::new(Services::new(Arc::new(base.shared(drain.clone()))).await?);
    let tasks = TaskTracker::new();
    if let Some(address) = base.config.metrics_listen {
        let scrapes = metrics::listen(address, base.data_dir.path()).await.context("cannot serve metrics")?;
        tasks.spawn(metrics::serve(
            scrapes,
            base.metrics.clone(),
            base.stage.subscribe(),
            base.data_dir.path().into(),
            drain.clone(),
        ));
    }
    let served = services.clone();
    let mut door = tokio::spawn(async move { served.serve(listener).await });
    info!("serving {}", base.config.socket().display());

    let stop = CancellationToken::new();
    let lived = tokio::select! {
        biased;
        () = drain.cancelled() => Ok(()),
        lived = live(&base, &services, &tasks, &stop) => lived,
        // Nobody told it to end.
        ended = &mut door => Err(door_error(ended)),
    };
    services.ready(false).await;
    drain.cancel();
    if !door.is_finished() && tokio::time::timeout(Duration::from_millis(base.config.drain_ms), door).await.is_err() {
        warn!("calls that would not end are cut off");
    }
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    drop(socket);
    info!("ended");
    lived
}

/// Starts, and goes on until something is lost without which a node is none.
async fn live(base: &Base, services: &Services, tasks: &TaskTracker, stop: &CancellationToken) -> anyhow::Result<()> {
    let (vital, mut losses) = Vital::new(tasks.clone(), stop.clone());
    start(base, services, tasks, stop, &vital).await?;
    match losses.recv().await {
        Some(loss) => Err(loss.into()),
        // Never: `vital` has a sender.
        None => std::future::pending().await,
    }
}

fn door_error(ended: Result<Result<(), tonic::transport::Error>, tokio::task::JoinError>) -> anyhow::Error {
    let error = match ended {
        Ok(Ok(())) => return anyhow::anyhow!("the socket is no longer served"),
        Ok(Err(error)) => anyhow::Error::new(error),
        Err(error) => anyhow::Error::new(error),
    };
    error.context("the socket is no longer served")
}

/// Joins, then starts what an approved node does.
async fn start(
    base: &Base,
    services: &Services,
    tasks: &TaskTracker,
    stop: &CancellationToken,
    vital: &Vital,
) -> anyhow::Result<()> {
    let record = base.join().await?;
    let (core, control_tasks) = base.core(&record, stop).await?;
    vital.spawn("session with the control plane", control_tasks.run(stop.clone()));
    // It hears before the first event is taken.
    let of_events = notify::follow_events(core.notify.clone(), core.events.news(), stop.clone());
    vital.spawn("notifications of events", of_events);
    vital.spawn("events", core.events.clone().follow(core.control.clone(), stop.clone()));
    let permissions = core.permissions.clone();
    tasks.spawn(async move {
        if let Err(error) = permissions.run().await {
            warn!(%error, "answers to permission requests of before cannot be waited for");
        }
    });
    vital.spawn("fencing", leave_broker_when_fenced(core.clone(), stop.clone()));
    let (post, ended) = (core.post.clone(), stop.clone());
    vital.spawn_fallible("post", async move { post.run(ended).await });
    vital.spawn("notifications of messages", notify::follow(core.notify.clone(), core.post.clone(), stop.clone()));
    let (notify, permissions) = (core.notify.clone(), core.permissions.clone());
    let of_permissions = notify::follow_permissions(notify.clone(), permissions, stop.clone());
    vital.spawn("notifications of permissions", of_permissions);
    let runtime = base.runtime(&core, stop)?;
    let of_failures = notify::follow_failures(notify.clone(), runtime.failures(), stop.clone());
    vital.spawn("notifications of failures", of_failures);
    tasks.spawn(async move { notify.ended().await });
    let ended = stop.clone();
    vital.spawn("runtime", async move {
        if let Err(error) = runtime.run().await {
            warn!(%error, "no agents run here: what ran cannot be read");
            ended.cancelled().await;
        }
    });
    base.stage.send_replace(Stage::Ready(core));
    services.ready(true).await;
    info!("ready");
    Ok(())
}

/// Without the control plane the host's clock may be all there is, and it may be wrong.
fn recall_time(clock: &Clock, dir: &IdentityDir) {
    match dir.clock() {
        Ok(Some(words)) => {
            if clock.recall(&words) && clock.ahead_ms().unsigned_abs() > CLOSE_MS {
                let ahead_s = clock.ahead_ms() / 1000;
                info!(
                    ahead_s,
                    "the time is what the control plane said before this start, and not what this host's clock says"
                );
            }
        }
        Ok(None) => {}
        Err(error) => warn!(error = &error as &dyn std::error::Error, "what time it was is not remembered"),
    }
}

impl Base {
    fn open(config: Config) -> anyhow::Result<Self> {
        let clock = Clock::system();
        let data_dir = DataDir::open(&config.data_dir)?;
        let dir = IdentityDir::open(data_dir.path())?;
        recall_time(&clock, &dir);
        let broker_key = Arc::new(dir.broker_key()?);
        let ca_pem = match &config.ca {
            Some(path) => {
                Some(std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?)
            }
            None => None,
        };
        let options = StoreOptions { readers: READERS, pages_max: config.store_pages_max, now_ms: clock.now_ms() };
        let store = Store::open(&data_dir.path().join("store.db"), &options)?;
        let pending = Pending {
            node_id: None,
            name: config.name.clone(),
            workspace: None,
            account: None,
            fingerprint: key_fingerprint(dir.key()?.public().as_bytes()),
            control_plane_url: String::new(),
            why: "it is starting".to_owned(),
        };
        let stage = watch::Sender::new(Stage::Starting(pending.into()));
        let (metrics, forward) = (Arc::default(), Arc::default());
        Ok(Self { config, data_dir, dir, broker_key, ca_pem, store, clock, metrics, forward, stage })
    }

    fn shared(&self, drain: CancellationToken) -> Shared {
        Shared {
            stage: self.stage.subscribe(),
            drain,
            metrics: self.metrics.clone(),
            forward: self.forward.clone(),
            clients: Arc::default(),
            require_token: self.config.local.require_token,
            data_dir: self.data_dir.path().to_owned(),
            started_ms: self.clock.now_ms(),
            clock: self.clock,
            copies: Copies::default(),
        }
    }

    /// Brings the node to where its owner has approved it.
    async fn join(&self) -> anyhow::Result<NodeRecord> {
        let record = self.dir.record()?;
        let invite = match &record {
            // An invite that was passed again after it was used is of no interest.
            Some(_) => None,
            None => Some(find_invite(self.config.join.as_deref(), self.data_dir.path(), &self.dir)?),
        };
        let key = self.dir.key()?;
        let joining = Joining {
            dir: &self.dir,
            key: &key,
            broker_key: &self.broker_key,
            name: &self.config.name,
            ca_pem: self.ca_pem.as_deref(),
            stage: &self.stage,
            forward: &self.forward,
            clock: self.clock,
        };
        Ok(joining.run(record, invite).await?)
    }

    fn runtime(&self, core: &Core, stop: &CancellationToken) -> anyhow::Result<Arc<Runtime>> {
        let parts = runtime::Parts {
            config: self.config.runtime.clone(),
            data_dir: self.data_dir.path().to_owned(),
            socket: self.config.socket(),
            store: self.store.clone(),
            control: core.control.clone(),
            agents: core.agents.clone(),
            tunnels: core.tunnels.clone(),
            clock: self.clock,
            stop: stop.clone(),
        };
        Ok(Runtime::new(parts)?)
    }

    /// Ports of this host that no agent shows to others: the owner's choice, and those of Murmur's own programs.
    fn denied_ports(&self, record: &NodeRecord) -> BTreeSet<u16> {
        let mut denied: BTreeSet<u16> = self.config.tunnel_deny_ports.iter().copied().collect();
        let metrics = std::fs::read_to_string(self.data_dir.path().join("metrics.addr")).unwrap_or_default();
        let metrics = self.config.metrics_listen.into_iter().chain(metrics.trim().parse::<SocketAddr>());
        denied.extend(metrics.map(|address| address.port()));
        denied.extend(record.control_plane_url.parse::<http::Uri>().ok().and_then(|url| url.port_u16()));
        denied
    }

    async fn core(&self, record: &NodeRecord, stop: &CancellationToken) -> anyhow::Result<(Arc<Core>, ControlTasks)> {
        let (store, clock) = (self.store.clone(), self.clock);
        let identity = Arc::new(NodeIdentity::new(record, self.dir.key()?, clock.now_ms())?);
        let token = self.dir.token()?.context("the node's token is gone: enrol anew in another data directory")?;
        let channel = control::channel(&record.control_plane_url, self.ca_pem.as_deref())?;
        // A connection of its own: what programs do with theirs is not to keep the node from speaking.
        self.forward.set_channel(control::channel(&record.control_plane_url, self.ca_pem.as_deref())?);
        let incarnation = new_incarnation(clock.now_ms())?;
        self.forward.set_credential(&token, incarnation);
        let control = Control::new(channel, &token, incarnation)?;
        let directory = Directory::load(identity.clone(), store.clone()).await?;
        let keys = Arc::new(Keys::open(self.data_dir.path(), identity.clone())?);
        let bus = Bus::new(BusConfig {
            heartbeat: Duration::from_millis(self.config.broker_heartbeat_ms),
            ..BusConfig::new(identity.node_id)
        });
        let sessions = Sessions::new(directory.clone(), control.clone(), clock);
        let agents = Agents::load(
            store.clone(),
            keys.clone(),
            directory.clone(),
            identity.clone(),
            control.clone(),
            sessions.clone(),
            clock,
        )
        .await?;
        let events = Events::new(store.clone(), clock);
        let post =
            Post::new(store.clone(), keys, directory.clone(), identity.clone(), bus.clone(), clock, self.config.post());
        let metrics = self.metrics.clone();
        post.on_delivered(Box::new(move |took| metrics.acknowledged(took)));
        let tasks = ControlTasks::new(Parts {
            control: control.clone(),
            directory: directory.clone(),
            agents: agents.clone(),
            bus: bus.clone(),
            dir: self.dir.clone(),
            broker_key: self.broker_key.clone(),
            clock,
            incarnation,
            forward: self.forward.clone(),
            identity: identity.clone(),
        });
        let permissions = Permissions::new(permission::Parts {
            store,
            events: events.clone(),
            post: post.clone(),
            agents: agents.clone(),
            directory: directory.clone(),
            clock,
            stop: stop.clone(),
        });
        let dir = self.dir.clone();
        let (file_roots, runtime_dir) = (self.config.file_roots.clone(), self.config.runtime.dir(self.data_dir.path()));
        let notify = Notify::open(self.config.notify.clone(), self.data_dir.path(), clock, stop.clone())?;
        notify.take_answers(permissions.clone(), self.store.clone());
        let config = TunnelConfig { denied: self.denied_ports(record), broker: Some(self.dir.clone()) };
        let tunnels = Tunnels::new(self.data_dir.path(), config, control.clone(), agents.clone());
        let core = Core {
            identity,
            dir,
            directory,
            agents,
            post,
            sessions,
            events,
            permissions,
            control,
            bus,
            notify,
            tunnels,
            file_roots,
            runtime_dir,
        };
        Ok((Arc::new(core), tasks))
    }
}

/// Two processes must not take from one consumer: the one that the control plane fences lets go of it.
async fn leave_broker_when_fenced(core: Arc<Core>, stop: CancellationToken) {
    let mut state = core.control.state();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            fenced = state.wait_for(|state| state.fenced.is_some()) => if fenced.is_err() { return },
        }
        core.bus.leave();
        tokio::select! {
            () = stop.cancelled() => return,
            free = state.wait_for(|state| state.fenced.is_none()) => if free.is_err() { return },
        }
    }
}

fn new_incarnation(now_ms: u64) -> anyhow::Result<Incarnation> {
    let mut random = [0; 10];
    getrandom::fill(&mut random).map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
    Ok(Incarnation::new_v7(now_ms, random))
}
