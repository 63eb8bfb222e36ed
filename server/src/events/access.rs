//! Who calls, as an event's origin, and to whom it may tell something.

use murmur_core::{
    event::{Kind, Origin},
    slug::{Scope, Slug},
    token::TokenKind,
};

use crate::{
    agents::{AgentError, Who},
    tokens::Principal,
};

/// Who a caller is, as an event tells it.
pub(super) fn origin(who: &Who, principal: &Principal) -> Origin {
    match (&who.agent, principal.kind, &who.account) {
        (Some(run), ..) => Origin::Agent(run.slug.clone()),
        (None, TokenKind::User | TokenKind::Admin, Some(account)) => Origin::Human(account.clone()),
        (None, _, account) => Origin::Program(account.clone()),
    }
}

/// Refuses to tell an agent something that the caller has no say over. An agent tells those above it: that is what a child is to do.
pub(super) fn require_may_tell(who: &Who, kind: &Kind, slug: &Slug) -> Result<(), AgentError> {
    if may_tell(who, kind, slug) {
        return Ok(());
    }
    Err(AgentError::Denied(format!(
        "only {slug} itself, the agents above it and the owner of its account may tell it of a {kind}; what is below it may notify it"
    )))
}

/// As [`require_may_tell`].
pub(super) fn may_tell(who: &Who, kind: &Kind, slug: &Slug) -> bool {
    if !who.sees(slug) {
        return false;
    }
    match who.caller() {
        Some(caller) if caller.is_over(slug) => true,
        Some(_) => kind.tells_up() && who.agent.as_ref().is_some_and(|own| Scope::below(slug).contains(&own.slug)),
        // A program of nobody's reaches what its prefix covers.
        None => true,
    }
}
