//! Turns: handing entries out, and being done with them.

use murmur_core::{
    id::{AgentId, NodeId, TurnId, WorkspaceId},
    limits::TURN_LEASE_MS,
    queue::{Claim, DequeueStrategy, Lease},
};
use murmur_proto::v1;

use super::{Queue, QueueError};
use crate::{
    db::{
        Conn,
        agent_run::AgentRun,
        follow_up::{self, FollowUp, Turn},
        node_order::{self, Kind},
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
    /// Takes the next turn of an agent of the calling node; `None` when nothing waits. With `single` that is one entry, unless the agent's
    /// strategy was said. A turn that this incarnation holds already is
    /// answered again, its entries marked, since the answer may have reached the agent.
    ///
    /// # Errors
    /// [`QueueError`].
    pub async fn claim(
        &self,
        node: (WorkspaceId, NodeId),
        (agent_id, incarnation): (AgentId, u32),
        single: bool,
    ) -> Result<Option<Handed>, QueueError> {
        let mut work = self.agents.begin().await?;
        let now_ms = work.now_ms();
        let run = target::run_by(&mut work, node, agent_id, incarnation).await?;
        let open = follow_up::turn(&mut work, agent_id).await?;
        let lease = open.as_ref().and_then(Turn::lease);
        let mut is_new = false;
        let turn_id = match (open, Lease::claim(lease.as_ref(), incarnation, now_ms)) {
            (Some(turn), Claim::Again) => {
                follow_up::mark_redelivered(&mut work, agent_id, turn.id).await?;
                Some(turn.id)
            }
            (_, Claim::Again | Claim::Anew) => {
                let turn_id = hand_out(&mut work, &run, single, now_ms).await?;
                is_new = turn_id.is_some();
                turn_id
            }
        };
        // The node has come: whoever adds work from now on tells it again, although it may not have reported the order as done.
        node_order::withdraw(&mut work, agent_id, Kind::Drain).await?;
        let Some(turn_id) = turn_id else {
            self.agents.commit(work).await?;
            return Ok(None);
        };
        let expire_ms = now_ms + TURN_LEASE_MS;
        let turn = Turn { id: turn_id, incarnation, expire_ms: Some(expire_ms) };
        follow_up::set_turn(&mut work, agent_id, &turn).await?;
        // One that is answered again may have been begun and heard of: its node has then only not told yet that the prompt was taken.
        if is_new {
            follow_up::set_due(&mut work, agent_id, true).await?;
        }
        let entries = follow_up::of_turn(&mut work, agent_id, turn_id).await?;
        work.touch(&run);
        self.agents.commit(work).await?;
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
        let mut work = self.agents.begin().await?;
        let run = target::run_by(&mut work, node, agent_id, incarnation).await?;
        let turn = follow_up::turn(&mut work, agent_id).await?;
        let turn = turn.filter(|turn| turn.id == turn_id && turn.incarnation == incarnation);
        let turn = turn.ok_or(QueueError::TurnNotFound(turn_id))?;
        if turn.expire_ms.is_none() {
            return Ok(());
        }
        follow_up::remove_turn(&mut work, agent_id, turn_id).await?;
        follow_up::set_turn(&mut work, agent_id, &Turn { expire_ms: None, ..turn }).await?;
        work.touch(&run);
        Ok(self.agents.commit(work).await?)
    }
}

/// Makes a turn of what waits; `None` when nothing does. Whatever an earlier turn still has waits again first, where it stood.
async fn hand_out(conn: &mut Conn, run: &AgentRun, single: bool, now_ms: u64) -> Result<Option<TurnId>, QueueError> {
    follow_up::release(conn, run.agent_id).await?;
    let waiting = follow_up::waiting(conn, run.agent_id).await?;
    let taken = strategy(run, single).take(waiting.iter().map(|(_, entry)| *entry));
    let Some((up_to, _)) = waiting.get(..taken).and_then(<[_]>::last) else { return Ok(None) };
    let turn_id = TurnId::new_v7(now_ms, random::bytes()?);
    follow_up::hand_out(conn, run.agent_id, turn_id, *up_to).await?;
    Ok(Some(turn_id))
}

fn strategy(run: &AgentRun, single: bool) -> DequeueStrategy {
    match run.spec.dequeue_strategy() {
        v1::DequeueStrategy::Unspecified | v1::DequeueStrategy::Auto if single => DequeueStrategy::One,
        v1::DequeueStrategy::Unspecified | v1::DequeueStrategy::Auto => DequeueStrategy::Auto,
        v1::DequeueStrategy::All => DequeueStrategy::All,
        v1::DequeueStrategy::One => DequeueStrategy::One,
        v1::DequeueStrategy::Five => DequeueStrategy::Five,
    }
}
