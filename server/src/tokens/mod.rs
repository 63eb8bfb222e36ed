//! The tokens room: who calls, and what they may (PROTOCOL §6.1, §6.2).
//!
//! The database holds hashes only. A token is found by its public id and compared in constant time; what was found is
//! remembered for half a minute and forgotten at once when it is revoked.

mod access;
mod bootstrap;
mod delegate;
mod error;
mod issue;
mod principal;
mod room;
mod scopes;

pub use access::{Refusal, check};
pub use delegate::{Delegate, DelegateError};
pub use error::{AuthError, TokenError};
pub use issue::{IssueRequest, Issued, NODE_LIFE_MS};
pub(crate) use issue::{issue_for_node, target_workspace};
pub use principal::{Principal, RateKey};
pub use room::Tokens;
pub use scopes::{ScopeSet, UnknownScope};
