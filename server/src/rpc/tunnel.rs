//! `murmur.v1.TunnelService`.

use std::sync::Arc;

use futures::StreamExt as _;
use murmur_proto::{
    tunnel::{FRAMES_MAX, carry},
    v1::{self, tunnel_frame::Item, tunnel_service_server::TunnelService},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{Answers, calling_node, incarnation};
use crate::{
    invalid::Invalid,
    lifecycle::Lifecycle,
    nodes::Nodes,
    tunnels::{Answered, Tunnels},
};

/// Ports of nodes.
pub(crate) struct TunnelRpc {
    pub(crate) tunnels: Arc<Tunnels>,
    /// Knows which incarnation of a node may still speak.
    pub(crate) nodes: Arc<Nodes>,
    pub(crate) lifecycle: Lifecycle,
}

#[tonic::async_trait]
impl TunnelService for TunnelRpc {
    async fn open_tunnel(
        &self,
        request: Request<v1::OpenTunnelRequest>,
    ) -> Result<Response<v1::OpenTunnelResponse>, Status> {
        let (_, node) = calling_node(&request)?;
        self.nodes.require_current(node, incarnation(&request)?).await?;
        Ok(Response::new(self.tunnels.open(node, request.get_ref()).await?))
    }

    type OpenConnectionStream = Answers<v1::OpenConnectionResponse>;

    async fn open_connection(
        &self,
        request: Request<Streaming<v1::OpenConnectionRequest>>,
    ) -> Result<Response<Self::OpenConnectionStream>, Status> {
        let (_, node) = calling_node(&request)?;
        self.nodes.require_current(node, incarnation(&request)?).await?;
        let mut inbound = request.into_inner();
        let first = inbound.message().await?.and_then(|first| first.frame?.item);
        let Some(Item::Opened(opened)) = first else {
            return Err(Invalid::new("frame", "must be `opened` first").into());
        };
        let (out, frames) = mpsc::channel(FRAMES_MAX);
        // Without somebody who waits, the stream ends at once.
        if let Some(Answered { pipe, closed }) = self.tunnels.answered(node.1, &opened) {
            let frame = |request: Result<v1::OpenConnectionRequest, Status>| {
                request.map(|request| request.frame.unwrap_or_default())
            };
            let (inbound, lifecycle) = (inbound.map(frame), self.lifecycle.clone());
            self.lifecycle.spawn(async move {
                tokio::select! {
                    carried = carry(pipe, inbound, out) => if let Err(error) = carried {
                        tracing::debug!(error = &error as &dyn std::error::Error, "a connection through a tunnel broke");
                    },
                    () = closed.cancelled() => {}
                    () = lifecycle.draining() => {}
                }
            });
        }
        let answer = |frame| Ok(v1::OpenConnectionResponse { frame: Some(frame) });
        Ok(Response::new(Box::pin(ReceiverStream::new(frames).map(answer))))
    }
}
