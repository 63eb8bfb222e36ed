//! Turns: handing entries out, and being done with them.

use murmur_core::{
    id::{AgentId, NodeId, TurnId, WorkspaceId},
    limits::TURN_LEASE_MS,
    queue::{Claim, Lease},
};

use super::{Queue, QueueError};
use crate::{
    db::{
        Conn,
        follow_up::{self, FollowUp, Turn},
        target::Life,
    },
    random, target,
};

/// Entries that a turn holds.
#[derive(Debug, Clone)]
pub struct Handed {
    /// The turn.
    pub turn_id: TurnId,
    /// Its entries in order.
    pub entries: Vec<FollowUp>,
    /// Until when they are held, in Unix milliseconds.
    pub expire_ms: u64,
}

impl Queue {
    /// Takes the next turn of an agent of the calling node; `None` when nothing waits. A turn that this incarnation holds already is
    /// answered again, its entries marked, since the answer may have reached the agent.
    ///
    /// # Errors
    /// [`QueueError`].
    pub async fn claim(
        &self,
        node: (WorkspaceId, NodeId),
        agent_id: AgentId,
        incarnation: u32,
    ) -> Result<Option<Handed>, QueueError> {
        let now_ms = self.clock.now_ms();
        let mut tx = self.db.write().await?;
        let life = target::run_by(&mut tx, node, agent_id, incarnation).await?;
        let open = follow_up::turn(&mut tx, agent_id).await?;
        let lease = open.as_ref().and_then(Turn::lease);
        let turn_id = match (open, Lease::claim(lease.as_ref(), incarnation, now_ms)) {
            (Some(turn), Claim::Again) => {
                follow_up::mark_redelivered(&mut tx, agent_id, turn.id).await?;
                Some(turn.id)
            }
            (_, Claim::Again | Claim::Anew) => hand_out(&mut tx, &life, now_ms).await?,
        };
        let Some(turn_id) = turn_id else { return Ok(None) };
        let expire_ms = now_ms + TURN_LEASE_MS;
        let turn = Turn { id: turn_id, incarnation, expire_ms: Some(expire_ms) };
        follow_up::set_turn(&mut tx, agent_id, &turn).await?;
        let entries = follow_up::of_turn(&mut tx, agent_id, turn_id).await?;
        tx.commit().await?;
        Ok(Some(Handed { turn_id, entries, expire_ms }))
    }

    /// The runtime has taken the prompt of a turn: its entries are done with. A repeat changes nothing. A turn whose lease is over may
    /// still be completed while its entries were not handed out again.
    ///
    /// # Errors
    /// [`QueueError`].
    pub async fn complete(
        &self,
        node: (WorkspaceId, NodeId),
        agent_id: AgentId,
        incarnation: u32,
        turn_id: TurnId,
    ) -> Result<(), QueueError> {
        let mut tx = self.db.write().await?;
        target::run_by(&mut tx, node, agent_id, incarnation).await?;
        let turn = follow_up::turn(&mut tx, agent_id).await?;
        let turn = turn.filter(|turn| turn.id == turn_id && turn.incarnation == incarnation);
        let turn = turn.ok_or(QueueError::TurnNotFound(turn_id))?;
        if turn.expire_ms.is_none() {
            return Ok(());
        }
        follow_up::remove_turn(&mut tx, agent_id, turn_id).await?;
        follow_up::set_turn(&mut tx, agent_id, &Turn { expire_ms: None, ..turn }).await?;
        Ok(tx.commit().await?)
    }
}

/// Makes a turn of what waits; `None` when nothing does. Whatever an earlier turn still has waits again first, where it stood.
async fn hand_out(conn: &mut Conn, life: &Life, now_ms: u64) -> Result<Option<TurnId>, QueueError> {
    follow_up::release(conn, life.id).await?;
    let waiting = follow_up::waiting(conn, life.id).await?;
    let taken = life.dequeue.take(waiting.iter().map(|(_, entry)| *entry));
    let Some((up_to, _)) = waiting.get(..taken).and_then(<[_]>::last) else { return Ok(None) };
    let turn_id = TurnId::new_v7(now_ms, random::bytes()?);
    follow_up::hand_out(conn, life.id, turn_id, *up_to).await?;
    Ok(Some(turn_id))
}
