//! The client of the node's socket: connects with the first call, reconnects by itself, gives up on a silent node.

use std::{
    future::Future,
    path::{Path, PathBuf},
    sync::OnceLock,
    time::Duration,
};

use murmur_core::reason::Reason;
use murmur_proto::{
    client::{ControlClient, Headers, NodeClient, socket_channel},
    file,
    status::RpcError,
};
use tonic::{Response, Status, transport::Channel};

use crate::errors::Failure;

/// Unary calls touch the node's disk and nothing farther away.
const ANSWER_MAX: Duration = Duration::from_secs(20);
/// What the control plane is asked goes through the node, which gives a silent one up after 30 s and then says who was silent.
const ANSWER_FROM_AFAR_MAX: Duration = Duration::from_secs(40);
/// A file is copied before its call is answered.
const COPY_MAX: Duration = Duration::from_secs(180);

/// The node of this host.
pub(crate) struct Node {
    socket: PathBuf,
    token_file: Option<PathBuf>,
    connection: OnceLock<Connection>,
}

/// The channel, what its calls carry, and the node's own services over it.
#[derive(Clone)]
struct Connection {
    channel: Channel,
    headers: Headers,
    client: NodeClient,
}

impl Node {
    /// Nothing is opened yet.
    pub(crate) fn new(socket: PathBuf, token_file: Option<PathBuf>) -> Self {
        Self { socket, token_file, connection: OnceLock::new() }
    }

    /// The socket's path.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// The services; a token file or path that cannot be used is tried again with the next call.
    pub(crate) fn client(&self) -> Result<NodeClient, Failure> {
        Ok(self.connection()?.client.clone())
    }

    /// The control plane's services, to which the node passes calls on, as one of its agents. A token says by itself as which.
    pub(crate) fn control(&self, agent: &str) -> Result<ControlClient, Failure> {
        let Connection { channel, headers, .. } = self.connection()?.clone();
        let agent = if self.token_file.is_some() { "" } else { agent };
        let headers = headers
            .with_agent(agent)
            .map_err(|_| Failure::argument("an agent's name has only a-z, 0-9 and - in its segments"))?;
        Ok(ControlClient::new(channel, headers))
    }

    fn connection(&self) -> Result<&Connection, Failure> {
        if let Some(connection) = self.connection.get() {
            return Ok(connection);
        }
        let channel = socket_channel(&self.socket).map_err(|error| Failure::connect(&error, &self.socket))?;
        let headers = self.headers()?.with_trace(murmur_telemetry::grpc::inject);
        let client = NodeClient::new(channel.clone(), headers.clone());
        Ok(self.connection.get_or_init(|| Connection { channel, headers, client }))
    }

    /// Waits for a call, but not for ever, and says what is wrong when it fails.
    pub(crate) async fn answer<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Failure> {
        self.answer_within(ANSWER_MAX, call).await
    }

    /// Like [`Node::answer`], for a call that the node passes on.
    pub(crate) async fn answer_from_afar<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Failure> {
        self.answer_within(ANSWER_FROM_AFAR_MAX, call).await
    }

    /// Like [`Node::answer`], for a call that copies a file.
    pub(crate) async fn answer_slowly<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Failure> {
        self.answer_within(COPY_MAX, call).await
    }

    async fn answer_within<T>(
        &self,
        most: Duration,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Failure> {
        match tokio::time::timeout(most, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(self.failure(&status)),
            Err(_) => Err(Failure::node_silent(&self.socket, most)),
        }
    }

    /// What a status means to whoever called a tool.
    pub(crate) fn failure(&self, status: &Status) -> Failure {
        Failure::rpc(&RpcError::from(status), &self.socket)
    }

    fn headers(&self) -> Result<Headers, Failure> {
        let Some(path) = &self.token_file else { return Ok(Headers::new()) };
        let unusable = |why: String| {
            Failure::new(
                Reason::TokenInvalid,
                format!("the agent token file {} cannot be used: {why}", path.display()),
                "Let --token-file or MURMUR_AGENT_TOKEN_FILE name the file that the node wrote, or leave both out to speak without a token.",
            )
        };
        let token = file::read_secret(path).map_err(|error| unusable(error.to_string()))?;
        Headers::new().with_token(token.trim()).map_err(|error| unusable(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_node_has_the_time_to_say_that_the_control_plane_is_silent() {
        /// What the node's connection to the control plane may be silent before the node gives it up.
        const SILENCE_MAX: Duration = Duration::from_secs(30);
        let node = Node::new(PathBuf::from("/run/node.sock"), None);
        let told = async {
            tokio::time::sleep(SILENCE_MAX).await;
            Err::<Response<()>, _>(murmur_proto::status::status(Reason::ControlPlaneDown, "it cannot be reached"))
        };
        assert_eq!(node.answer_from_afar(told).await.unwrap_err().reason, Reason::ControlPlaneDown);
    }
}
