//! Finding an agent by a slug as typed. The pure resolver says what it will ask, and asks through a map.

use std::collections::HashMap;

use murmur_core::{
    id::AgentId,
    slug::{Caller, Lookup, ResolveError, Slug, asked, resolve},
};

use super::{Directory, DirectoryError, room::readable_workspace};
use crate::{
    db::{
        Conn, DbError,
        agent::{self, Agent},
    },
    tokens::Principal,
};

impl Directory {
    /// The live agent that a text means to a caller.
    ///
    /// # Errors
    /// [`DirectoryError`].
    pub async fn resolve(&self, principal: &Principal, text: &str) -> Result<Agent, DirectoryError> {
        let mut tx = self.db.read().await?;
        let workspace_id = readable_workspace(&mut tx, principal).await?;
        let caller = caller(&mut tx, principal).await?;
        let mut live = HashMap::new();
        for slug in asked(text, caller.as_ref()) {
            if let Some(agent) = agent::live_by_slug(&mut tx, workspace_id, &slug).await? {
                live.insert(slug, agent.id);
            }
        }
        let found = resolve(text, caller.as_ref(), &Live(live))?;
        let agent = agent::live(&mut tx, workspace_id, found.agent_id).await?;
        agent.ok_or_else(|| ResolveError::NotFound { candidates: vec![found.slug] }.into())
    }
}

/// Relative slugs start at the calling agent, or at the account of a person or node.
async fn caller(conn: &mut Conn, principal: &Principal) -> Result<Option<Caller>, DbError> {
    let Some((workspace_id, workspace)) = principal.workspace.clone() else { return Ok(None) };
    if let Some(id) = principal.agent_id {
        let agent = agent::live(conn, workspace_id, id).await?;
        return Ok(agent.map(|agent| Caller::Agent { id, slug: agent.slug }));
    }
    Ok(principal.account.clone().map(|account| Caller::Human { workspace, account }))
}

struct Live(HashMap<Slug, AgentId>);

impl Lookup for Live {
    fn live(&self, slug: &Slug) -> Option<AgentId> {
        self.0.get(slug).copied()
    }

    /// Ended agents are for reading history and resurrecting, which are other calls.
    fn ended(&self, _: &Slug) -> Option<AgentId> {
        None
    }
}
