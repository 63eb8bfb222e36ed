//! What the directory refuses.

use murmur_core::{
    id::NodeId,
    slug::{ResolveError, Slug, WorkspaceName},
};
use murmur_crypto::{chain::ChainError, prekey::PrekeyError};

use crate::{agents::AgentError, db::DbError, invalid::Invalid, random::RandomError, tokens::AuthError};

/// Why a call on the directory was refused.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// A field breaks a rule.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The name, or the id in the root certificate, belongs to another root.
    #[error("workspace `{0}`, or its id, belongs to another root")]
    WorkspaceExists(WorkspaceName),
    /// No such workspace for this caller.
    #[error("no workspace `{0}`")]
    WorkspaceNotFound(String),
    /// The caller is an administrator of all workspaces, where one is needed.
    #[error("an administrator belongs to no workspace: issue a token for one and call with that")]
    NoWorkspace,
    /// The calling node is gone.
    #[error("no node {0}")]
    NodeNotFound(NodeId),
    /// The calling node is not approved yet.
    #[error("the node waits for the owner's approval")]
    NodePending,
    /// Somebody else holds the slug, or an agent of another kind.
    #[error("slug {0} is taken by an agent of another node, or of another kind")]
    SlugTaken(Slug),
    /// The slug lies outside what the node may name.
    #[error("slug {slug} is outside the node's scope {scope}")]
    OutsideScope {
        /// What was asked for.
        slug: Slug,
        /// What the node may name.
        scope: String,
    },
    /// No such agent for this caller.
    #[error("no agent found at {0}")]
    AgentNotFound(String),
    /// The typed slug resolves to no single agent.
    #[error(transparent)]
    Unresolved(#[from] ResolveError),
    /// The chain does not hold.
    #[error("the chain is refused")]
    Chain(#[from] ChainError),
    /// The chain holds, but not for this agent.
    #[error("the certificate is refused: {0}")]
    Certificate(String),
    /// The prekey does not hold.
    #[error("the prekey is refused")]
    Prekey(#[from] PrekeyError),
    /// The token is of another database, or of its future.
    #[error("the resume token is of another database")]
    ResumeTokenStale,
    /// The caller's token was withdrawn during a watch.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// The agent's life does not allow it.
    #[error(transparent)]
    Agent(#[from] Box<AgentError>),
    /// The database failed.
    #[error("reading or writing the directory")]
    Db(#[from] DbError),
    /// No randomness.
    #[error("making an id")]
    Random(#[from] RandomError),
}

impl From<AgentError> for DirectoryError {
    fn from(error: AgentError) -> Self {
        Self::Agent(Box::new(error))
    }
}
