//! Opening a port to others, and what is never opened.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use murmur_core::id::AgentId;
use tokio::{net::TcpStream, sync::Semaphore};

use super::table::{Open, Table};
use crate::{
    agents::Agents,
    identity::IdentityDir,
    rpc::control::{Control, ControlError},
};

/// On the way to a program of this host.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Connections at once; the control plane asks for fewer.
const CONNECTIONS_MAX: usize = 256;

/// What can be set.
#[derive(Clone, Default)]
pub struct TunnelConfig {
    /// Ports that are never shown: the owner's, and those of Murmur's own programs on this host.
    pub denied: BTreeSet<u16>,
    /// Where it stands where the broker is, which is known later than the rest, and may change.
    pub broker: Option<IdentityDir>,
}

/// Ports that are shown to others.
pub struct Tunnels {
    pub(super) control: Arc<Control>,
    agents: Arc<Agents>,
    config: TunnelConfig,
    table: Mutex<Table>,
    pub(super) connections: Arc<Semaphore>,
}

/// Why a port is not shown.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// It is no port.
    #[error("must be 1 to 65535")]
    NoPort,
    /// It is one that is never shown.
    #[error("port {0} is not shown to others")]
    Denied(u16),
    /// Nothing listens.
    #[error("nothing listens on port {port} of this host's loopback interface: {why}")]
    Closed {
        /// Which.
        port: u16,
        /// What the kernel says.
        why: io::Error,
    },
    /// It could not be written down.
    #[error("the tunnel cannot be remembered: {0}")]
    Disk(io::Error),
    /// The control plane refuses.
    #[error(transparent)]
    Control(#[from] ControlError),
}

impl Tunnels {
    /// The room, with the tunnels of before.
    #[must_use]
    pub fn new(data_dir: &Path, config: TunnelConfig, control: Arc<Control>, agents: Arc<Agents>) -> Arc<Self> {
        let table = Mutex::new(Table::load(data_dir));
        Arc::new(Self { control, agents, config, table, connections: Arc::new(Semaphore::new(CONNECTIONS_MAX)) })
    }

    /// Gives a port that something listens on a URL, for an agent of this node.
    ///
    /// # Errors
    /// [`TunnelError`].
    pub async fn open(&self, agent_id: AgentId, port: u32) -> Result<String, TunnelError> {
        let port = u16::try_from(port).ok().filter(|port| *port > 0).ok_or(TunnelError::NoPort)?;
        drop(self.connect(port).await?);
        let opened = self.control.open_tunnel(agent_id, port).await?;
        let live: BTreeSet<AgentId> = self.agents.all().iter().map(|row| row.agent_id).collect();
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let written = table.insert(&opened.tunnel_id, Open { agent_id, port }, |agent| live.contains(&agent));
        written.map_err(TunnelError::Disk)?;
        Ok(opened.url)
    }

    /// The port of a tunnel that an agent of this node asked for.
    pub(super) fn port(&self, tunnel_id: &str) -> Option<u16> {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.get(tunnel_id).map(|open| open.port)
    }

    fn is_brokers(&self, port: u16) -> bool {
        let record = self.config.broker.as_ref().and_then(|dir| dir.broker().ok().flatten());
        let urls = record.map(|record| record.urls).unwrap_or_default();
        urls.iter().any(|url| url.parse::<http::Uri>().ok().and_then(|uri| uri.port_u16()) == Some(port))
    }

    /// Connects to a port that may be shown.
    pub(super) async fn connect(&self, port: u16) -> Result<TcpStream, TunnelError> {
        if self.config.denied.contains(&port) || self.is_brokers(port) {
            return Err(TunnelError::Denied(port));
        }
        let mut why = io::Error::from(io::ErrorKind::TimedOut);
        for host in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
            match tokio::time::timeout(CONNECT_MAX, TcpStream::connect(SocketAddr::new(host, port))).await {
                Ok(Ok(stream)) => {
                    // What is small must not wait for more.
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Ok(Err(error)) if host.is_ipv4() => why = error,
                Ok(Err(_)) | Err(_) => {}
            }
        }
        Err(TunnelError::Closed { port, why })
    }
}
