//! Claiming and giving up slugs.

use murmur_core::{
    id::{AgentId, NodeId, WorkspaceId},
    slug::{AgentPath, Scope, Slug, WorkspaceName},
};

use super::{
    Directory, DirectoryError,
    room::{agent_of_node, approved_node},
};
use crate::{
    agents::{Work, deregistered, moved, registered, require_free},
    db::{
        Conn,
        agent::{self, Agent, Kind, NewAgent},
        meta,
        node::Node,
    },
    invalid::{Invalid, words},
    random,
};

const DESCRIPTION_BYTES_MAX: usize = 1024;
const GROUP_BYTES_MAX: usize = 128;
/// How far `path-2`, `path-3`, … are tried.
const SUFFIX_MAX: u32 = 100;

/// What a node registers.
#[derive(Debug, Clone)]
pub struct Registration {
    /// Below the node's account.
    pub path: AgentPath,
    /// For people and models; at most 1 KiB on one line.
    pub description: String,
    /// A label to find it by; at most 128 bytes on one line.
    pub group: String,
    /// What keeps it alive.
    pub kind: Kind,
    /// Take another name rather than be refused.
    pub suffix_when_taken: bool,
    /// Take the agent over from another node of the account rather than be refused.
    pub move_here: bool,
}

impl Directory {
    /// Claims a slug for an agent of the calling node, and says whether the agent is new.
    ///
    /// # Errors
    /// [`DirectoryError`].
    pub async fn register(
        &self,
        caller: (WorkspaceId, NodeId),
        workspace: &WorkspaceName,
        wanted: Registration,
    ) -> Result<(Agent, bool), DirectoryError> {
        words("description", &wanted.description, DESCRIPTION_BYTES_MAX)?;
        words("group", &wanted.group, GROUP_BYTES_MAX)?;
        let mut tx = self.agents.begin().await?;
        let node = approved_node(&mut tx, caller).await?;
        let (id, created) = match claim(&mut tx, &node, workspace, &wanted).await? {
            Claim::Own(agent) => {
                let changed = agent.description != wanted.description || agent.group != wanted.group;
                if changed {
                    let revision = meta::next_revision(&mut tx).await?;
                    let said = (wanted.description.as_str(), wanted.group.as_str());
                    agent::describe(&mut tx, caller.0, agent.id, said, revision).await?;
                }
                if changed {
                    tx.directory_moved(caller.0);
                }
                (agent.id, false)
            }
            Claim::Elsewhere(agent) => {
                let revision = meta::next_revision(&mut tx).await?;
                let here = (caller.1, tx.now_ms());
                agent::move_to(&mut tx, caller.0, agent.id, here, revision).await?;
                moved(&mut tx, caller.0, agent.id, caller.1).await?;
                tx.directory_moved(caller.0);
                tracing::info!(
                    agent.id = %agent.id, agent.slug = %agent.slug, node.id = %caller.1, node.before = %agent.node_id,
                    "agent {} moved to node {}", agent.slug, node.name
                );
                (agent.id, false)
            }
            Claim::Free(slug) => (self.create(&mut tx, &node, &slug, &wanted).await?, true),
        };
        let agent = agent_of_node(&mut tx, caller, id).await?;
        self.agents.commit(tx).await?;
        if created {
            tracing::info!(agent.id = %agent.id, agent.slug = %agent.slug, "agent {} registered", agent.slug);
        }
        Ok((agent, created))
    }

    /// Ends an agent of the calling node, and the tokens that speak for it; false when it was gone.
    ///
    /// # Errors
    /// [`DirectoryError`].
    pub async fn deregister(&self, caller: (WorkspaceId, NodeId), id: AgentId) -> Result<bool, DirectoryError> {
        let mut tx = self.agents.begin().await?;
        approved_node(&mut tx, caller).await?;
        let slug = match agent_of_node(&mut tx, caller, id).await {
            Err(DirectoryError::AgentNotFound(_)) => return Ok(false),
            other => other?.slug,
        };
        // Its entry, its tokens and whatever was to be done go with its life.
        deregistered(&mut tx, caller.0, id).await?;
        self.agents.commit(tx).await?;
        tracing::info!(agent.id = %id, agent.slug = %slug, "agent {slug} deregistered");
        Ok(true)
    }

    async fn create(
        &self,
        work: &mut Work,
        node: &Node,
        slug: &Slug,
        wanted: &Registration,
    ) -> Result<AgentId, DirectoryError> {
        let now_ms = work.now_ms();
        let id = AgentId::new_v7(now_ms, random::bytes()?);
        let agent = NewAgent {
            id,
            workspace_id: node.workspace_id,
            slug,
            node_id: node.id,
            kind: wanted.kind,
            description: &wanted.description,
            group: &wanted.group,
            created_ms: now_ms,
            revision: meta::next_revision(work).await?,
        };
        agent::insert(work, &agent).await?;
        registered(work, &agent).await?;
        work.directory_moved(node.workspace_id);
        Ok(id)
    }
}

enum Claim {
    /// The node holds the slug already, for an agent of this kind.
    Own(Box<Agent>),
    /// Another node does, and gives it up.
    Elsewhere(Box<Agent>),
    /// Nobody does.
    Free(Slug),
}

/// Finds the slug that the node gets.
async fn claim(
    conn: &mut Conn,
    node: &Node,
    workspace: &WorkspaceName,
    wanted: &Registration,
) -> Result<Claim, DirectoryError> {
    let first = slug_of(node, workspace, wanted.path.clone())?;
    let tries = if wanted.suffix_when_taken { SUFFIX_MAX } else { 1 };
    for number in 1..=tries {
        let slug = match number {
            1 => first.clone(),
            _ => slug_of(node, workspace, suffixed(&wanted.path, number)?)?,
        };
        match agent::live_by_slug(conn, node.workspace_id, &slug).await? {
            // One that waits for a node has a name and no entry yet.
            None if require_free(conn, node.workspace_id, &slug).await? => return Ok(Claim::Free(slug)),
            None => {}
            // One that its node started is not taken for one that a person attends to: other callers may speak for it.
            Some(agent) if agent.node_id == node.id && agent.kind == wanted.kind => {
                return Ok(Claim::Own(Box::new(agent)));
            }
            // A process stays with the node that runs it.
            Some(agent) if wanted.move_here && agent.kind == Kind::Interactive && wanted.kind == Kind::Interactive => {
                return Ok(Claim::Elsewhere(Box::new(agent)));
            }
            Some(_) => {}
        }
    }
    Err(DirectoryError::SlugTaken(first))
}

fn suffixed(path: &AgentPath, number: u32) -> Result<AgentPath, Invalid> {
    format!("{path}-{number}").parse().map_err(|_| Invalid::new("path", "is too long to take a suffix"))
}

fn slug_of(node: &Node, workspace: &WorkspaceName, path: AgentPath) -> Result<Slug, DirectoryError> {
    let slug = Slug::new(workspace.clone(), node.account.clone(), path)
        .map_err(|error| Invalid::new("path", error.to_string()))?;
    if node.slug_scope.iter().any(|scope| scope.contains(&slug)) {
        return Ok(slug);
    }
    let scope = node.slug_scope.iter().map(Scope::as_str).collect::<Vec<_>>().join(" ");
    Err(DirectoryError::OutsideScope { slug, scope })
}
