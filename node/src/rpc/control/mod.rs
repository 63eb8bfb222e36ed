//! The client of the control plane: what the node asks of it, and whether it is there.
//!
//! [`Control`] is what the rooms call. [`ControlTasks`] keep the node's session open for as long as the process lives, and beside it follow the
//! directory, renew the broker credentials and publish keys; all of them start again with every session.

mod broker;
mod convert;
mod error;
mod events;
mod run;
mod runtime;
pub(super) mod session;
mod share;
mod token;
mod watch;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use murmur_core::id::{AgentId, Incarnation};
use murmur_proto::{
    client::{ControlClient, Headers, TokenNotAscii},
    v1,
};
use tokio::sync::{Mutex, Notify, mpsc, watch::Receiver, watch::Sender};
pub use tonic::transport::Channel;

pub use error::ControlError;
pub use run::{ControlTasks, Parts};

use crate::{agents::Registration, directory::Peer, keys::AgentKeys};

/// How long one call may take. Silence on the connection is noticed by its keep-alive, an overloaded server only by this.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Attachments that wait to be told.
const ATTACHMENTS_MAX: usize = 4096;

/// What is known about the control plane.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ControlState {
    /// The node's session is open.
    pub connected: bool,
    /// Another process holds the session of this node: nothing is consumed until it ends.
    pub fenced: Option<String>,
    /// It does not take this node's token: it was revoked, or ended while the node was off.
    pub refused: bool,
    /// Its version; empty before the first session.
    pub server_version: String,
    /// Milliseconds that its clock is ahead of this host's.
    pub clock_skew_ms: i64,
    /// Why the last session ended or none could be opened.
    pub trouble: Option<String>,
    /// When this process found that its store is an old copy.
    pub restored_ms: Option<u64>,
    /// Sessions opened so far.
    pub opened: u64,
    /// Sessions that could not be opened, or broke, so far.
    pub failed: u64,
}

/// A session of an agent began or ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Attachment {
    agent_id: AgentId,
    attached: bool,
}

/// What the rooms ask of the control plane.
pub struct Control {
    client: ControlClient,
    /// What every call of the client carries.
    headers: Headers,
    state: Sender<ControlState>,
    attachments: mpsc::Sender<Attachment>,
    heard: Mutex<mpsc::Receiver<Attachment>>,
    /// The next session is to end that of another process.
    takeover: AtomicBool,
    /// The session is to be opened, or opened again, now.
    again: Notify,
    /// Somebody opens sessions.
    starting: AtomicBool,
    /// What is on the disk for the next process to go by.
    kept_time: Mutex<String>,
}

impl Control {
    /// A client that connects with its first call.
    ///
    /// # Errors
    /// [`TokenNotAscii`] when the node's token cannot be sent.
    pub fn new(channel: Channel, token: &str, incarnation: Incarnation) -> Result<Arc<Self>, TokenNotAscii> {
        let headers =
            Headers::new().with_token(token)?.with_incarnation(incarnation).with_trace(murmur_telemetry::grpc::inject);
        let (attachments, heard) = mpsc::channel(ATTACHMENTS_MAX);
        let client = ControlClient::new(channel, headers.clone());
        Ok(Arc::new(Self {
            client,
            headers,
            state: Sender::new(ControlState::default()),
            attachments,
            heard: Mutex::new(heard),
            takeover: AtomicBool::new(false),
            again: Notify::new(),
            starting: AtomicBool::new(false),
            kept_time: Mutex::default(),
        }))
    }

    /// Ends the session of whatever other process runs as this node, and takes its place. Returns false when this process had it.
    ///
    /// # Errors
    /// [`ControlError::Down`] when no session can be opened.
    pub async fn take_over(&self) -> Result<bool, ControlError> {
        if self.state.borrow().connected {
            return Ok(false);
        }
        self.takeover.store(true, Ordering::SeqCst);
        self.again.notify_one();
        let mut state = self.state();
        let opened = async { drop(state.wait_for(|state| state.connected).await) };
        if tokio::time::timeout(CALL_TIMEOUT, opened).await.is_ok() {
            return Ok(true);
        }
        self.takeover.store(false, Ordering::SeqCst);
        let trouble = self.state.borrow().trouble.clone();
        Err(ControlError::Down(trouble.unwrap_or_else(|| "no session could be opened".to_owned())))
    }

    /// At the start the control plane first hears who calls from the hello; what comes before that could be taken for another process.
    async fn introduced(&self) {
        if !self.starting.load(Ordering::SeqCst) {
            return;
        }
        let mut state = self.state();
        let known = async { drop(state.wait_for(|state| state.connected || state.trouble.is_some()).await) };
        let _ = tokio::time::timeout(CALL_TIMEOUT, known).await;
    }

    /// What is known about it, and every change of that.
    #[must_use]
    pub fn state(&self) -> Receiver<ControlState> {
        self.state.subscribe()
    }

    /// Tells that a session of an agent began or ended. Told again as a whole when the connection is new.
    pub fn attachment(&self, agent_id: AgentId, attached: bool) {
        // While the connection is away nobody takes them, and the next one begins with the whole. While it is there, they are taken
        // faster than programs come and go.
        let _ = self.attachments.try_send(Attachment { agent_id, attached });
    }

    /// Claims a slug for an interactive agent, and says whether it is new.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn register_agent(&self, wish: &Registration) -> Result<(Peer, bool), ControlError> {
        let request = v1::RegisterAgentRequest {
            path: wish.path.to_string(),
            description: wish.description.clone(),
            group: wish.group.clone(),
            kind: v1::AgentKind::Interactive.into(),
            suffix_when_taken: wish.suffix_when_taken,
            move_here: wish.move_here,
        };
        self.introduced().await;
        let mut client = self.client.directory.clone();
        let answer = call(client.register_agent(request)).await?;
        Ok((convert::answered(answer.agent)?, answer.created))
    }

    /// Publishes an agent's chain and prekey.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn publish_keys(&self, agent: AgentId, keys: AgentKeys) -> Result<Peer, ControlError> {
        let AgentKeys { chain, prekey } = keys;
        let keys = Some(v1::AgentKeys { chain, prekey });
        let request = v1::PublishKeysRequest { agent_id: agent.to_string(), keys };
        self.introduced().await;
        let mut client = self.client.directory.clone();
        convert::answered(call(client.publish_keys(request)).await?.agent)
    }

    /// Ends an agent. Returns false when it was gone.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn deregister_agent(&self, agent: AgentId) -> Result<bool, ControlError> {
        let request = v1::DeregisterAgentRequest { agent_id: agent.to_string() };
        self.introduced().await;
        let mut client = self.client.directory.clone();
        Ok(call(client.deregister_agent(request)).await?.deregistered)
    }
}

/// One unary call, in time or [`ControlError::Down`].
async fn call<T>(answer: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>) -> Result<T, ControlError> {
    match tokio::time::timeout(CALL_TIMEOUT, answer).await {
        Ok(answer) => Ok(answer?.into_inner()),
        Err(_) => Err(ControlError::silent(CALL_TIMEOUT)),
    }
}

/// A channel to the control plane that connects with its first call.
///
/// # Errors
/// [`murmur_proto::client::ConnectError`] when the URL is no address.
pub fn channel(url: &str, ca_pem: Option<&str>) -> Result<Channel, murmur_proto::client::ConnectError> {
    murmur_proto::client::server_channel(url, ca_pem)
}
