//! What the agents room refuses.

use std::time::Duration;

use murmur_core::{
    phase::{InvalidTransition, Phase},
    slug::{ResolveError, Slug},
};

use crate::{
    db::DbError, idempotency::OnceError, invalid::Invalid, random::RandomError, tasks::TaskError, tokens::AuthError,
};

/// Why a call on agents was refused.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// A field breaks a rule.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The typed slug resolves to no single agent.
    #[error(transparent)]
    Unresolved(#[from] ResolveError),
    /// No such agent for this caller.
    #[error("no agent found at {0}")]
    NotFound(String),
    /// The caller is an administrator of all workspaces, where one is needed.
    #[error("an administrator belongs to no workspace: issue a token for one and call with that")]
    NoWorkspace,
    /// The call needs an agent that calls.
    #[error("no agent identity here: name a slug")]
    NoIdentity,
    /// The slug is held by a live agent.
    #[error("{0} lives already: give it work instead")]
    Live(Slug),
    /// The agent has ended.
    #[error("{slug} has ended ({phase}): resurrect it, or take force_new for a new one")]
    Ended {
        /// The agent.
        slug: Slug,
        /// How it ended.
        phase: Phase,
    },
    /// The agent, or one above it, is being ended.
    #[error("{0} is being ended: nothing is begun there")]
    Destroying(Slug),
    /// No turn runs.
    #[error("{slug} is {phase}: no turn runs")]
    NotRunning {
        /// The agent.
        slug: Slug,
        /// What it does.
        phase: Phase,
    },
    /// There is no such step.
    #[error(transparent)]
    Phase(#[from] InvalidTransition),
    /// A bound of spawning is reached.
    #[error("spawn limit `{name}` is reached: {rule}")]
    Limit {
        /// Which bound.
        name: &'static str,
        /// What it is.
        rule: String,
        /// When the same call may succeed, if waiting helps.
        retry_after: Option<Duration>,
    },
    /// It ended, and its time was over: which, and when.
    #[error("agent {0}: its history, checklist and files are gone")]
    Pruned(String),
    /// No node has the runtime.
    #[error("no node of the account has the runtime `{0}`")]
    BackendNotFound(String),
    /// No node has the persona.
    #[error("no node of the account has the persona `{0}`")]
    PersonaNotFound(String),
    /// No node has the MCP server.
    #[error("no node of the account has the MCP server `{0}`")]
    McpServerNotFound(String),
    /// No such node in the account.
    #[error("no node `{0}` in the account")]
    NodeNotFound(String),
    /// The agent is there, and the caller may not.
    #[error("{0}")]
    Denied(String),
    /// The idempotency key means something else.
    #[error(transparent)]
    Once(#[from] OnceError),
    /// The checklist that comes with it does not fit.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// The agent's node is away.
    #[error("{0}")]
    NodeOffline(String),
    /// The caller's token was withdrawn during a stream.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// The database failed.
    #[error("reading or writing agents")]
    Db(#[from] DbError),
    /// No randomness.
    #[error("making an id")]
    Random(#[from] RandomError),
}

impl AgentError {
    /// Of a slug that stood in another field of the request than `slug`, which a slug that is none is told of.
    pub(crate) fn of_field(self, field: &'static str) -> Self {
        match self {
            Self::Unresolved(error @ (ResolveError::Invalid(_) | ResolveError::NoSibling { .. })) => {
                Invalid::new(field, error.to_string()).into()
            }
            other => other,
        }
    }
}
