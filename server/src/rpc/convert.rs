//! Domain values as messages.

use murmur_core::{checklist::Status as TaskStatus, queue::Kind as FollowUpKind, token::TokenKind};
pub(super) use murmur_proto::time::timestamp;
use murmur_proto::v1;

use crate::db::{
    agent::{Agent, Kind},
    follow_up::FollowUp,
    node::{Node, State},
    task::Task,
    token::Token,
    workspace::{Mode, Workspace},
};

pub(super) fn workspace(workspace: Workspace) -> v1::Workspace {
    let mode = match workspace.mode {
        Mode::Owner => v1::WorkspaceMode::Owner,
    };
    v1::Workspace {
        workspace_id: workspace.id.to_string(),
        name: workspace.name.to_string(),
        mode: mode.into(),
        root_certificate: workspace.root_certificate.into(),
        create_time: Some(timestamp(workspace.created_ms)),
    }
}

pub(super) fn presence(online: bool) -> v1::Presence {
    if online { v1::Presence::Online } else { v1::Presence::Offline }
}

/// An agent in a listing: online when a session is attached and its node is connected.
pub(super) fn listed(agent: Agent) -> v1::Agent {
    let online = agent.attached && agent.node_online;
    entry(agent, online)
}

/// An agent in a watch, where its node's presence is told apart.
pub(super) fn watched(agent: Agent) -> v1::Agent {
    let online = agent.attached;
    entry(agent, online)
}

fn entry(agent: Agent, online: bool) -> v1::Agent {
    let kind = match agent.kind {
        Kind::Interactive => v1::AgentKind::Interactive,
        Kind::Spawned => v1::AgentKind::Spawned,
    };
    v1::Agent {
        agent_id: agent.id.to_string(),
        slug: agent.slug.to_string(),
        node_id: agent.node_id.to_string(),
        kind: kind.into(),
        description: agent.description,
        group: agent.group,
        presence: presence(online).into(),
        keys: agent.keys.map(|keys| v1::AgentKeys { chain: keys.chain.into(), prekey: keys.prekey.into() }),
        route: agent.route,
        create_time: Some(timestamp(agent.created_ms)),
        revision: agent.revision,
        host: agent.host,
        former_node_id: agent.former.map(|(node, _)| node.to_string()).unwrap_or_default(),
        move_time: agent.former.map(|(_, at_ms)| timestamp(at_ms)),
    }
}

pub(super) fn node(node: Node) -> v1::Node {
    let state = match node.state {
        State::Pending => v1::NodeState::Pending,
        State::Approved => v1::NodeState::Approved,
        State::Revoked => v1::NodeState::Revoked,
    };
    v1::Node {
        node_id: node.id.to_string(),
        name: node.name,
        account: node.account.to_string(),
        state: state.into(),
        public_key: node.public_key.to_vec().into(),
        certificate: node.certificate.unwrap_or_default().into(),
        presence: presence(node.online).into(),
        version: node.version,
        create_time: Some(timestamp(node.created_ms)),
        last_seen_time: node.last_seen_ms.map(timestamp),
        slug_scope: node.slug_scope.iter().map(ToString::to_string).collect(),
        workspace_id: node.workspace_id.to_string(),
    }
}

pub(super) fn token_kind(kind: TokenKind) -> v1::TokenKind {
    match kind {
        TokenKind::Admin => v1::TokenKind::Admin,
        TokenKind::User => v1::TokenKind::User,
        TokenKind::Node => v1::TokenKind::Node,
        TokenKind::Agent => v1::TokenKind::Agent,
        TokenKind::Ci => v1::TokenKind::Ci,
    }
}

pub(super) fn token(token: Token) -> v1::Token {
    v1::Token {
        token_id: token.id.to_string(),
        kind: token_kind(token.kind).into(),
        account: token.account.map(|account| account.to_string()).unwrap_or_default(),
        scopes: token.scopes.iter().map(Into::into).collect(),
        slug_prefix: token.slug_prefix.map(|prefix| prefix.to_string()).unwrap_or_default(),
        label: token.label,
        create_time: Some(timestamp(token.created_ms)),
        expire_time: token.expire_ms.map(timestamp),
        revoked: token.revoked_ms.is_some(),
    }
}

pub(super) fn task(task: Task) -> v1::Task {
    let status = match task.status {
        TaskStatus::Pending => v1::TaskStatus::Pending,
        TaskStatus::InProgress => v1::TaskStatus::InProgress,
        TaskStatus::Completed => v1::TaskStatus::Completed,
        TaskStatus::Deleted => v1::TaskStatus::Deleted,
    };
    let (activation, pattern) = match task.dormant {
        true => (v1::Activation::Dormant, task.pattern),
        false => (v1::Activation::Active, String::new()),
    };
    v1::Task {
        task_id: task.id.to_string(),
        subject: task.subject.into(),
        description: task.details.into(),
        status: status.into(),
        blocks: task.blocks.iter().map(ToString::to_string).collect(),
        blocked_by: task.blocked_by.iter().map(ToString::to_string).collect(),
        activation: activation.into(),
        pattern,
        create_time: Some(timestamp(task.created_ms)),
        update_time: Some(timestamp(task.updated_ms)),
        rev: task.rev,
    }
}

pub(super) fn follow_up(entry: FollowUp) -> v1::FollowUp {
    let kind = match entry.kind {
        FollowUpKind::Written => v1::FollowUpKind::Written,
        FollowUpKind::Event => v1::FollowUpKind::Event,
    };
    v1::FollowUp {
        follow_up_id: entry.id.to_string(),
        description: entry.description,
        tasks: entry.tasks.into_iter().map(Into::into).collect(),
        kind: kind.into(),
        from: entry.sender,
        create_time: Some(timestamp(entry.created_ms)),
        redelivered: entry.redelivered,
    }
}
