//! The agent that a call about its checklist or queue is about, and whether the caller may write there.

use murmur_core::{
    id::{AgentId, NodeId, WorkspaceId},
    phase::Phase,
    slug::Slug,
};

use crate::{
    agents::{AgentError, Who, resolved},
    db::{
        Conn, DbError, Source,
        agent_run::{self, AgentRun},
    },
    tokens::Principal,
};

/// Why a call about an agent goes no further.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// It is not there for this caller, or nothing is begun with it any more.
    #[error(transparent)]
    Agent(Box<AgentError>),
    /// The caller sees it and does not decide over it.
    #[error("only {0} itself, the agents above it and the owner of its account may do this")]
    Denied(Slug),
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

impl From<AgentError> for TargetError {
    fn from(error: AgentError) -> Self {
        Self::Agent(Box::new(error))
    }
}

impl From<DbError> for TargetError {
    fn from(error: DbError) -> Self {
        AgentError::from(error).into()
    }
}

/// An agent that the caller may read about, whether it lives or not.
pub(crate) async fn readable(
    conn: &mut impl Source,
    principal: &Principal,
    text: &str,
) -> Result<AgentRun, TargetError> {
    let who = Who::of(conn, principal).await?;
    Ok(resolved(conn, &who, text).await?)
}

/// A live agent that the caller may write about, and who that is: a slug, or an account.
pub(crate) async fn writable(
    conn: &mut Conn,
    principal: &Principal,
    text: &str,
) -> Result<(AgentRun, String), TargetError> {
    let who = Who::of(conn, principal).await?;
    let run = resolved(conn, &who, text).await?;
    if !who.caller().is_some_and(|caller| caller.is_over(&run.slug)) {
        return Err(TargetError::Denied(run.slug));
    }
    check_phase(&run)?;
    Ok((run, who.name()))
}

/// A live agent of the calling node, in this very incarnation.
pub(crate) async fn run_by(
    conn: &mut Conn,
    (workspace_id, node_id): (WorkspaceId, NodeId),
    id: AgentId,
    incarnation: u32,
) -> Result<AgentRun, TargetError> {
    let found = agent_run::get(conn, workspace_id, id).await?.filter(|run| run.node_id == Some(node_id));
    let run = found.ok_or_else(|| AgentError::NotFound(id.to_string()))?;
    if run.incarnation != incarnation {
        return Err(TargetError::Stale { slug: run.slug, was: incarnation, lives: run.incarnation });
    }
    check_phase(&run)?;
    Ok(run)
}

/// Nothing is written about an agent that is being ended or has ended.
fn check_phase(run: &AgentRun) -> Result<(), AgentError> {
    match run.phase {
        Phase::Destroying => Err(AgentError::Destroying(run.slug.clone())),
        phase if phase.is_ended() => Err(AgentError::Ended { slug: run.slug.clone(), phase }),
        _ => Ok(()),
    }
}
