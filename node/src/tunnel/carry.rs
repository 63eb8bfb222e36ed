//! One connection: to the port, and a stream to the control plane that carries it.

use std::sync::Arc;

use murmur_proto::{
    tunnel::{FRAMES_MAX, carry},
    v1::{self, tunnel_frame::Item},
};
use tokio::{net::TcpStream, sync::mpsc};
use tracing::debug;

use super::Tunnels;

impl Tunnels {
    /// Answers a visitor who is at the control plane.
    pub async fn answer(self: Arc<Self>, wanted: v1::TunnelWanted) {
        let v1::TunnelWanted { connection_id, tunnel_id } = wanted;
        let Ok(_place) = self.connections.clone().try_acquire_owned() else {
            return self.tell(connection_id, "this host has too many connections", None).await;
        };
        let Some(port) = self.port(&tunnel_id) else {
            return self.tell(connection_id, "no agent of this host asked for this tunnel", None).await;
        };
        match self.connect(port).await {
            Ok(stream) => self.tell(connection_id, "", Some(stream)).await,
            Err(error) => self.tell(connection_id, &error.to_string(), None).await,
        }
    }

    async fn tell(&self, connection_id: String, refused: &str, stream: Option<TcpStream>) {
        let (out, frames) = mpsc::channel(FRAMES_MAX);
        let opened = v1::TunnelOpened { connection_id, refused: refused.to_owned() };
        // There is room: it is the first.
        let _ = out.try_send(v1::TunnelFrame { item: Some(Item::Opened(opened)) });
        let out = stream.is_some().then_some(out);
        let heard = match self.control.open_connection(frames).await {
            Ok(heard) => heard,
            Err(error) => return debug!(%error, "a visitor could not be answered"),
        };
        if let (Some(stream), Some(out)) = (stream, out)
            && let Err(error) = carry(stream, heard, out).await
        {
            debug!(%error, "a connection through a tunnel broke");
        }
    }
}
