//! Who calls, and as which agent (DESIGN §8.4, §8.5; PROTOCOL §6.3).
//!
//! The kernel says which user is at the other end of the socket; only the node's own is served. A bearer token makes the caller one
//! agent and no other. Without one the caller may speak as the interactive agents of the node's account, and never as one that a
//! node started.

use std::sync::Arc;

use http::HeaderMap;
use murmur_core::{
    id::{AgentId, TokenId},
    slug::{AgentPath, SlugText},
    token::{Token, TokenError, TokenKind},
};
use murmur_proto::{
    PROTOCOL,
    client::{AGENT_HEADER, PROTOCOL_HEADER},
};

use super::{connection::OtherEnd, parse, status::Refusal};
use crate::{
    agents::{Agents, Registration},
    directory::AgentKind,
    identity::NodeIdentity,
    post::{LocalAgent, QueryError},
    store::{StoreError, agents::AgentRow},
};

/// Who calls.
#[derive(Debug, Clone)]
pub(crate) enum Caller {
    /// The agent whose token was presented, and which one.
    Agent(Arc<AgentRow>, TokenId),
    /// Somebody of the node's user.
    User,
}

/// Why a caller is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallerError {
    /// Another user, or one that the kernel does not tell.
    #[error("the caller runs as user {uid}, and this node serves user {own} alone")]
    OtherUser {
        /// The caller's uid, or `unknown`.
        uid: String,
        /// The node's uid.
        own: u32,
    },
    /// The authorization header holds no token.
    #[error("the authorization header holds no token: {0}")]
    Malformed(#[from] TokenError),
    /// The token is a person's, a node's or a program's.
    #[error("only an agent's token speaks on this socket")]
    NoAgentToken,
    /// The token is unknown here, revoked, or of an ended agent.
    #[error("this node knows no such token")]
    Unknown,
    /// The agent may only be spoken for with its token.
    #[error("{slug} may only be spoken for with its own token")]
    TokenRequired {
        /// The agent.
        slug: String,
    },
    /// A program with a token named another agent.
    #[error("the token is bound to {bound}, and the call names `{named}`")]
    NameMismatch {
        /// The token's agent.
        bound: String,
        /// What was named.
        named: String,
    },
    /// An agent asks for what its node's user alone decides.
    #[error("only the node's own user may do this, and an agent calls")]
    UserAlone,
    /// The caller speaks another protocol.
    #[error("the caller speaks protocol {theirs}, this node {PROTOCOL}")]
    Protocol {
        /// What it says.
        theirs: String,
    },
    /// The name is of another account.
    #[error("{slug} is not of this node's account")]
    Foreign {
        /// What was named.
        slug: String,
    },
    /// The token could not be looked up.
    #[error("the token could not be looked up")]
    Store(#[from] StoreError),
}

/// Refuses another user than the node's own.
pub(super) fn check_user(end: Option<&OtherEnd>, own: u32) -> Result<(), CallerError> {
    match end.and_then(|end| end.cred).map(|cred| cred.uid()) {
        Some(uid) if uid == own => Ok(()),
        uid => Err(CallerError::OtherUser { uid: uid.map_or("unknown".to_owned(), |uid| uid.to_string()), own }),
    }
}

/// Refuses a caller of another protocol. One that says nothing is taken to speak ours.
pub(super) fn check_protocol(headers: &HeaderMap) -> Result<(), CallerError> {
    match headers.get(PROTOCOL_HEADER) {
        Some(value) if value.as_bytes() != PROTOCOL.to_string().as_bytes() => {
            Err(CallerError::Protocol { theirs: String::from_utf8_lossy(value.as_bytes()).chars().take(16).collect() })
        }
        _ => Ok(()),
    }
}

/// The token that a call carries.
pub(super) fn bearer(headers: &HeaderMap) -> Result<Option<Token>, CallerError> {
    let Some(value) = headers.get(http::header::AUTHORIZATION) else { return Ok(None) };
    let text = value.to_str().map_err(|_| TokenError::Shape)?;
    let token = text.strip_prefix("Bearer ").or_else(|| text.strip_prefix("bearer ")).ok_or(TokenError::Shape)?;
    Ok(Some(Token::parse(token.trim())?))
}

/// Finds out who calls.
pub(super) async fn identify(headers: &HeaderMap, agents: &Agents) -> Result<Caller, CallerError> {
    let Some(token) = bearer(headers)? else { return Ok(Caller::User) };
    if token.kind() != TokenKind::Agent {
        return Err(CallerError::NoAgentToken);
    }
    let row = agents.by_token(&token).await?.ok_or(CallerError::Unknown)?;
    Ok(Caller::Agent(row, token.id()))
}

/// For whom a call is forwarded to the control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speaker {
    /// The caller shows the control plane what it has.
    Itself,
    /// The owner of the node's account.
    User,
    /// An agent of this node, and the token by which it is known as such, if it showed one.
    Agent(AgentId, Option<TokenId>),
}

/// Finds out for whom a call to the control plane is made. An interactive agent that the caller names and that does not exist is
/// registered when `may_register`: whoever starts agents has to be one.
pub(super) async fn spoken_for(
    headers: &HeaderMap,
    require_token: bool,
    may_register: bool,
    agents: &Agents,
    identity: &NodeIdentity,
) -> Result<Speaker, Refusal> {
    let named = named_agent(headers)?;
    let token = match bearer(headers) {
        Ok(token) => token,
        // The control plane says what is wrong with it.
        Err(_) => return Ok(Speaker::Itself),
    };
    match token {
        Some(token) if token.kind() == TokenKind::Agent => match agents.by_token(&token).await? {
            Some(row) => {
                check_bound(&row, named.unwrap_or_default(), identity)?;
                Ok(Speaker::Agent(row.agent_id, Some(token.id())))
            }
            // It may be one of the control plane's own.
            None => Ok(Speaker::Itself),
        },
        Some(_) => Ok(Speaker::Itself),
        None if require_token => Ok(Speaker::Itself),
        None => match named {
            Some(name) => {
                let row = match may_register {
                    true => speaker(&Caller::User, Wish::named(name), agents, identity).await?.0,
                    false => known(&Caller::User, name, agents, identity).await?,
                };
                Ok(Speaker::Agent(row.agent_id, None))
            }
            None => Ok(Speaker::User),
        },
    }
}

/// The agent that a caller says it speaks as.
fn named_agent(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    let mut values = headers.get_all(AGENT_HEADER).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let broken = |rule: &str| Refusal::from(super::status::Field { name: AGENT_HEADER, rule: rule.to_owned() });
    if values.next().is_some() {
        return Err(broken("must come once"));
    }
    value.to_str().map(Some).map_err(|_| broken("must be the name of an agent"))
}

/// How an agent is to be found, or made.
#[derive(Debug, Clone, Default)]
pub(super) struct Wish {
    /// As the caller wrote it; empty for the token's agent, or `me`.
    pub(super) agent: String,
    pub(super) description: String,
    pub(super) group: String,
    pub(super) suffix_when_taken: bool,
    pub(super) move_here: bool,
}

/// The agent that the caller speaks as, and whether it is new. An interactive one that does not exist is registered.
pub(super) async fn speaker(
    caller: &Caller,
    wish: Wish,
    agents: &Agents,
    identity: &NodeIdentity,
) -> Result<(Arc<AgentRow>, bool), Refusal> {
    match caller {
        Caller::Agent(row, _) => {
            check_bound(row, &wish.agent, identity)?;
            // A token's agent exists; only what it says about itself may change.
            if wish.description.is_empty() && wish.group.is_empty() {
                return Ok((row.clone(), false));
            }
            let path = row.slug.path().clone();
            Ok(agents.register(Registration { suffix_when_taken: false, move_here: false, ..wish.at(path) }).await?)
        }
        Caller::User => {
            let path = own_path(&wish.agent, identity)?;
            check_interactive(agents, &path)?;
            Ok(agents.register(wish.at(path)).await?)
        }
    }
}

/// The agent that the caller speaks as, without making one.
pub(super) fn existing(
    caller: &Caller,
    agent: &str,
    agents: &Agents,
    identity: &NodeIdentity,
) -> Result<Option<Arc<AgentRow>>, Refusal> {
    match caller {
        Caller::Agent(row, _) => {
            check_bound(row, agent, identity)?;
            Ok(Some(row.clone()))
        }
        Caller::User => {
            let path = own_path(agent, identity)?;
            check_interactive(agents, &path)?;
            Ok(agents.by_slug(&agents.slug(&path)?))
        }
    }
}

/// The agent that the caller speaks as, without making one, except for `me`, which everybody has.
pub(super) async fn known(
    caller: &Caller,
    agent: &str,
    agents: &Agents,
    identity: &NodeIdentity,
) -> Result<Arc<AgentRow>, Refusal> {
    if let Some(row) = existing(caller, agent, agents, identity)? {
        return Ok(row);
    }
    let path = own_path(agent, identity)?;
    if path != parse::agent_path("")? {
        return Err(QueryError::NoAgent { slug: agents.slug(&path)?.to_string() }.into());
    }
    Ok(speaker(caller, Wish::named(agent), agents, identity).await?.0)
}

impl Wish {
    /// By name alone.
    pub(super) fn named(agent: impl Into<String>) -> Self {
        Self { agent: agent.into(), ..Self::default() }
    }

    fn at(self, path: AgentPath) -> Registration {
        let Self { agent: _, description, group, suffix_when_taken, move_here } = self;
        Registration { path, description, group, suffix_when_taken, move_here }
    }
}

/// An agent as the post knows it.
pub(super) fn local(row: &AgentRow) -> LocalAgent {
    LocalAgent { agent_id: row.agent_id, slug: row.slug.clone() }
}

/// A program with a token may repeat its own name and no other.
fn check_bound(row: &AgentRow, agent: &str, identity: &NodeIdentity) -> Result<(), Refusal> {
    let is_own = agent.is_empty()
        || agent == "self"
        || own_path(agent, identity).is_ok_and(|path| path == *row.slug.path() || path.as_str() == row.slug.name());
    let mismatch =
        || CallerError::NameMismatch { bound: row.slug.to_string(), named: agent.chars().take(128).collect() };
    if is_own { Ok(()) } else { Err(mismatch().into()) }
}

/// Nobody speaks without a token for an agent that a node started.
fn check_interactive(agents: &Agents, path: &AgentPath) -> Result<(), Refusal> {
    let slug = agents.slug(path)?;
    match agents.by_slug(&slug) {
        Some(row) if !is_interactive(&row) => Err(CallerError::TokenRequired { slug: slug.to_string() }.into()),
        _ => Ok(()),
    }
}

/// Whether a caller without a token may speak as the agent.
pub(super) fn is_interactive(row: &AgentRow) -> bool {
    AgentKind::from_number(row.kind) == AgentKind::Interactive
}

/// The path that a name means below the node's account.
pub(super) fn own_path(agent: &str, identity: &NodeIdentity) -> Result<AgentPath, Refusal> {
    if !agent.starts_with('/') {
        return parse::agent_path(agent);
    }
    let foreign = || CallerError::Foreign { slug: agent.chars().take(128).collect() };
    match SlugText::parse(agent)? {
        SlugText::Absolute { workspace, account, path }
            if workspace.as_ref().is_none_or(|workspace| *workspace == identity.workspace)
                && account == identity.account =>
        {
            Ok(path)
        }
        _ => Err(foreign().into()),
    }
}
