//! What an agent shows to others through the control plane.

use futures::{Stream, StreamExt as _, stream::BoxStream};
use murmur_core::id::AgentId;
use murmur_proto::{client::AS_HEADER, v1};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Request;

use super::{Control, ControlError, call};

impl Control {
    /// Puts a file there for an agent of this node. It takes as long as it takes.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn upload<S>(&self, agent: AgentId, pieces: S) -> Result<v1::UploadResponse, ControlError>
    where
        S: Stream<Item = v1::UploadRequest> + Send + 'static,
    {
        let mut request = Request::new(pieces);
        if let Ok(named) = format!("agent:{agent}").parse() {
            request.metadata_mut().insert(AS_HEADER, named);
        }
        let mut client = self.client.uploads.clone();
        Ok(client.upload(request).await?.into_inner())
    }

    /// Gives a port of this host a URL, for an agent of this node.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn open_tunnel(&self, agent: AgentId, port: u16) -> Result<v1::OpenTunnelResponse, ControlError> {
        let request = v1::OpenTunnelRequest { agent_id: agent.to_string(), port: port.into() };
        let mut client = self.client.tunnels.clone();
        call(client.open_tunnel(request)).await
    }

    /// Answers a visitor with a connection: what is sent, and what is heard.
    ///
    /// # Errors
    /// [`ControlError`].
    pub(crate) async fn open_connection(
        &self,
        frames: mpsc::Receiver<v1::TunnelFrame>,
    ) -> Result<BoxStream<'static, Result<v1::TunnelFrame, ControlError>>, ControlError> {
        let frames = ReceiverStream::new(frames).map(|frame| v1::OpenConnectionRequest { frame: Some(frame) });
        let mut client = self.client.tunnels.clone();
        let heard = call(client.open_connection(frames)).await?;
        Ok(heard.map(|answer| Ok(answer?.frame.unwrap_or_default())).boxed())
    }
}
