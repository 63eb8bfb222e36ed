//! Connecting: to a node over its Unix socket, to the control plane over TCP, with the headers that every call carries.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use murmur_proto::client::{Headers, NodeClient, connect_socket};
//! let channel = connect_socket(std::path::Path::new("/run/user/1000/murmur/node.sock")).await?;
//! let mut node = NodeClient::new(channel, Headers::new());
//! let version = node.host.get_version(murmur_proto::node::v1::GetVersionRequest {}).await?.into_inner();
//! println!("node {}", version.node_version);
//! # Ok(()) }
//! ```

mod whole;

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use murmur_core::limits::SOCKET_PATH_BYTES_MAX;
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataMap, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};

pub use self::whole::Whole;
use crate::{
    PROTOCOL,
    node::v1::{
        event_service_client::EventServiceClient as NodeEventServiceClient, file_service_client::FileServiceClient,
        host_service_client::HostServiceClient, message_service_client::MessageServiceClient,
        notify_service_client::NotifyServiceClient, outbox_service_client::OutboxServiceClient,
        permission_service_client::PermissionServiceClient, session_service_client::SessionServiceClient,
        share_service_client::ShareServiceClient,
    },
    v1::{
        agent_service_client::AgentServiceClient, auth_service_client::AuthServiceClient,
        directory_service_client::DirectoryServiceClient, event_service_client::EventServiceClient,
        node_service_client::NodeServiceClient, queue_service_client::QueueServiceClient,
        runtime_service_client::RuntimeServiceClient, task_service_client::TaskServiceClient,
        tunnel_service_client::TunnelServiceClient, upload_service_client::UploadServiceClient,
        webhook_service_client::WebhookServiceClient,
    },
};

/// Metadata key under which both ends state [`PROTOCOL`]; a difference is refused as `VERSION_SKEW`.
pub const PROTOCOL_HEADER: &str = "murmur-protocol";

/// Metadata key under which a node states its incarnation, by which an earlier one is refused (PROTOCOL §5.9).
pub const INCARNATION_HEADER: &str = "murmur-incarnation";

/// Metadata key with which a caller without a token names, on a node's socket, the interactive agent of the node's account that it
/// speaks as. Read by the node and never forwarded.
pub const AGENT_HEADER: &str = "murmur-agent";

/// Metadata key with which a node names, beside its own token, whom it forwards a call for: `user`, or `agent:` and an id.
pub const AS_HEADER: &str = "murmur-as";

/// Largest message of an RPC, both ways.
pub const RPC_MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

const HTTPS: &str = "https";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// The same on this host, where nothing lies between the two: a node that answers no ping for so long is stopped or stuck. A busy one
/// answers, since pings wait for no call.
const LOCAL_KEEP_ALIVE: Duration = Duration::from_secs(5);

/// A channel whose calls carry [`Headers`].
pub type Intercepted = InterceptedService<Whole<Channel>, Headers>;

/// Why no connection could be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The kernel takes no longer path.
    #[error("socket path `{}` is {length} bytes; at most {SOCKET_PATH_BYTES_MAX} are possible", path.display())]
    PathTooLong {
        /// The path.
        path: PathBuf,
        /// Its length in bytes.
        length: usize,
    },
    /// No node listens there.
    #[error("no node answers on `{}`", path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// What the transport said.
        #[source]
        source: tonic::transport::Error,
    },
    /// The URL cannot be used.
    #[error("`{url}` is no address of a control plane: it {rule}")]
    Url {
        /// The URL.
        url: String,
        /// What it must be.
        rule: &'static str,
        /// What the transport said, when it was asked.
        #[source]
        source: Option<tonic::transport::Error>,
    },
    /// No control plane answers there.
    #[error("no control plane answers at `{url}`")]
    Server {
        /// The URL.
        url: String,
        /// What the transport said.
        #[source]
        source: tonic::transport::Error,
    },
}

/// Connects to a node's socket now.
///
/// # Errors
/// [`ConnectError`] when nobody listens or the path is too long.
pub async fn connect_socket(path: &Path) -> Result<Channel, ConnectError> {
    let endpoint = socket_endpoint(path)?;
    endpoint.connect().await.map_err(|source| ConnectError::Socket { path: path.to_owned(), source })
}

/// A channel to a node's socket that connects with its first call, and again after the node was away.
///
/// # Errors
/// [`ConnectError`] when the path is too long.
pub fn socket_channel(path: &Path) -> Result<Channel, ConnectError> {
    Ok(socket_endpoint(path)?.connect_lazy())
}

fn socket_endpoint(path: &Path) -> Result<Endpoint, ConnectError> {
    let length = path.as_os_str().len();
    if length > SOCKET_PATH_BYTES_MAX {
        return Err(ConnectError::PathTooLong { path: path.to_owned(), length });
    }
    Endpoint::from_shared(format!("unix://{}", path.display()))
        .map(|endpoint| {
            // The kernel takes what is sent to a stopped process, so nothing but its silence tells.
            endpoint
                .connect_timeout(CONNECT_TIMEOUT)
                .http2_keep_alive_interval(LOCAL_KEEP_ALIVE)
                .keep_alive_timeout(LOCAL_KEEP_ALIVE)
                .keep_alive_while_idle(true)
        })
        .map_err(|source| ConnectError::Socket { path: path.to_owned(), source })
}

/// Connects to a control plane now.
///
/// `ca_pem` replaces the system's roots for an `https://` address.
///
/// # Errors
/// [`ConnectError`] when the URL is no address for a token, as [`check_server`] has it, or nobody answers.
pub async fn connect_server(url: &str, ca_pem: Option<&str>) -> Result<Channel, ConnectError> {
    check_server(url)?;
    connect_stranger(url, ca_pem).await
}

/// As [`connect_server`], for calls that carry no secret: any `http://` address will do.
///
/// # Errors
/// [`ConnectError`] when the URL is no address or nobody answers.
pub async fn connect_stranger(url: &str, ca_pem: Option<&str>) -> Result<Channel, ConnectError> {
    let endpoint = server_endpoint(url, ca_pem)?;
    endpoint.connect().await.map_err(|source| ConnectError::Server { url: url.to_owned(), source })
}

/// A channel to a control plane that connects with its first call, and again after it was away.
///
/// # Errors
/// [`ConnectError`] when the URL is no address for a token, as [`check_server`] has it.
pub fn server_channel(url: &str, ca_pem: Option<&str>) -> Result<Channel, ConnectError> {
    check_server(url)?;
    Ok(server_endpoint(url, ca_pem)?.connect_lazy())
}

/// Whether a token may go to this address: on any other way than TLS and this machine's own loopback whoever stands beside it reads it. Of
/// names only `localhost` is known to stay here.
///
/// # Errors
/// [`ConnectError::Url`].
pub fn check_server(url: &str) -> Result<(), ConnectError> {
    let endpoint = address(url)?;
    let host = endpoint.uri().host().unwrap_or_default();
    let ip = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let is_here = host.eq_ignore_ascii_case("localhost") || ip.is_ok_and(|ip| ip.is_loopback());
    if is_here || endpoint.uri().scheme_str() == Some(HTTPS) {
        return Ok(());
    }
    let rule = "must begin with https:// unless it is on loopback, since a token would go there in clear";
    Err(ConnectError::Url { url: url.to_owned(), rule, source: None })
}

/// A URL of a scheme that can be spoken. The transport takes much else, and then finds nobody.
fn address(url: &str) -> Result<Endpoint, ConnectError> {
    let refused = |source| ConnectError::Url {
        url: url.to_owned(),
        rule: "must be http://HOST:PORT or https://HOST:PORT",
        source,
    };
    let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|source| refused(Some(source)))?;
    match (endpoint.uri().scheme_str(), endpoint.uri().host()) {
        (Some("http" | HTTPS), Some(host)) if !host.is_empty() => Ok(endpoint),
        _ => Err(refused(None)),
    }
}

fn server_endpoint(url: &str, ca_pem: Option<&str>) -> Result<Endpoint, ConnectError> {
    let refused = |source| {
        let rule = "must be one that can be spoken to with TLS and the authorities that are trusted";
        ConnectError::Url { url: url.to_owned(), rule, source: Some(source) }
    };
    // Without keep-alive a black-holed link is noticed only when the kernel gives up, minutes later.
    let endpoint = address(url)?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true);
    match ca_pem {
        Some(pem) => {
            endpoint.tls_config(ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem))).map_err(refused)
        }
        None if endpoint.uri().scheme_str() == Some(HTTPS) => {
            endpoint.tls_config(ClientTlsConfig::new().with_enabled_roots()).map_err(refused)
        }
        None => Ok(endpoint),
    }
}

/// What every call carries: the protocol number, a bearer token and a node's incarnation if there is one, and the caller's trace
/// context.
#[derive(Clone)]
pub struct Headers {
    /// One for all clones, since a token is renewed while calls go on.
    authorization: Arc<RwLock<Option<MetadataValue<Ascii>>>>,
    incarnation: Option<MetadataValue<Ascii>>,
    agent: Option<MetadataValue<Ascii>>,
    trace: fn(&mut MetadataMap),
}

/// A token or name with characters that no header can carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the token or name has characters that none of ours has")]
pub struct TokenNotAscii;

impl Headers {
    /// No token, no trace.
    #[must_use]
    pub fn new() -> Self {
        Self { authorization: Arc::default(), incarnation: None, agent: None, trace: |_| {} }
    }

    /// Adds a bearer token.
    ///
    /// # Errors
    /// [`TokenNotAscii`].
    pub fn with_token(self, token: &str) -> Result<Self, TokenNotAscii> {
        self.set_token(token)?;
        Ok(self)
    }

    /// Sets the bearer token of this and of all its clones.
    ///
    /// # Errors
    /// [`TokenNotAscii`].
    pub fn set_token(&self, token: &str) -> Result<(), TokenNotAscii> {
        let mut value: MetadataValue<Ascii> = format!("Bearer {token}").parse().map_err(|_| TokenNotAscii)?;
        value.set_sensitive(true);
        *self.authorization.write().unwrap_or_else(PoisonError::into_inner) = Some(value);
        Ok(())
    }

    /// Adds a node's incarnation.
    #[must_use]
    pub fn with_incarnation(mut self, incarnation: murmur_core::id::Incarnation) -> Self {
        // Hex digits and dashes are always valid.
        self.incarnation = incarnation.to_string().parse().ok();
        self
    }

    /// Names the interactive agent that the caller speaks as on a node's socket; nobody when it is empty.
    ///
    /// # Errors
    /// [`TokenNotAscii`] when no header can carry the name.
    pub fn with_agent(mut self, agent: &str) -> Result<Self, TokenNotAscii> {
        self.agent = if agent.is_empty() { None } else { Some(agent.parse().map_err(|_| TokenNotAscii)?) };
        Ok(self)
    }

    /// Adds what writes the current trace context, such as `murmur_telemetry::grpc::inject`.
    #[must_use]
    pub fn with_trace(mut self, trace: fn(&mut MetadataMap)) -> Self {
        self.trace = trace;
        self
    }
}

impl Default for Headers {
    fn default() -> Self {
        Self::new()
    }
}

impl Interceptor for Headers {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let metadata = request.metadata_mut();
        metadata.insert(PROTOCOL_HEADER, MetadataValue::from(PROTOCOL));
        if let Some(authorization) = &*self.authorization.read().unwrap_or_else(PoisonError::into_inner) {
            metadata.insert("authorization", authorization.clone());
        }
        if let Some(incarnation) = &self.incarnation {
            metadata.insert(INCARNATION_HEADER, incarnation.clone());
        }
        if let Some(agent) = &self.agent {
            metadata.insert(AGENT_HEADER, agent.clone());
        }
        (self.trace)(metadata);
        Ok(request)
    }
}

/// The services of a node's socket.
#[derive(Clone)]
pub struct NodeClient {
    /// Send, request, inbox, tail.
    pub messages: MessageServiceClient<Intercepted>,
    /// What waits, dead letters and the quarantine.
    pub outbox: OutboxServiceClient<Intercepted>,
    /// Register and attach.
    pub sessions: SessionServiceClient<Intercepted>,
    /// Peers, versions, status.
    pub host: HostServiceClient<Intercepted>,
    /// Files: send, follow, cancel.
    pub files: FileServiceClient<Intercepted>,
    /// Notification channels.
    pub notify: NotifyServiceClient<Intercepted>,
    /// What an agent shows by a link.
    pub share: ShareServiceClient<Intercepted>,
    /// What happened around an agent.
    pub events: NodeEventServiceClient<Intercepted>,
    /// Approvals of tool calls.
    pub permissions: PermissionServiceClient<Intercepted>,
}

impl NodeClient {
    /// Clients over one channel.
    #[must_use]
    pub fn new(channel: Channel, headers: Headers) -> Self {
        let service = InterceptedService::new(Whole(channel), headers);
        Self {
            messages: MessageServiceClient::new(service.clone()).max_decoding_message_size(RPC_MESSAGE_BYTES_MAX),
            outbox: OutboxServiceClient::new(service.clone()).max_decoding_message_size(RPC_MESSAGE_BYTES_MAX),
            sessions: SessionServiceClient::new(service.clone()).max_decoding_message_size(RPC_MESSAGE_BYTES_MAX),
            host: HostServiceClient::new(service.clone()).max_decoding_message_size(RPC_MESSAGE_BYTES_MAX),
            notify: NotifyServiceClient::new(service.clone()),
            files: FileServiceClient::new(service.clone()).max_decoding_message_size(RPC_MESSAGE_BYTES_MAX),
            share: ShareServiceClient::new(service.clone()),
            events: NodeEventServiceClient::new(service.clone()).max_decoding_message_size(RPC_MESSAGE_BYTES_MAX),
            permissions: PermissionServiceClient::new(service).max_decoding_message_size(RPC_MESSAGE_BYTES_MAX),
        }
    }
}

/// The services of a control plane.
#[derive(Clone)]
pub struct ControlClient {
    /// Workspaces, agents, keys.
    pub directory: DirectoryServiceClient<Intercepted>,
    /// Enrolment, sessions, broker credentials.
    pub nodes: NodeServiceClient<Intercepted>,
    /// Tokens and invites.
    pub auth: AuthServiceClient<Intercepted>,
    /// Spawn, watch and stop agents.
    pub agents: AgentServiceClient<Intercepted>,
    /// Checklists.
    pub tasks: TaskServiceClient<Intercepted>,
    /// Follow-up work.
    pub queue: QueueServiceClient<Intercepted>,
    /// What a node is to run.
    pub runtime: RuntimeServiceClient<Intercepted>,
    /// Events around agents.
    pub events: EventServiceClient<Intercepted>,
    /// Files for everybody with the link.
    pub uploads: UploadServiceClient<Intercepted>,
    /// Ports of a node.
    pub tunnels: TunnelServiceClient<Intercepted>,
    /// Sources of webhooks.
    pub webhooks: WebhookServiceClient<Intercepted>,
}

impl ControlClient {
    /// Clients over one channel.
    #[must_use]
    pub fn new(channel: Channel, headers: Headers) -> Self {
        let service = InterceptedService::new(Whole(channel), headers);
        Self {
            directory: DirectoryServiceClient::new(service.clone()).max_decoding_message_size(RPC_MESSAGE_BYTES_MAX),
            nodes: NodeServiceClient::new(service.clone()).max_decoding_message_size(RPC_MESSAGE_BYTES_MAX),
            auth: AuthServiceClient::new(service.clone()).max_decoding_message_size(RPC_MESSAGE_BYTES_MAX),
            agents: AgentServiceClient::new(service.clone()).max_decoding_message_size(RPC_MESSAGE_BYTES_MAX),
            tasks: TaskServiceClient::new(service.clone()).max_decoding_message_size(RPC_MESSAGE_BYTES_MAX),
            queue: QueueServiceClient::new(service.clone()).max_decoding_message_size(RPC_MESSAGE_BYTES_MAX),
            runtime: RuntimeServiceClient::new(service.clone()).max_decoding_message_size(RPC_MESSAGE_BYTES_MAX),
            events: EventServiceClient::new(service.clone()).max_decoding_message_size(RPC_MESSAGE_BYTES_MAX),
            uploads: UploadServiceClient::new(service.clone()),
            tunnels: TunnelServiceClient::new(service.clone()),
            webhooks: WebhookServiceClient::new(service).max_decoding_message_size(RPC_MESSAGE_BYTES_MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(url: &str) -> Option<String> {
        check_server(url).err().map(|error| error.to_string())
    }

    #[test]
    fn a_token_goes_over_tls_or_stays_on_this_machine() {
        for url in [
            "https://murmur.example.org",
            "HTTPS://192.0.2.2:7700",
            "http://127.0.0.1:7700",
            "http://127.8.9.10:1",
            "http://[::1]:7700",
            "http://LocalHost:7700/",
        ] {
            assert_eq!(refused(url), None, "{url}");
        }
        for url in [
            "http://192.0.2.2:18999",
            "http://0.0.0.0:7700",
            "http://murmur.example.org",
            "http://127.0.0.1.example.org",
            "http://localhost@example.org",
            "http://[2001:db8::1]:7700",
        ] {
            let why = refused(url).unwrap_or_else(|| panic!("{url} was taken"));
            assert!(why.contains("https://") && why.contains("loopback"), "{why}");
            assert!(server_channel(url, None).is_err(), "{url}");
        }
    }

    #[test]
    fn what_is_no_address_is_told_before_anybody_is_looked_for() {
        for url in ["", "garbage", "127.0.0.1:7700", "ftp://127.0.0.1", "http://", "http:// x"] {
            let why = refused(url).unwrap_or_else(|| panic!("{url} was taken"));
            assert!(why.contains("must be http://HOST:PORT"), "{why}");
        }
    }
}
