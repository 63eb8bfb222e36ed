//! Scopes and kinds of tokens by the names that people use (PROTOCOL §6.2).

use clap::ValueEnum;
use murmur_proto::v1::{Scope, TokenKind};

/// What a token may be issued for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ScopeArg {
    #[value(name = "directory:read")]
    DirectoryRead,
    #[value(name = "directory:publish")]
    DirectoryPublish,
    #[value(name = "nodes:enroll")]
    NodesEnroll,
    #[value(name = "nodes:revoke")]
    NodesRevoke,
    #[value(name = "tokens:issue")]
    TokensIssue,
    #[value(name = "agents:read")]
    AgentsRead,
    #[value(name = "agents:spawn")]
    AgentsSpawn,
    #[value(name = "agents:kill")]
    AgentsKill,
    #[value(name = "agents:message")]
    AgentsMessage,
    #[value(name = "tasks:read")]
    TasksRead,
    #[value(name = "tasks:write")]
    TasksWrite,
    #[value(name = "events:read")]
    EventsRead,
    #[value(name = "events:publish")]
    EventsPublish,
    #[value(name = "webhooks:manage")]
    WebhooksManage,
    #[value(name = "uploads:write")]
    UploadsWrite,
    #[value(name = "admin")]
    Admin,
}

impl From<ScopeArg> for Scope {
    fn from(scope: ScopeArg) -> Self {
        match scope {
            ScopeArg::DirectoryRead => Self::DirectoryRead,
            ScopeArg::DirectoryPublish => Self::DirectoryPublish,
            ScopeArg::NodesEnroll => Self::NodesEnroll,
            ScopeArg::NodesRevoke => Self::NodesRevoke,
            ScopeArg::TokensIssue => Self::TokensIssue,
            ScopeArg::AgentsRead => Self::AgentsRead,
            ScopeArg::AgentsSpawn => Self::AgentsSpawn,
            ScopeArg::AgentsKill => Self::AgentsKill,
            ScopeArg::AgentsMessage => Self::AgentsMessage,
            ScopeArg::TasksRead => Self::TasksRead,
            ScopeArg::TasksWrite => Self::TasksWrite,
            ScopeArg::EventsRead => Self::EventsRead,
            ScopeArg::EventsPublish => Self::EventsPublish,
            ScopeArg::WebhooksManage => Self::WebhooksManage,
            ScopeArg::UploadsWrite => Self::UploadsWrite,
            ScopeArg::Admin => Self::Admin,
        }
    }
}

/// Whom a token may be issued for here: nodes get theirs by enrolling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum KindArg {
    /// A person
    User,
    /// A build
    Ci,
    /// An agent
    Agent,
}

impl From<KindArg> for TokenKind {
    fn from(kind: KindArg) -> Self {
        match kind {
            KindArg::User => Self::User,
            KindArg::Ci => Self::Ci,
            KindArg::Agent => Self::Agent,
        }
    }
}

/// A scope's name, such as `directory:read`.
pub(super) const fn name(scope: Scope) -> &'static str {
    match scope {
        Scope::Unspecified => "unknown",
        Scope::Public => "public",
        Scope::Self_ => "self",
        Scope::Admin => "admin",
        Scope::DirectoryRead => "directory:read",
        Scope::DirectoryPublish => "directory:publish",
        Scope::NodesEnroll => "nodes:enroll",
        Scope::NodesRevoke => "nodes:revoke",
        Scope::Node => "node",
        Scope::TokensIssue => "tokens:issue",
        Scope::AgentsRead => "agents:read",
        Scope::AgentsSpawn => "agents:spawn",
        Scope::AgentsKill => "agents:kill",
        Scope::AgentsMessage => "agents:message",
        Scope::TasksRead => "tasks:read",
        Scope::TasksWrite => "tasks:write",
        Scope::EventsRead => "events:read",
        Scope::EventsPublish => "events:publish",
        Scope::WebhooksManage => "webhooks:manage",
        Scope::UploadsWrite => "uploads:write",
        Scope::Local => "local",
        Scope::LocalAgent => "local-agent",
    }
}

/// A kind's name.
pub(super) const fn kind(kind: TokenKind) -> &'static str {
    match kind {
        TokenKind::Unspecified => "unknown",
        TokenKind::Admin => "admin",
        TokenKind::User => "user",
        TokenKind::Node => "node",
        TokenKind::Agent => "agent",
        TokenKind::Ci => "ci",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_is_what_is_shown() {
        for arg in ScopeArg::value_variants() {
            assert_eq!(arg.to_possible_value().unwrap().get_name(), name((*arg).into()));
        }
        for arg in KindArg::value_variants() {
            assert_eq!(arg.to_possible_value().unwrap().get_name(), kind((*arg).into()));
        }
    }
}
