//! The control plane's words in our own types, each parsed once.

use std::{fmt::Display, str::FromStr};

use murmur_core::{id::AgentId, subject::Route};
use murmur_proto::{
    time::unix_ms,
    v1::{self, watch_directory_response::Item},
};

use super::ControlError;
use crate::{
    directory::{AgentKind, Change, Peer, PeerKeys},
    identity::BrokerRecord,
};

/// A field that cannot be read.
fn malformed(field: &str, error: impl Display) -> ControlError {
    ControlError::Malformed(format!("{field}: {error}"))
}

pub(super) fn parse<T: FromStr<Err: Display>>(field: &str, text: &str) -> Result<T, ControlError> {
    text.parse().map_err(|error| malformed(field, error))
}

/// The agent of an answer that must have one.
pub(super) fn answered(agent: Option<v1::Agent>) -> Result<Peer, ControlError> {
    peer(agent.ok_or_else(|| malformed("agent", "must be set"))?)
}

/// An agent.
pub(super) fn peer(agent: v1::Agent) -> Result<Peer, ControlError> {
    let route = (!agent.route.is_empty()).then(|| parse::<Route>("route", &agent.route)).transpose()?;
    let former =
        (!agent.former_node_id.is_empty()).then(|| parse("former_node_id", &agent.former_node_id)).transpose()?;
    let keys = agent.keys.filter(|keys| !keys.chain.is_empty() && !keys.prekey.is_empty());
    Ok(Peer {
        agent_id: parse("agent_id", &agent.agent_id)?,
        slug: parse("slug", &agent.slug)?,
        node_id: parse("node_id", &agent.node_id)?,
        kind: AgentKind::from_number(agent.kind),
        description: agent.description,
        group: agent.group,
        host: agent.host,
        attached: agent.presence == i32::from(v1::Presence::Online),
        route,
        keys: keys.map(|v1::AgentKeys { chain, prekey }| PeerKeys { chain, prekey }),
        revision: agent.revision,
        created_ms: agent.create_time.map_or(0, |time| unix_ms(&time)),
        former: former.zip(agent.move_time.map(|time| unix_ms(&time))),
    })
}

/// What a watch says, as a change; `None` for its marks.
pub(super) fn change(item: &Item) -> Result<Option<Change>, ControlError> {
    Ok(match item {
        Item::Agent(agent) => Some(Change::Agent(peer(agent.clone())?.into())),
        Item::Removed(removed) => Some(Change::Removed(parse::<AgentId>("agent_id", &removed.agent_id)?)),
        Item::Node(node) => Some(Change::Node {
            node_id: parse("node_id", &node.node_id)?,
            online: node.presence == i32::from(v1::Presence::Online),
        }),
        Item::SnapshotDone(_) | Item::Bookmark(_) => None,
    })
}

/// Broker credentials.
pub(super) fn broker(answer: v1::GetBrokerCredentialsResponse, now_ms: u64) -> Result<BrokerRecord, ControlError> {
    let v1::GetBrokerCredentialsResponse {
        jwt,
        urls,
        route,
        stream,
        consumer,
        expire_time,
        ca_pem,
        stream_create_time,
    } = answer;
    let expire_ms = unix_ms(&expire_time.ok_or_else(|| malformed("expire_time", "must be set"))?);
    Ok(BrokerRecord {
        jwt,
        urls,
        route: parse("route", &route)?,
        stream,
        consumer,
        ca_pem,
        issued_ms: now_ms,
        expire_ms,
        stream_created_ms: stream_create_time.map_or(0, |time| unix_ms(&time)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_without_keys_or_route_is_read() {
        let agent = v1::Agent {
            agent_id: "01".repeat(16),
            slug: "/w/acme/u/jdoe/me".to_owned(),
            node_id: "02".repeat(16),
            kind: 1,
            presence: 1,
            ..v1::Agent::default()
        };
        let read = peer(agent.clone()).unwrap();
        assert!(read.attached && read.route.is_none() && read.keys.is_none());
        let error = peer(v1::Agent { slug: "me".to_owned(), ..agent }).unwrap_err().to_string();
        assert!(error.contains("slug"), "{error}");
    }
}
