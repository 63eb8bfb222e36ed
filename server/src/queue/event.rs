//! Work that events make.

use murmur_core::{
    id::FollowUpId,
    limits::{EVENT_FOLLOW_UPS_MAX, FOLLOW_UPS_MAX},
    queue::Kind,
};
use sha2::{Digest as _, Sha256};

use super::room::holding;
use crate::db::{
    Conn, DbError,
    agent_run::AgentRun,
    follow_up::{self, FollowUp},
};

/// An event as an entry of a queue.
#[derive(Debug)]
pub(crate) struct NewEventWork<'a> {
    /// The event's, unique in the agent's log.
    pub(crate) event_id: &'a str,
    /// Who says so.
    pub(crate) origin: String,
    /// What the agent reads.
    pub(crate) description: String,
    /// An entry with this key that no turn holds gives way to it.
    pub(crate) key: Option<&'a str>,
}

/// Puts an event at the end of a live agent's queue. False when the queue is full, or holds as many events as it may: nothing of it has
/// happened then, but for the entry that would have given way.
pub(crate) async fn push_event(
    conn: &mut Conn,
    run: &AgentRun,
    new: NewEventWork<'_>,
    now_ms: u64,
) -> Result<bool, DbError> {
    let NewEventWork { event_id, origin, description, key } = new;
    if let Some(key) = key {
        let held_by = holding(conn, run.agent_id, run.incarnation, now_ms).await?;
        follow_up::remove_event(conn, run.agent_id, key, held_by).await?;
    }
    let is_full = follow_up::count(conn, run.agent_id).await? >= FOLLOW_UPS_MAX
        || follow_up::count_events(conn, run.agent_id).await? >= EVENT_FOLLOW_UPS_MAX;
    if is_full {
        return Ok(false);
    }
    // An event makes one entry in each queue, so that its id needs no chance.
    let digest = Sha256::new_with_prefix(run.agent_id.as_bytes()).chain_update(event_id).finalize();
    let mut random = [0; 10];
    random.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
    let entry = FollowUp {
        id: FollowUpId::new_v7(now_ms, random),
        position: follow_up::next_position(conn, run.agent_id).await?,
        kind: Kind::Event,
        sender: origin,
        description,
        tasks: Vec::new(),
        created_ms: now_ms,
        turn_id: None,
        redelivered: false,
    };
    follow_up::insert(conn, run.agent_id, &entry).await?;
    if let Some(key) = key {
        follow_up::set_event_key(conn, entry.id, key).await?;
    }
    Ok(true)
}
