//! Wires the rooms and decides nothing.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use axum::Router;
use murmur_proto::{
    client::RPC_MESSAGE_BYTES_MAX,
    v1::{
        agent_service_server::AgentServiceServer, auth_service_server::AuthServiceServer,
        directory_service_server::DirectoryServiceServer, event_service_server::EventServiceServer,
        node_service_server::NodeServiceServer, queue_service_server::QueueServiceServer,
        runtime_service_server::RuntimeServiceServer, task_service_server::TaskServiceServer,
        tunnel_service_server::TunnelServiceServer, upload_service_server::UploadServiceServer,
        webhook_service_server::WebhookServiceServer,
    },
};
use tokio::net::TcpListener;
use tonic_health::ServingStatus;

use crate::{
    agents::Agents,
    broker_link::BrokerLink,
    clock::Clock,
    config::Config,
    db::Db,
    directory::Directory,
    events::Events,
    files::{make_private_dir, make_private_file, remove_if_present, write_private},
    http::{self, Acceptor, Hooks, Pages, Places, agent::AgentPages, tunnel::Door},
    hub::Hub,
    lifecycle::Lifecycle,
    limit::Rate,
    metrics::Metrics,
    nodes::Nodes,
    queue::Queue,
    random,
    retention::Retention,
    rpc::{
        AgentRpc, AuthRpc, DirectoryRpc, EventRpc, Limits, NodeRpc, QueueRpc, RuntimeRpc, TaskRpc, TunnelRpc,
        UploadRpc, WebhookRpc,
        gate::{self, Gate},
        session::SessionDoor,
    },
    tasks::Tasks,
    tokens::Tokens,
    tunnels::Tunnels,
    uploads::Uploads,
    webhooks::Webhooks,
};

/// File with the address that the control plane listens on.
pub const ADDRESS_FILE: &str = "server.addr";
/// File with the bootstrap administrator's token.
pub const ADMIN_TOKEN_FILE: &str = "admin.token";
const UPLOAD_DIR: &str = "uploads";
const DATABASE_FILE: &str = "server.db";

/// A running control plane.
pub struct App {
    /// Where it listens.
    pub address: SocketAddr,
    lifecycle: Lifecycle,
    db: Db,
    drain: Duration,
}

impl App {
    /// Opens the database, listens and serves. Returns once calls are answered; the broker may come later.
    ///
    /// # Errors
    /// With what could not be set up.
    pub async fn start(config: Config, clock: Clock, lifecycle: Lifecycle) -> anyhow::Result<Self> {
        config.validate()?;
        make_private_dir(&config.data_dir).context("cannot make the data directory")?;
        // Whoever waits for the file must not find the address of an earlier run.
        let address_file = config.data_dir.join(ADDRESS_FILE);
        remove_if_present(&address_file).context("cannot remove the old address")?;
        let epoch = data_encoding::HEXLOWER.encode(&random::bytes::<8>()?);
        let database = config.data_dir.join(DATABASE_FILE);
        make_private_file(&database).context("cannot make the database")?;
        let db = Db::open(&database, &epoch).await.context("cannot open the database")?;
        let broker = BrokerLink::new(config.site()?, config.broker()).context("cannot use the broker directory")?;
        let hub = Arc::new(Hub::default());
        let tokens = Arc::new(Tokens::new(db.clone(), clock.clone()));
        let admin = config.data_dir.join(ADMIN_TOKEN_FILE);
        if tokens.bootstrap(&admin).await?.with_context(|| format!("cannot write {}", admin.display()))? {
            tracing::info!("administrator's token written to {}", admin.display());
        }
        let (shared, token_life_ms) = ((Arc::clone(&hub), Arc::clone(&tokens)), config.node_token_life_ms);
        let agents = Agents::new(db.clone(), clock.clone(), Arc::clone(&hub), Arc::clone(&tokens), config.agents());
        let agents = Arc::new(agents);
        let works_with = (Arc::clone(&broker), Arc::clone(&agents));
        let nodes = Nodes::open(db.clone(), clock.clone(), shared, works_with, token_life_ms).await?;
        let nodes = Arc::new(nodes);
        let events = Events::new(db.clone(), clock.clone(), Arc::clone(&tokens), Arc::clone(&agents));
        let events = Arc::new(events);
        let told = events.position().await?;
        let listener =
            TcpListener::bind(config.listen).await.with_context(|| format!("cannot listen on {}", config.listen))?;
        let address = listener.local_addr()?;
        let public = config.public_url(address)?;
        let upload_dir = config.upload_dir.clone().unwrap_or_else(|| config.data_dir.join(UPLOAD_DIR));
        let parts = (db.clone(), clock.clone());
        let uploads = Uploads::open(&upload_dir, parts, Arc::clone(&agents), public.clone(), config.uploads());
        let uploads = Arc::new(uploads.with_context(|| format!("cannot keep uploads in {}", upload_dir.display()))?);
        let retention = Retention::new(db.clone(), clock.clone(), Arc::clone(&uploads), config.agent_keep_ms);
        let parts = (db.clone(), clock.clone());
        let tunnels = Arc::new(Tunnels::new(parts, Arc::clone(&hub), Arc::clone(&agents), public));
        let directory = Directory::new(db.clone(), clock.clone(), hub, Arc::clone(&tokens), Arc::clone(&agents));
        let webhooks = Webhooks::open(db.clone(), clock.clone(), Arc::clone(&agents), &config.data_dir, config.hooks())
            .context("cannot open the webhooks")?;
        let rooms = Rooms {
            directory: Arc::new(directory),
            agents: Arc::clone(&agents),
            events: Arc::clone(&events),
            nodes: Arc::clone(&nodes),
            tokens,
            tasks: Arc::new(Tasks::new(db.clone(), clock.clone())),
            queue: Arc::new(Queue::new(db.clone(), clock.clone(), Arc::clone(&agents))),
            uploads: Arc::clone(&uploads),
            webhooks: Arc::new(webhooks),
            tunnels: Arc::clone(&tunnels),
            broker,
            metrics: Arc::new(Metrics::default()),
            db: db.clone(),
            clock,
        };
        let router = rooms.router(&config, &lifecycle)?;
        let places = Places::new(config.connections_max);
        let door = http::serve(listener, acceptor(&config)?, router, places, lifecycle.clone());
        lifecycle.spawn_vital("accepting connections", door);
        let stop = lifecycle.soft_token();
        let room = Arc::clone(&nodes);
        lifecycle.spawn_vital("broker", async move { nodes.keep_broker(&stop).await });
        let stop = lifecycle.soft_token();
        lifecycle.spawn_vital("the broker's room", async move { room.keep_room(&stop).await });
        let (stop, kept) = (lifecycle.soft_token(), db.clone());
        lifecycle.spawn_vital("database", async move { kept.keep(&stop).await });
        let stop = lifecycle.soft_token();
        lifecycle.spawn_vital("agents", async move { agents.keep(&stop).await });
        let (stop, teller) = (lifecycle.soft_token(), Arc::clone(&events));
        lifecycle.spawn_vital("watchers of events", async move { teller.tell(told, &stop).await });
        let stop = lifecycle.soft_token();
        lifecycle.spawn_vital("events", async move { events.keep(&stop).await });
        let stop = lifecycle.soft_token();
        lifecycle.spawn_vital("uploads", async move { uploads.keep(&stop).await });
        let stop = lifecycle.soft_token();
        lifecycle.spawn_vital("retention", async move { retention.keep(&stop).await });
        let stop = lifecycle.soft_token();
        lifecycle.spawn_vital("tunnels", async move { tunnels.keep(&stop).await });
        write_private(&address_file, &address.to_string()).context("cannot write the address")?;
        tracing::info!(server.address = %address, "control plane listens on {address}");
        Ok(Self { address, lifecycle, db, drain: config.drain() })
    }

    /// Drains and waits until everything has ended. False when something had to be cut off, or had ended before its time.
    pub async fn stop(self) -> bool {
        let in_time = self.lifecycle.finish(self.drain).await;
        self.db.close().await;
        in_time
    }

    /// Waits for the soft end to begin, then as [`App::stop`].
    pub async fn run(self) -> bool {
        self.lifecycle.draining().await;
        self.stop().await
    }
}

struct Rooms {
    directory: Arc<Directory>,
    agents: Arc<Agents>,
    events: Arc<Events>,
    nodes: Arc<Nodes>,
    tokens: Arc<Tokens>,
    tasks: Arc<Tasks>,
    queue: Arc<Queue>,
    uploads: Arc<Uploads>,
    webhooks: Arc<Webhooks>,
    tunnels: Arc<Tunnels>,
    broker: Arc<BrokerLink>,
    metrics: Arc<Metrics>,
    db: Db,
    clock: Clock,
}

impl Rooms {
    /// Both doors on one router.
    fn router(&self, config: &Config, lifecycle: &Lifecycle) -> anyhow::Result<Router> {
        let pages = Arc::new(Pages {
            db: self.db.clone(),
            nodes: Arc::clone(&self.nodes),
            broker: Arc::clone(&self.broker),
            metrics: Arc::clone(&self.metrics),
            lifecycle: lifecycle.clone(),
        });
        let gate = Arc::new(self.gate(config, lifecycle)?);
        let grpc = self
            .services(config, lifecycle)?
            .layer(axum::middleware::from_fn_with_state(gate, gate::gate))
            .layer(murmur_telemetry::grpc::server_layer());
        let uploads = http::uploads::router(Arc::clone(&self.uploads));
        let webhooks = Arc::clone(&self.webhooks);
        let hooks = Hooks::new(webhooks, lifecycle.clone(), config.hooks(), config.strangers());
        let hooks = http::hooks_router(Arc::new(hooks));
        let (agents, db, clock) = (Arc::clone(&self.agents), self.db.clone(), self.clock.clone());
        let agents = http::agent::router(Arc::new(AgentPages { agents, db, clock }));
        let door = Arc::new(Door { tunnels: Arc::clone(&self.tunnels), lifecycle: lifecycle.clone() });
        // In front of everything: what goes to a tunnel is none of ours.
        let tunnels = axum::middleware::from_fn_with_state(door, http::tunnel::proxy);
        Ok(http::router(pages).merge(uploads).merge(agents).merge(hooks).merge(grpc).layer(tunnels))
    }

    fn services(&self, config: &Config, lifecycle: &Lifecycle) -> anyhow::Result<Router> {
        let directory = DirectoryRpc {
            directory: Arc::clone(&self.directory),
            nodes: Arc::clone(&self.nodes),
            lifecycle: lifecycle.clone(),
            metrics: Arc::clone(&self.metrics),
        };
        let door =
            SessionDoor { clock: self.clock.clone(), heartbeat_ms: config.heartbeat_ms, lease_ms: config.lease_ms };
        let nodes = NodeRpc { nodes: Arc::clone(&self.nodes), lifecycle: lifecycle.clone(), door };
        let auth = AuthRpc { tokens: Arc::clone(&self.tokens), nodes: Arc::clone(&self.nodes) };
        let tasks = TaskRpc { tasks: Arc::clone(&self.tasks) };
        let queue = QueueRpc { queue: Arc::clone(&self.queue) };
        let agents = AgentRpc {
            agents: Arc::clone(&self.agents),
            db: self.db.clone(),
            clock: self.clock.clone(),
            lifecycle: lifecycle.clone(),
            public: self.tunnels.public().clone(),
        };
        let events = EventRpc {
            events: Arc::clone(&self.events),
            nodes: Arc::clone(&self.nodes),
            clock: self.clock.clone(),
            lifecycle: lifecycle.clone(),
        };
        let webhooks = WebhookRpc { webhooks: Arc::clone(&self.webhooks), public_url: config.public_url.clone() };
        let runtime = RuntimeRpc {
            agents: Arc::clone(&self.agents),
            nodes: Arc::clone(&self.nodes),
            queue: Arc::clone(&self.queue),
            lifecycle: lifecycle.clone(),
        };
        let tunnels = TunnelRpc {
            tunnels: Arc::clone(&self.tunnels),
            nodes: Arc::clone(&self.nodes),
            lifecycle: lifecycle.clone(),
        };
        let uploads = UploadRpc { uploads: Arc::clone(&self.uploads), lifecycle: lifecycle.clone() };
        let reflection = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(murmur_proto::FILE_DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        Ok(tonic::service::Routes::new(
            DirectoryServiceServer::new(directory).max_decoding_message_size(RPC_MESSAGE_BYTES_MAX),
        )
        .add_service(NodeServiceServer::new(nodes).max_decoding_message_size(RPC_MESSAGE_BYTES_MAX))
        .add_service(AuthServiceServer::new(auth).max_decoding_message_size(RPC_MESSAGE_BYTES_MAX))
        .add_service(TaskServiceServer::new(tasks).max_decoding_message_size(RPC_MESSAGE_BYTES_MAX))
        .add_service(QueueServiceServer::new(queue).max_decoding_message_size(RPC_MESSAGE_BYTES_MAX))
        .add_service(AgentServiceServer::new(agents).max_decoding_message_size(RPC_MESSAGE_BYTES_MAX))
        .add_service(EventServiceServer::new(events).max_decoding_message_size(RPC_MESSAGE_BYTES_MAX))
        .add_service(RuntimeServiceServer::new(runtime).max_decoding_message_size(RPC_MESSAGE_BYTES_MAX))
        .add_service(UploadServiceServer::new(uploads))
        .add_service(WebhookServiceServer::new(webhooks).max_decoding_message_size(RPC_MESSAGE_BYTES_MAX))
        .add_service(TunnelServiceServer::new(tunnels))
        .add_service(health(lifecycle, &self.db))
        .add_service(reflection().build_v1().context("cannot build the reflection service")?)
        // What Python's client still asks for.
        .add_service(reflection().build_v1alpha().context("cannot build the reflection service")?)
        .prepare()
        .into_axum_router())
    }

    fn gate(&self, config: &Config, lifecycle: &Lifecycle) -> anyhow::Result<Gate> {
        let calls = Rate { per: Duration::from_secs(1), count: config.calls_per_second, burst: config.calls_burst };
        Ok(Gate {
            tokens: Arc::clone(&self.tokens),
            nodes: Arc::clone(&self.nodes),
            limits: Limits::new(calls, config.strangers()),
            metrics: Arc::clone(&self.metrics),
            lifecycle: lifecycle.clone(),
            unary_timeout: Duration::from_millis(config.unary_timeout_ms.get()),
            streams: gate::streaming_paths().context("cannot read the contract")?,
        })
    }
}

/// The gRPC health service: serving until the soft end begins, except while nothing can be written.
fn health(
    lifecycle: &Lifecycle,
    db: &Db,
) -> tonic_health::pb::health_server::HealthServer<impl tonic_health::pb::health_server::Health> {
    let (reporter, service) = tonic_health::server::health_reporter();
    let draining = lifecycle.clone();
    let mut database = db.health();
    lifecycle.spawn_vital("health", async move {
        loop {
            let is_unwritable = database.borrow_and_update().trouble().is_some();
            let is_serving = !is_unwritable && !draining.is_draining();
            let status = if is_serving { ServingStatus::Serving } else { ServingStatus::NotServing };
            reporter.set_service_status("", status).await;
            tokio::select! {
                () = draining.draining() => break,
                changed = database.changed() => if changed.is_err() { break },
            }
        }
        reporter.set_service_status("", ServingStatus::NotServing).await;
    });
    service
}

fn acceptor(config: &Config) -> anyhow::Result<Acceptor> {
    match (&config.tls_cert, &config.tls_key) {
        (Some(cert), Some(key)) => Ok(Acceptor::Tls(http::acceptor(cert, key)?)),
        _ => Ok(Acceptor::Plain),
    }
}

#[cfg(test)]
mod tests {
    use murmur_core::{id::WorkspaceId, limits::ROOT_CERT_LIFE_MS, reason::Reason};
    use murmur_crypto::{
        cert::Origin,
        issue::{self, RootSpec, Validity},
        keys::IdentityKey,
    };
    use murmur_proto::{
        client::{ControlClient, Headers, server_channel},
        status::RpcError,
        v1,
    };
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpStream,
    };
    use tonic_health::pb::{HealthCheckRequest, health_check_response, health_client::HealthClient};

    use super::*;

    async fn ready_page(app: &App) -> String {
        let mut stream = TcpStream::connect(app.address).await.unwrap();
        stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn ready_page_until(app: &App, has: &str) -> String {
        let asked = async {
            loop {
                let answer = ready_page(app).await;
                if answer.contains(has) {
                    return answer;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), asked).await.unwrap()
    }

    async fn is_serving(app: &App) -> bool {
        let channel = server_channel(&format!("http://{}", app.address), None).unwrap();
        let answer = HealthClient::new(channel).check(HealthCheckRequest::default()).await.unwrap().into_inner();
        answer.status() == health_check_response::ServingStatus::Serving
    }

    async fn until_serving(app: &App, wanted: bool) {
        let asked = async { while is_serving(app).await != wanted {} };
        let heard = tokio::time::timeout(Duration::from_secs(20), asked).await;
        heard.unwrap_or_else(|_| panic!("the health service never says that serving is {wanted}"));
    }

    async fn create_workspace(client: &mut ControlClient, number: usize) -> Result<(), tonic::Status> {
        let (name, key) = (format!("w{number}"), IdentityKey::generate().unwrap());
        let spec = RootSpec {
            workspace_id: WorkspaceId::from_bytes(key.public().as_bytes()[..16].try_into().unwrap()),
            serial: 1,
            validity: Validity::from_now(Clock::system().now_ms(), ROOT_CERT_LIFE_MS),
            slug_scope: vec![format!("/w/{name}/")],
            origin: Origin::Owner,
        };
        let root = issue::root(&key, spec).unwrap();
        let request = v1::CreateWorkspaceRequest {
            name,
            mode: v1::WorkspaceMode::Owner.into(),
            root_certificate: root.certificate().encode().into(),
        };
        client.directory.create_workspace(request).await.map(|_| ())
    }

    #[tokio::test]
    async fn a_part_that_is_lost_takes_the_control_plane_along() {
        let dir = tempfile::tempdir().unwrap();
        let lifecycle = Lifecycle::new();
        let app = App::start(Config::local(dir.path().to_owned()), Clock::system(), lifecycle.clone()).await.unwrap();
        lifecycle.spawn_vital("ear", async {});
        let ended = tokio::time::timeout(Duration::from_secs(20), app.run()).await;
        assert!(!ended.expect("it goes on"), "it counts as a good end");
    }

    #[tokio::test]
    async fn a_full_disk_is_told_by_name_and_forgotten_when_there_is_room() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { calls_burst: 10_000.try_into().unwrap(), ..Config::local(dir.path().to_owned()) };
        let app = App::start(config, Clock::system(), Lifecycle::new()).await.unwrap();
        let token = std::fs::read_to_string(dir.path().join(ADMIN_TOKEN_FILE)).unwrap();
        let channel = server_channel(&format!("http://{}", app.address), None).unwrap();
        let mut admin = ControlClient::new(channel, Headers::new().with_token(token.trim()).unwrap());

        app.db.set_pages_max(1).await;
        let mut number = 0;
        let refused = loop {
            number += 1;
            if let Err(refused) = create_workspace(&mut admin, number).await {
                break refused;
            }
        };
        assert_eq!(RpcError::from(&refused).reason, Some(Reason::StorageFull), "{refused}");
        assert!(refused.message().contains("disk is full"), "{refused}");
        let page = ready_page_until(&app, "disk is full").await;
        assert!(page.starts_with("HTTP/1.1 503"), "{page}");
        until_serving(&app, false).await;

        app.db.set_pages_max(100_000).await;
        create_workspace(&mut admin, number).await.unwrap();
        let page = ready_page_until(&app, "ready\n").await;
        assert!(page.starts_with("HTTP/1.1 200"), "{page}");
        until_serving(&app, true).await;
        assert!(app.stop().await);
    }
}
