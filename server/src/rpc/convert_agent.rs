//! Agents' lives as messages.

use murmur_proto::v1;

use super::convert::timestamp;
use crate::{
    agents::wire_phase,
    db::{agent_run::AgentRun, timeline::Entry},
};

/// An agent's status. Of its environment only the names are told: values are where secrets are kept.
pub(super) fn status(run: AgentRun, queued: u64, kept_until_ms: Option<u64>) -> v1::AgentStatus {
    let mut spec = run.spec;
    spec.env.values_mut().for_each(String::clear);
    v1::AgentStatus {
        agent_id: run.agent_id.to_string(),
        slug: run.slug.to_string(),
        phase: wire_phase(run.phase).into(),
        rev: run.rev,
        incarnation: run.incarnation,
        node: run.node_name,
        node_id: run.node_id.map(|id| id.to_string()).unwrap_or_default(),
        version: run.node_version,
        reason: run.reason,
        progress: run.progress,
        spec: Some(spec),
        current_description: run.current_description,
        queued: u32::try_from(queued).unwrap_or(u32::MAX),
        output: run.output,
        parent: run.parent_slug.unwrap_or_default(),
        children: run.children,
        stuck: run.stuck,
        create_time: Some(timestamp(run.created_ms)),
        phase_time: Some(timestamp(run.phase_ms)),
        end_time: run.ended_ms.map(timestamp),
        exit_code: run.exit_code,
        turns: run.turns,
        interactive: run.interactive,
        keep_until_time: kept_until_ms.map(timestamp),
    }
}

pub(super) fn entry(entry: Entry) -> v1::TimelineEntry {
    v1::TimelineEntry {
        seq: entry.seq,
        kind: entry.kind,
        time: Some(timestamp(entry.at_ms)),
        text: entry.text,
        phase: entry.phase.map_or(v1::Phase::Unspecified, wire_phase).into(),
        incarnation: entry.incarnation,
    }
}
