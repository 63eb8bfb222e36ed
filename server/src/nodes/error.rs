//! What the nodes room refuses.

use murmur_core::{id::Incarnation, slug::WorkspaceName};
use murmur_crypto::{chain::ChainError, revocation::RevocationListError};

use crate::{
    agents::AgentError,
    broker::BrokerError,
    db::DbError,
    invalid::Invalid,
    random::RandomError,
    tokens::{AuthError, Refusal, TokenError},
};

/// Why a call about nodes was refused.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// A field breaks a rule.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// No invite has this secret, or it is for somebody else.
    #[error("the invite is refused: {0}")]
    InviteInvalid(&'static str),
    /// Its time is over.
    #[error("the invite expired")]
    InviteExpired,
    /// It was used as often as it allows.
    #[error("the invite was used")]
    InviteUsed,
    /// More was asked for than the caller has.
    #[error("scope `{0}` is outside the caller's")]
    Beyond(String),
    /// The caller may not read the directory.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// No such workspace for this caller.
    #[error("no workspace `{0}`")]
    WorkspaceNotFound(WorkspaceName),
    /// No such node for this caller.
    #[error("no node {0}")]
    NodeNotFound(String),
    /// The node is not approved yet.
    #[error("the node waits for the owner's approval")]
    NodePending,
    /// The certificate's chain does not hold.
    #[error("the certificate is refused")]
    Chain(#[from] ChainError),
    /// The certificate holds, but not for this node.
    #[error("the certificate is refused: {0}")]
    Certificate(String),
    /// The revocation list cannot be read or was not signed by the owner.
    #[error("the revocation list is refused")]
    List(#[from] RevocationListError),
    /// The revocation list holds, but may not follow the one before.
    #[error("the revocation list is refused: {0}")]
    ListOrder(String),
    /// The owner has revoked it.
    #[error("the owner has revoked this node")]
    Revoked,
    /// Ending an agent of a revoked node.
    #[error("ending the agents of a revoked node")]
    Agent(#[from] Box<AgentError>),
    /// Another process is this node right now.
    #[error("incarnation {0} of this node has a live session")]
    Fenced(Incarnation),
    /// The broker cannot be reached.
    #[error("the broker cannot be reached")]
    BrokerDown,
    /// The broker refused.
    #[error("preparing the broker for a node")]
    Broker(#[from] BrokerError),
    /// The caller's token was withdrawn during a stream.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// A token could not be issued.
    #[error("issuing the node's token")]
    Token(#[from] TokenError),
    /// The database failed.
    #[error("reading or writing nodes")]
    Db(#[from] DbError),
    /// No randomness.
    #[error("making an id")]
    Random(#[from] RandomError),
}
