//! Whether a caller may use an RPC, by the scope that stands in the contract.

use murmur_proto::v1::Scope;

use super::Principal;

/// Why a call is refused before its handler runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The call needs a token.
    #[error("this call needs a token")]
    TokenMissing,
    /// The token lacks the scope.
    #[error("the token lacks {}", .0.as_str_name())]
    ScopeMissing(Scope),
    /// The RPC is not for this door.
    #[error("this call is served on a node's local socket only")]
    LocalOnly,
}

/// Decides.
///
/// # Errors
/// [`Refusal`].
pub fn check(needed: Scope, caller: Option<&Principal>) -> Result<(), Refusal> {
    let missing = || if caller.is_some() { Refusal::ScopeMissing(needed) } else { Refusal::TokenMissing };
    let allowed = match needed {
        Scope::Public => true,
        Scope::Self_ => caller.is_some(),
        // A node acts on itself, so even an administrator has to be one.
        Scope::Node => caller.is_some_and(|caller| caller.as_node().is_some() && caller.scopes.allows(Scope::Node)),
        Scope::Local | Scope::LocalAgent => return Err(Refusal::LocalOnly),
        Scope::Unspecified => return Err(Refusal::ScopeMissing(needed)),
        Scope::Admin
        | Scope::DirectoryRead
        | Scope::DirectoryPublish
        | Scope::NodesEnroll
        | Scope::NodesRevoke
        | Scope::TokensIssue
        | Scope::AgentsRead
        | Scope::AgentsSpawn
        | Scope::AgentsKill
        | Scope::AgentsMessage
        | Scope::TasksRead
        | Scope::TasksWrite
        | Scope::EventsRead
        | Scope::EventsPublish
        | Scope::WebhooksManage
        | Scope::UploadsWrite => caller.is_some_and(|caller| caller.scopes.allows(needed)),
    };
    if allowed { Ok(()) } else { Err(missing()) }
}
