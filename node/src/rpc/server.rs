//! The door put together: services, health and reflection behind one check, on one socket.

use std::{path::PathBuf, sync::Arc};

use futures::TryStreamExt as _;
use murmur_core::reason::Reason;
use murmur_proto::{
    FILE_DESCRIPTOR_SET,
    client::RPC_MESSAGE_BYTES_MAX,
    node::v1::{
        event_service_server::EventServiceServer, file_service_server::FileServiceServer,
        host_service_server::HostServiceServer, message_service_server::MessageServiceServer,
        notify_service_server::NotifyServiceServer, outbox_service_server::OutboxServiceServer,
        permission_service_server::PermissionServiceServer, session_service_server::SessionServiceServer,
        share_service_server::ShareServiceServer,
    },
    status::status,
};
use tokio::{
    net::UnixListener,
    sync::{Semaphore, SemaphorePermit, watch},
};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status, service::Routes, transport::Server};
use tonic_health::{ServingStatus, server::HealthReporter};
use tower::Layer as _;

use super::{
    caller::{Caller, Wish, existing, is_interactive, known, local, own_path, speaker},
    client::Clients,
    connection::{Connection, OtherEnd},
    door::Door,
    event::EventsRpc,
    file::Files,
    forward::Forward,
    host::Host,
    message::Messages,
    notify::Notifications,
    outbox::Outbox,
    paths::Paths,
    permission::PermissionsRpc,
    session::SessionsRpc,
    share::Share,
    status::{NodePending, Refusal},
};
use crate::{
    app::{Core, Stage},
    clock::Clock,
    metrics::Metrics,
    post::LocalAgent,
};

/// What every service sees.
pub struct Shared {
    /// Whether the node is approved yet, and then everything it has.
    pub stage: watch::Receiver<Stage>,
    /// Cancelled when the node goes down: streams end.
    pub drain: CancellationToken,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// The way to the control plane, once it is known where that is.
    pub forward: Arc<Forward>,
    /// Which programs stand behind sessions.
    pub clients: Arc<Clients>,
    /// Nobody speaks for an agent without its token.
    pub require_token: bool,
    /// The data directory, for status and disk space.
    pub data_dir: PathBuf,
    /// When the node started, Unix milliseconds.
    pub started_ms: u64,
    /// What time it is.
    pub clock: Clock,
    /// Places for files that are copied.
    pub copies: Copies,
}

/// Files that are copied at one time.
pub struct Copies(Semaphore);

impl Default for Copies {
    /// The disk does not get faster by more.
    fn default() -> Self {
        Self(Semaphore::new(4))
    }
}

impl Shared {
    /// Everything that an approved node has.
    pub(super) fn core(&self) -> Result<Arc<Core>, Refusal> {
        match &*self.stage.borrow() {
            Stage::Ready(core) => Ok(Arc::clone(core)),
            Stage::Starting(pending) | Stage::Pending(pending) => Err(NodePending(pending.to_string()).into()),
        }
    }

    /// Who speaks; an interactive agent that does not exist yet is registered.
    pub(super) async fn speaker(&self, call: &Call, agent: &str) -> Result<(Arc<Core>, LocalAgent), Refusal> {
        let core = self.core()?;
        let (row, _) = speaker(&call.caller, Wish::named(agent), &core.agents, &core.identity).await?;
        Ok((core, local(&row)))
    }

    /// Who reads: also an agent that has ended, whose messages and files stay readable here. Nobody is registered by reading, but for
    /// `me`.
    pub(super) async fn reader(&self, call: &Call, agent: &str) -> Result<(Arc<Core>, LocalAgent), Refusal> {
        let core = self.core()?;
        if let Some(row) = existing(&call.caller, agent, &core.agents, &core.identity)? {
            return Ok((core, local(&row)));
        }
        let slug = core.agents.slug(&own_path(agent, &core.identity)?)?;
        match core.agents.ended_by_slug(slug).await?.filter(|row| is_interactive(row)) {
            Some(row) => Ok((core, local(&row))),
            None => {
                let row = known(&call.caller, agent, &core.agents, &core.identity).await?;
                Ok((core, local(&row)))
            }
        }
    }

    /// Waits for a place among the files that are copied.
    pub(super) async fn copy_place(&self) -> Result<SemaphorePermit<'_>, Status> {
        // The semaphore is never closed.
        self.copies.0.acquire().await.map_err(|_| Self::draining())
    }

    /// The answer to new work while the node goes down.
    pub(super) fn draining() -> Status {
        status(Reason::Draining, "the node is going down")
    }
}

/// Who made a call.
pub(super) struct Call {
    pub(super) caller: Caller,
    /// The process at the other end, where the kernel tells it.
    pub(super) pid: Option<i32>,
}

impl Call {
    /// Takes a request apart. The door left the caller in it.
    pub(super) fn of<T>(request: Request<T>) -> (Self, T) {
        let caller = request.extensions().get::<Caller>().cloned().unwrap_or(Caller::User);
        let peer = request.extensions().get::<OtherEnd>().and_then(|end| end.cred);
        // A process of another container has no number here.
        let pid = peer.and_then(|cred| cred.pid()).filter(|pid| *pid > 0);
        (Self { caller, pid }, request.into_inner())
    }
}

/// The services and how healthy they are.
pub struct Services {
    paths: Paths,
    /// Says how healthy the services are.
    pub health: HealthReporter,
    shared: Arc<Shared>,
}

impl Services {
    /// Puts the services together.
    ///
    /// # Errors
    /// When the contract cannot be served by reflection.
    pub async fn new(shared: Arc<Shared>) -> anyhow::Result<Self> {
        let (health, health_service) = tonic_health::server::health_reporter();
        let reflection = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        let messages = MessageServiceServer::new(Messages::new(shared.clone()));
        let sessions = SessionServiceServer::new(SessionsRpc { shared: shared.clone() });
        let outbox = OutboxServiceServer::new(Outbox { shared: shared.clone() });
        let host = HostServiceServer::new(Host { shared: shared.clone() });
        let notify = NotifyServiceServer::new(Notifications { shared: shared.clone() });
        let files = FileServiceServer::new(Files::new(shared.clone()));
        let share = ShareServiceServer::new(Share::new(shared.clone()));
        let events = EventServiceServer::new(EventsRpc { shared: shared.clone() });
        let permissions = PermissionServiceServer::new(PermissionsRpc { shared: shared.clone() });
        let rest = Routes::new(sessions.max_decoding_message_size(RPC_MESSAGE_BYTES_MAX))
            .add_service(outbox)
            .add_service(host)
            .add_service(notify)
            .add_service(files.max_decoding_message_size(RPC_MESSAGE_BYTES_MAX))
            .add_service(share)
            .add_service(events)
            .add_service(permissions)
            .add_service(health_service)
            .add_service(reflection().build_v1()?)
            // What Python's client still asks for.
            .add_service(reflection().build_v1alpha()?)
            .prepare();
        let paths = Paths::new(messages.max_decoding_message_size(RPC_MESSAGE_BYTES_MAX), rest);
        let services = Self { paths, health, shared };
        services.ready(false).await;
        Ok(services)
    }

    /// Says whether the services that need an approved node serve.
    pub async fn ready(&self, is_ready: bool) {
        let serving = if is_ready { ServingStatus::Serving } else { ServingStatus::NotServing };
        self.health.set_service_status("", serving).await;
        self.health.set_service_status("murmur.node.v1.MessageService", serving).await;
        self.health.set_service_status("murmur.node.v1.OutboxService", serving).await;
        self.health.set_service_status("murmur.node.v1.SessionService", serving).await;
        self.health.set_service_status("murmur.node.v1.FileService", serving).await;
        self.health.set_service_status("murmur.node.v1.ShareService", serving).await;
        self.health.set_service_status("murmur.node.v1.EventService", serving).await;
        self.health.set_service_status("murmur.node.v1.PermissionService", serving).await;
        self.health.set_service_status("murmur.node.v1.HostService", ServingStatus::Serving).await;
    }

    /// Serves until `drain` is cancelled and the calls that are under way have ended.
    ///
    /// # Errors
    /// When the transport fails.
    pub async fn serve(&self, listener: UnixListener) -> Result<(), tonic::transport::Error> {
        let drain = self.shared.drain.clone();
        let door = Door::new(self.paths.clone(), self.shared.clone());
        let traced = murmur_telemetry::grpc::server_layer().layer(door);
        Server::builder()
            .max_concurrent_streams(4096)
            .serve_with_incoming_shutdown(
                traced,
                UnixListenerStream::new(listener).map_ok(Connection::from),
                async move {
                    drain.cancelled().await;
                },
            )
            .await
    }
}
