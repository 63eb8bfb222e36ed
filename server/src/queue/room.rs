//! What the functions of this room share.

use std::sync::Arc;

use murmur_core::id::{AgentId, TurnId};

use crate::{
    agents::Agents,
    clock::Clock,
    db::{Conn, Db, DbError, follow_up},
};

/// The queues of this control plane.
pub struct Queue {
    pub(super) db: Db,
    pub(super) clock: Clock,
    pub(super) agents: Arc<Agents>,
}

impl Queue {
    /// The room over a database.
    #[must_use]
    pub const fn new(db: Db, clock: Clock, agents: Arc<Agents>) -> Self {
        Self { db, clock, agents }
    }
}

/// The turn that holds entries of an agent's queue now, if one does. What another turn was handed waits again.
pub(super) async fn holding(
    conn: &mut Conn,
    agent_id: AgentId,
    incarnation: u32,
    now_ms: u64,
) -> Result<Option<TurnId>, DbError> {
    let turn = follow_up::turn(conn, agent_id).await?;
    let holds = |turn: &follow_up::Turn| turn.lease().is_some_and(|lease| lease.holds(incarnation, now_ms));
    Ok(turn.filter(holds).map(|turn| turn.id))
}
