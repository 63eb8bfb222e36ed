//! Giving a port a URL.

use murmur_core::id::{AgentId, NodeId, WorkspaceId};
use murmur_proto::v1;

use super::{TunnelError, Tunnels};
use crate::{
    db::{
        agent, agent_run,
        tunnel::{self, Tunnel},
    },
    invalid::{Invalid, parse},
    links::LinkKey,
};

/// Ports of one agent.
const AGENT_TUNNELS_MAX: usize = 32;

impl Tunnels {
    /// Gives a port of a node a URL, for an agent of the node: the same as before when it has one.
    ///
    /// # Errors
    /// [`TunnelError`].
    pub async fn open(
        &self,
        (workspace_id, node_id): (WorkspaceId, NodeId),
        request: &v1::OpenTunnelRequest,
    ) -> Result<v1::OpenTunnelResponse, TunnelError> {
        let port = u16::try_from(request.port).ok().filter(|port| *port > 0);
        let port = port.ok_or_else(|| Invalid::new("port", "must be 1 to 65535"))?;
        let agent_id: AgentId = parse("agent_id", &request.agent_id)?;
        let not_found = || TunnelError::AgentNotFound(agent_id.to_string());
        let mut tx = self.db.write().await?;
        let known = agent::live(&mut tx, workspace_id, agent_id).await?.filter(|agent| agent.node_id == node_id);
        let run = agent_run::get(&mut tx, workspace_id, agent_id).await?.filter(|run| run.ended_ms.is_none());
        let (Some(_), Some(run)) = (known, run) else { return Err(not_found()) };
        let open = tunnel::of_agent(&mut tx, agent_id, run.incarnation).await?;
        let key = match open.iter().find(|tunnel| tunnel.port == port) {
            Some(tunnel) => tunnel.key,
            None if open.len() >= AGENT_TUNNELS_MAX => return Err(TunnelError::Limit(open.len())),
            None => {
                let key = LinkKey::new()?;
                let incarnation = run.incarnation;
                tunnel::insert(&mut tx, &Tunnel { key, workspace_id, node_id, agent_id, incarnation, port }).await?;
                tx.commit().await?;
                key
            }
        };
        Ok(v1::OpenTunnelResponse { url: self.public.tunnel(key), tunnel_id: key.to_string() })
    }
}
