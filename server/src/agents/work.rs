//! One change: a transaction, and whom to wake when it is durable.

use std::{
    collections::HashSet,
    ops::{Deref, DerefMut},
};

use murmur_core::{
    id::{AgentId, NodeId, TokenId, WorkspaceId},
    phase::Phase,
};
use murmur_proto::v1;

use super::AgentError;
use crate::{
    db::{
        Conn, DbError, Holder, Tx, agent,
        agent_run::{self, AgentRun},
        follow_up, meta,
        node_order::{self, Kind},
        timeline::{self, Entry},
        token,
    },
    events,
};

/// See the module.
pub(crate) struct Work {
    tx: Tx,
    now_ms: u64,
    wakes: Wakes,
}

/// Whom a change concerns.
#[derive(Default)]
pub(super) struct Wakes {
    pub(super) agents: HashSet<AgentId>,
    pub(super) workspaces: HashSet<WorkspaceId>,
    /// Whose directory moved on.
    pub(super) directory: HashSet<WorkspaceId>,
    /// Whose orders grew.
    pub(super) nodes: HashSet<NodeId>,
    /// Tokens that ended.
    pub(super) revoked: Vec<TokenId>,
    /// A timer was set, or a node has room.
    pub(super) keeper: bool,
    /// Nodes that have events to be told.
    pub(super) fed: HashSet<NodeId>,
    /// An event was added.
    pub(super) published: bool,
    /// Agents that were given work on the way: taken up before the change is done.
    pub(super) drains: Vec<(WorkspaceId, AgentId)>,
}

/// A part of a change that can be undone without the rest: whom the rest concerns.
pub(crate) struct Part(Wakes);

impl Holder for Work {}

impl Deref for Work {
    type Target = Conn;

    fn deref(&self) -> &Conn {
        &self.tx
    }
}

impl DerefMut for Work {
    fn deref_mut(&mut self) -> &mut Conn {
        &mut self.tx
    }
}

impl Wakes {
    fn add(&mut self, other: Self) {
        let Self { agents, workspaces, directory, nodes, revoked, keeper, fed, published, drains } = other;
        self.agents.extend(agents);
        self.workspaces.extend(workspaces);
        self.directory.extend(directory);
        self.nodes.extend(nodes);
        self.revoked.extend(revoked);
        self.keeper |= keeper;
        self.fed.extend(fed);
        self.published |= published;
        self.drains.extend(drains);
    }
}

impl Work {
    pub(super) fn new(tx: Tx, now_ms: u64) -> Self {
        Self { tx, now_ms, wakes: Wakes::default() }
    }

    pub(super) async fn commit(self) -> Result<Wakes, DbError> {
        self.tx.commit().await?;
        Ok(self.wakes)
    }

    /// Begins a part, which ends with [`Work::keep`] or [`Work::undo`].
    pub(crate) async fn part(&mut self) -> Result<Part, DbError> {
        self.tx.begin_part().await?;
        Ok(Part(std::mem::take(&mut self.wakes)))
    }

    /// Keeps a part.
    pub(crate) async fn keep(&mut self, part: Part) -> Result<(), DbError> {
        self.tx.keep_part().await?;
        self.wakes.add(part.0);
        Ok(())
    }

    /// Undoes a part: it wakes nobody.
    pub(crate) async fn undo(&mut self, part: Part) -> Result<(), DbError> {
        self.tx.undo_part().await?;
        self.wakes = part.0;
        Ok(())
    }

    /// The time of the change, Unix milliseconds.
    pub(crate) fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// Wakes whoever watches an agent: something about it changed that is not in its row.
    pub(crate) fn touch(&mut self, run: &AgentRun) {
        self.wakes.agents.insert(run.agent_id);
        self.wakes.workspaces.insert(run.workspace_id);
    }

    /// Tells an agent's node, and whoever watches, that its log has grown.
    pub(crate) fn event_added(&mut self, run: &AgentRun) {
        self.wakes.published = true;
        self.wakes.fed.extend(run.node_id);
    }

    /// Tells a node that there is more for it to be told.
    pub(crate) fn node_told(&mut self, node_id: NodeId) {
        self.wakes.fed.insert(node_id);
    }

    /// Lets an agent take up work that was given to it on the way, before the change is done.
    pub(crate) fn drain_later(&mut self, run: &AgentRun) {
        self.wakes.drains.push((run.workspace_id, run.agent_id));
    }

    /// Whom [`Work::drain_later`] named.
    pub(super) fn next_drain(&mut self) -> Option<(WorkspaceId, AgentId)> {
        self.wakes.drains.pop()
    }

    /// Wakes the keeper.
    pub(super) fn look_again(&mut self) {
        self.wakes.keeper = true;
    }

    /// Forgets tokens that ended.
    pub(crate) fn tokens_ended(&mut self, ended: Vec<TokenId>) {
        self.wakes.revoked.extend(ended);
    }

    /// Wakes whoever watches the directory.
    pub(crate) fn directory_moved(&mut self, workspace_id: WorkspaceId) {
        self.wakes.directory.insert(workspace_id);
    }

    /// Stores what changed of an agent beside its phase.
    pub(crate) async fn save(&mut self, run: &mut AgentRun) -> Result<(), DbError> {
        agent_run::save(&mut self.tx, run).await?;
        self.touch(run);
        Ok(())
    }

    /// Moves an agent to its next phase.
    pub(crate) async fn become_(&mut self, run: &mut AgentRun, to: Phase, reason: &str) -> Result<(), AgentError> {
        let to = run.phase.become_(to)?;
        Ok(self.enter(run, to, reason).await?)
    }

    /// Begins an ended agent's next life.
    pub(super) async fn revive(&mut self, run: &mut AgentRun, reason: &str) -> Result<(), AgentError> {
        let to = run.phase.revive()?;
        run.ended_ms = None;
        Ok(self.enter(run, to, reason).await?)
    }

    /// Ends an agent, from wherever it stands.
    pub(super) async fn end_as(&mut self, run: &mut AgentRun, to: Phase, reason: &str) -> Result<(), AgentError> {
        for step in run.phase.end_as(to)? {
            self.enter(run, *step, reason).await?;
        }
        Ok(())
    }

    /// As [`Work::end_as`], without a word of its node's: it may have seen nothing of the end.
    pub(super) async fn end_unseen(&mut self, run: &mut AgentRun, to: Phase, reason: &str) -> Result<(), AgentError> {
        self.end_as(run, to, reason).await?;
        if to == Phase::Failed {
            events::failed_unseen(self, run).await?;
        }
        Ok(())
    }

    /// Notes the first phase of a new agent.
    pub(super) async fn begun(&mut self, run: &AgentRun) -> Result<(), DbError> {
        self.note_phase(run, None).await?;
        self.touch(run);
        self.wakes.keeper |= run.deadline_ms.is_some();
        Ok(())
    }

    /// Adds an entry to an agent's timeline.
    pub(crate) async fn note(
        &mut self,
        run: &AgentRun,
        kind: v1::TimelineKind,
        at_ms: u64,
        text: &str,
    ) -> Result<(), DbError> {
        let entry =
            Entry { seq: 0, kind: kind.into(), at_ms, text: text.into(), phase: None, incarnation: run.incarnation };
        timeline::append(&mut self.tx, run.agent_id, &entry).await?;
        self.touch(run);
        Ok(())
    }

    /// Orders something of the agent's node. One without a node has nothing to be ordered.
    pub(super) async fn order(&mut self, run: &AgentRun, kind: Kind, item: v1::order::Item) -> Result<(), DbError> {
        let Some(node_id) = run.node_id else { return Ok(()) };
        let order = v1::Order {
            order_id: 0,
            agent_id: run.agent_id.to_string(),
            slug: run.slug.to_string(),
            incarnation: run.incarnation,
            item: Some(item),
        };
        node_order::insert(&mut self.tx, (node_id, run.agent_id), kind, order, self.now_ms).await?;
        self.wakes.nodes.insert(node_id);
        Ok(())
    }

    async fn enter(&mut self, run: &mut AgentRun, to: Phase, reason: &str) -> Result<(), DbError> {
        let from = std::mem::replace(&mut run.phase, to);
        run.rev += 1;
        run.phase_ms = self.now_ms;
        run.reason = reason.to_owned();
        run.stuck = false;
        if to.is_ended() {
            self.close(run).await?;
        }
        if to == Phase::Starting {
            follow_up::set_due(&mut self.tx, run.agent_id, false).await?;
        }
        if to == Phase::Sleeping {
            run.deadline_ms = None;
        }
        // Somebody may get the room.
        self.wakes.keeper |= to.is_ended() || to == Phase::Sleeping || run.deadline_ms.is_some();
        self.save(run).await?;
        self.note_phase(run, Some(from)).await
    }

    async fn note_phase(&mut self, run: &AgentRun, from: Option<Phase>) -> Result<(), DbError> {
        let entry = Entry {
            seq: 0,
            kind: v1::TimelineKind::Phase.into(),
            at_ms: self.now_ms,
            text: run.reason.clone(),
            phase: Some(run.phase),
            incarnation: run.incarnation,
        };
        timeline::append(&mut self.tx, run.agent_id, &entry).await?;
        if let Some(parent) = run.parent_id {
            let text = if run.reason.is_empty() {
                format!("{} is {}", run.slug, run.phase)
            } else {
                format!("{} is {}: {}", run.slug, run.phase, run.reason)
            };
            let entry = Entry { kind: v1::TimelineKind::Child.into(), text, ..entry };
            timeline::append(&mut self.tx, parent, &entry).await?;
            self.wakes.agents.insert(parent);
        }
        events::child_phase(self, run, from).await
    }

    /// What an end takes along: the address, the tokens, what was still to be done, the timer.
    async fn close(&mut self, run: &mut AgentRun) -> Result<(), DbError> {
        run.ended_ms = Some(self.now_ms);
        run.deadline_ms = None;
        run.end_as = None;
        run.end_reason = String::new();
        node_order::withdraw_all(&mut self.tx, run.agent_id).await?;
        if agent::live(&mut self.tx, run.workspace_id, run.agent_id).await?.is_some() {
            let revision = meta::next_revision(&mut self.tx).await?;
            agent::end(&mut self.tx, run.workspace_id, run.agent_id, self.now_ms, revision).await?;
            self.wakes.directory.insert(run.workspace_id);
        }
        for token_id in token::live_of_agent(&mut self.tx, run.workspace_id, run.agent_id).await? {
            self.wakes.revoked.extend(token::revoke_tree(&mut self.tx, token_id, self.now_ms).await?);
        }
        Ok(())
    }
}
