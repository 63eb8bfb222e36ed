//! Events as work: an agent that nobody attends to is not pushed anything, so what needs attention waits in its queue, which wakes it.

use murmur_core::{
    event::{Draft, envelope},
    phase::Phase,
};

use crate::{
    agents::Work,
    db::{Conn, DbError, agent_run::AgentRun, node_runtime},
    queue,
};

/// Whether an agent takes events as work: its process is a node's, and its runtime goes on where it was, as far as the node has said. A
/// program that remembers nothing is done when it ends; another run of it would do the same again.
pub(super) async fn takes_work(conn: &mut Conn, run: &AgentRun) -> Result<bool, DbError> {
    if run.interactive || run.ended_ms.is_some() || run.phase == Phase::Destroying {
        return Ok(false);
    }
    let Some(node_id) = run.node_id else { return Ok(false) };
    let Some(facts) = node_runtime::facts(conn, node_id).await? else { return Ok(false) };
    let name = if run.spec.backend.is_empty() { &facts.default_backend } else { &run.spec.backend };
    Ok(facts.backends.iter().any(|backend| backend.name == *name && (backend.can_resume || backend.stays)))
}

/// Puts an event into the agent's queue, in the place of one that it supersedes and that no turn holds. False when the queue has no room: it
/// stands in the log alone.
pub(super) async fn give(work: &mut Work, run: &AgentRun, draft: &Draft, key: Option<&str>) -> Result<bool, DbError> {
    let Draft { kind, event_id, origin, untrusted, attributes, text, .. } = draft;
    let origin = origin.to_string();
    let description = envelope(kind.as_str(), &origin, *untrusted, attributes, text);
    let now_ms = work.now_ms();
    let given =
        queue::push_event(work, run, queue::NewEventWork { event_id, origin, description, key }, now_ms).await?;
    if given {
        work.drain_later(run);
    }
    Ok(given)
}
