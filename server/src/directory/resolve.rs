//! Finding an agent by a slug as typed. The pure resolver asks through a map; what it will ask is found by letting it run
//! once over an empty one.

use std::{cell::RefCell, collections::HashMap};

use murmur_core::{
    id::AgentId,
    slug::{Caller, Lookup, ResolveError, Slug, resolve},
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
        let asked = Asked::default();
        // Only which slugs are asked for matters here; the answer comes from the second run.
        let _ = resolve(text, caller.as_ref(), &asked);
        let mut live = HashMap::new();
        for slug in asked.0.into_inner() {
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

/// Finds nothing and notes what was asked.
#[derive(Default)]
struct Asked(RefCell<Vec<Slug>>);

impl Lookup for Asked {
    fn live(&self, slug: &Slug) -> Option<AgentId> {
        self.0.borrow_mut().push(slug.clone());
        None
    }

    fn ended(&self, _: &Slug) -> Option<AgentId> {
        None
    }
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
