//! The agent that a call is about: found by its slug as typed, and asked whether the caller may write there.
//!
//! The pure resolver asks through a map; what it will ask is found by letting it run once over an empty one.

use std::{cell::RefCell, collections::HashMap};

use murmur_core::{
    id::{AgentId, NodeId, WorkspaceId},
    phase::Phase,
    slug::{Caller, Lookup, ResolveError, Slug, resolve},
};

use crate::{
    db::{
        Conn, DbError,
        target::{self, Life},
    },
    directory::{DirectoryError, readable_workspace},
    tokens::Principal,
};

/// Why a call about an agent goes no further.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// It is not there, or not for this caller.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The caller sees it and does not decide over it.
    #[error("only {0} itself, the agents above it and the owner of its account may do this")]
    Denied(Slug),
    /// It has ended.
    #[error("agent {0} has ended")]
    Ended(Slug),
    /// It is being ended.
    #[error("agent {0} is being ended")]
    Destroying(Slug),
    /// Another start of the agent lives.
    #[error("incarnation {was} of agent {slug} is not the one that lives, which is {lives}")]
    Stale {
        /// Which agent.
        slug: Slug,
        /// Who called.
        was: u32,
        /// Who lives.
        lives: u32,
    },
}

impl From<DbError> for TargetError {
    fn from(error: DbError) -> Self {
        Self::Directory(error.into())
    }
}

/// An agent that the caller may read about, whether it lives or not: a live one of the slug before one that has ended.
pub(crate) async fn readable(conn: &mut Conn, principal: &Principal, text: &str) -> Result<Life, TargetError> {
    let workspace_id = readable_workspace(conn, principal).await?;
    let caller = caller(conn, principal).await?;
    Ok(find(conn, workspace_id, caller.as_ref(), text).await?)
}

/// A live agent that the caller may write about, and who that is: a slug, or an account.
pub(crate) async fn writable(
    conn: &mut Conn,
    principal: &Principal,
    text: &str,
) -> Result<(Life, String), TargetError> {
    let workspace_id = readable_workspace(conn, principal).await?;
    let caller = caller(conn, principal).await?;
    let life = find(conn, workspace_id, caller.as_ref(), text).await?;
    let Some(caller) = caller.filter(|caller| may_write(principal, caller, &life)) else {
        return Err(TargetError::Denied(life.slug));
    };
    check_phase(&life)?;
    let name = match caller {
        Caller::Agent { slug, .. } => slug.to_string(),
        Caller::Human { account, .. } => account.to_string(),
    };
    Ok((life, name))
}

/// A live agent of the calling node, in this very incarnation.
pub(crate) async fn run_by(
    conn: &mut Conn,
    (workspace_id, node_id): (WorkspaceId, NodeId),
    id: AgentId,
    incarnation: u32,
) -> Result<Life, TargetError> {
    let found = target::get(conn, workspace_id, id).await?.filter(|life| life.node_id == Some(node_id));
    let life = found.ok_or_else(|| DirectoryError::AgentNotFound(id.to_string()))?;
    if life.incarnation != incarnation {
        return Err(TargetError::Stale { slug: life.slug, was: incarnation, lives: life.incarnation });
    }
    check_phase(&life)?;
    Ok(life)
}

/// Nothing is written about an agent that is being ended or has ended.
fn check_phase(life: &Life) -> Result<(), TargetError> {
    match life.phase {
        Phase::Destroying => Err(TargetError::Destroying(life.slug.clone())),
        phase if phase.is_ended() => Err(TargetError::Ended(life.slug.clone())),
        _ => Ok(()),
    }
}

/// By whose word it goes, and not outside the token's prefix.
fn may_write(principal: &Principal, caller: &Caller, life: &Life) -> bool {
    let own = principal.agent_id == Some(life.id);
    let inside = principal.slug_prefix.as_ref().is_none_or(|prefix| prefix.contains(&life.slug));
    (own || inside) && caller.is_over(&life.slug)
}

/// Relative slugs start at the calling agent, or at the account of a person or node.
async fn caller(conn: &mut Conn, principal: &Principal) -> Result<Option<Caller>, DbError> {
    let Some((workspace_id, workspace)) = principal.workspace.clone() else { return Ok(None) };
    if let Some(id) = principal.agent_id {
        let life = target::get(conn, workspace_id, id).await?.filter(|life| !life.phase.is_ended());
        return Ok(life.map(|life| Caller::Agent { id, slug: life.slug }));
    }
    Ok(principal.account.clone().map(|account| Caller::Human { workspace, account }))
}

async fn find(
    conn: &mut Conn,
    workspace_id: WorkspaceId,
    caller: Option<&Caller>,
    text: &str,
) -> Result<Life, DirectoryError> {
    let asked = Asked::default();
    // Only which slugs are asked for matters here; the answer comes from the second run.
    let _ = resolve(text, caller, &asked);
    let mut known = Known::default();
    for slug in asked.0.into_inner() {
        if let Some(life) = target::by_slug(conn, workspace_id, &slug, false).await? {
            known.live.insert(slug, life.id);
        } else if let Some(life) = target::by_slug(conn, workspace_id, &slug, true).await? {
            known.ended.insert(slug, life.id);
        }
    }
    let found = resolve(text, caller, &known)?;
    let life = target::get(conn, workspace_id, found.agent_id).await?;
    life.ok_or_else(|| ResolveError::NotFound { candidates: vec![found.slug] }.into())
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

#[derive(Default)]
struct Known {
    live: HashMap<Slug, AgentId>,
    ended: HashMap<Slug, AgentId>,
}

impl Lookup for Known {
    fn live(&self, slug: &Slug) -> Option<AgentId> {
        self.live.get(slug).copied()
    }

    fn ended(&self, slug: &Slug) -> Option<AgentId> {
        self.ended.get(slug).copied()
    }
}
