//! A checklist's states and edges, and the decision over a change.

use std::collections::{BTreeMap, BTreeSet};

use super::{Change, Edge, Outcome, Refused, Status, TaskId, cycle};
use crate::limits::{TASK_EDGES_MAX, TASKS_MAX};

/// How an item stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// How far it is.
    pub status: Status,
    /// It waits for a changed file and does not count until then.
    pub dormant: bool,
}

impl State {
    /// As most are created.
    pub const PENDING: Self = Self { status: Status::Pending, dormant: false };

    /// Whether others wait for it, and an agent is not done while it stands.
    #[must_use]
    pub const fn is_open(self) -> bool {
        !self.dormant && !self.status.is_done()
    }
}

/// An agent's checklist, as far as decisions need it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checklist {
    items: BTreeMap<TaskId, State>,
    edges: BTreeSet<Edge>,
}

impl Checklist {
    /// A checklist as stored.
    #[must_use]
    pub fn new(items: impl IntoIterator<Item = (TaskId, State)>, edges: impl IntoIterator<Item = Edge>) -> Self {
        Self { items: items.into_iter().collect(), edges: edges.into_iter().collect() }
    }

    /// How an item stands.
    #[must_use]
    pub fn get(&self, id: TaskId) -> Option<State> {
        self.items.get(&id).copied()
    }

    /// The items in order.
    pub fn items(&self) -> impl Iterator<Item = (TaskId, State)> {
        self.items.iter().map(|(id, state)| (*id, *state))
    }

    /// The edges in order.
    pub fn edges(&self) -> impl Iterator<Item = Edge> {
        self.edges.iter().copied()
    }

    /// Adds an item; one of this number is replaced.
    pub fn insert(&mut self, id: TaskId, state: State) {
        self.items.insert(id, state);
    }

    /// The blockers of an item that are not done, in order.
    #[must_use]
    pub fn open_blockers(&self, id: TaskId) -> Vec<TaskId> {
        open_blockers(&self.items, &self.edges, id)
    }

    /// Decides a change, wholly or not at all.
    ///
    /// # Errors
    /// [`Refused`], and the checklist is as it was.
    pub fn update(&mut self, id: TaskId, change: &Change) -> Result<Outcome, Refused> {
        let state = self.get(id).ok_or(Refused::NotFound(id))?;
        if state.status == Status::Deleted {
            return Err(Refused::Deleted(id));
        }
        self.check_names(id, change)?;
        let (added, removed) = (change.added(id), change.removed(id));
        let mut edges: BTreeSet<Edge> = self.edges.difference(&removed).copied().collect();
        edges.extend(&added);
        check_edges(&self.edges, &edges, &added)?;
        let next = change.status.filter(|next| *next != state.status);
        if let Some(to) = next {
            self.check_transition(id, state, to, &edges)?;
            if to == Status::Deleted {
                edges.retain(|edge| edge.blocker != id && edge.blocked != id);
            }
        }
        let outcome = Outcome {
            status: next,
            added: edges.difference(&self.edges).copied().collect(),
            removed: self.edges.difference(&edges).copied().collect(),
        };
        self.edges = edges;
        if let Some(status) = next {
            self.items.insert(id, State { status, ..state });
        }
        Ok(outcome)
    }

    /// The other items that a change names must be there, be others, and not be named both ways.
    fn check_names(&self, id: TaskId, change: &Change) -> Result<(), Refused> {
        for (field, other) in change.named() {
            if other == id {
                return Err(Refused::SelfEdge { field, id });
            }
            let state = self.get(other).ok_or(Refused::NotFound(other))?;
            if state.status == Status::Deleted && field.starts_with("add") {
                return Err(Refused::Deleted(other));
            }
        }
        let both = |add: &[TaskId], remove: &[TaskId]| add.iter().find(|other| remove.contains(other)).copied();
        if let Some(other) = both(&change.add_blocks, &change.remove_blocks) {
            return Err(Refused::Contradiction { field: "remove_blocks", other });
        }
        if let Some(other) = both(&change.add_blocked_by, &change.remove_blocked_by) {
            return Err(Refused::Contradiction { field: "remove_blocked_by", other });
        }
        Ok(())
    }

    /// Whether so many more items fit beside `has` that are not deleted.
    ///
    /// # Errors
    /// [`Refused::Full`].
    pub const fn check_room(has: usize, wanted: usize) -> Result<(), Refused> {
        if has.saturating_add(wanted) > TASKS_MAX { Err(Refused::Full { has, wanted }) } else { Ok(()) }
    }

    fn check_transition(&self, id: TaskId, state: State, to: Status, edges: &BTreeSet<Edge>) -> Result<(), Refused> {
        if !state.status.may_become(to) {
            return Err(Refused::Transition { id, from: state.status, to });
        }
        if matches!(to, Status::Pending | Status::Deleted) {
            return Ok(());
        }
        if state.dormant {
            return Err(Refused::Dormant(id));
        }
        let blockers = open_blockers(&self.items, edges, id);
        if blockers.is_empty() { Ok(()) } else { Err(Refused::Blocked { id, to, blockers }) }
    }
}

fn open_blockers(items: &BTreeMap<TaskId, State>, edges: &BTreeSet<Edge>, id: TaskId) -> Vec<TaskId> {
    let blockers = edges.iter().filter(|edge| edge.blocked == id).map(|edge| edge.blocker);
    blockers.filter(|blocker| items.get(blocker).is_some_and(|state| state.is_open())).collect()
}

/// New edges must neither be too many nor close a cycle.
fn check_edges(before: &BTreeSet<Edge>, after: &BTreeSet<Edge>, added: &BTreeSet<Edge>) -> Result<(), Refused> {
    let new = || added.iter().filter(|edge| !before.contains(edge));
    let ends: BTreeSet<TaskId> = new().flat_map(|edge| [edge.blocker, edge.blocked]).collect();
    for id in ends {
        let edges = after.iter().filter(|edge| edge.blocker == id || edge.blocked == id).count();
        if edges > TASK_EDGES_MAX {
            return Err(Refused::TooManyEdges { id, edges });
        }
    }
    for edge in new() {
        if let Some(way) = cycle::path(after, edge.blocked, edge.blocker) {
            return Err(Refused::Cycle(std::iter::once(edge.blocker).chain(way).collect()));
        }
    }
    Ok(())
}
