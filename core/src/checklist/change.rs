//! A change that is asked for, what comes of it, and why it is refused.

use std::{collections::BTreeSet, fmt};

use super::{Status, TaskId};
use crate::limits::{TASK_EDGES_MAX, TASKS_MAX};

/// One item waits for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Edge {
    /// To be done first.
    pub blocker: TaskId,
    /// What waits.
    pub blocked: TaskId,
}

/// What is to become of an item. Adding an edge that is there and removing one that is not change nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// `None`: as it is.
    pub status: Option<Status>,
    /// Items that are to wait for this one.
    pub add_blocks: Vec<TaskId>,
    /// Items that this one is to wait for.
    pub add_blocked_by: Vec<TaskId>,
    /// Items that are to wait for this one no longer.
    pub remove_blocks: Vec<TaskId>,
    /// Items that this one is to wait for no longer.
    pub remove_blocked_by: Vec<TaskId>,
}

impl Change {
    /// Whether it asks for nothing.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        let Self { status, add_blocks, add_blocked_by, remove_blocks, remove_blocked_by } = self;
        status.is_none()
            && add_blocks.is_empty()
            && add_blocked_by.is_empty()
            && remove_blocks.is_empty()
            && remove_blocked_by.is_empty()
    }

    /// The items that it names, each with the field that names it.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, TaskId)> {
        let lists = [
            ("add_blocks", &self.add_blocks),
            ("add_blocked_by", &self.add_blocked_by),
            ("remove_blocks", &self.remove_blocks),
            ("remove_blocked_by", &self.remove_blocked_by),
        ];
        lists.into_iter().flat_map(|(field, ids)| ids.iter().map(move |id| (field, *id)))
    }

    /// The edges that it adds to an item.
    pub(super) fn added(&self, id: TaskId) -> BTreeSet<Edge> {
        edges(id, &self.add_blocks, &self.add_blocked_by)
    }

    /// The edges that it removes from an item.
    pub(super) fn removed(&self, id: TaskId) -> BTreeSet<Edge> {
        edges(id, &self.remove_blocks, &self.remove_blocked_by)
    }
}

fn edges(id: TaskId, blocks: &[TaskId], blocked_by: &[TaskId]) -> BTreeSet<Edge> {
    let ahead = blocks.iter().map(|other| Edge { blocker: id, blocked: *other });
    ahead.chain(blocked_by.iter().map(|other| Edge { blocker: *other, blocked: id })).collect()
}

/// What is different after a change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The item's new status; `None` when it stays.
    pub status: Option<Status>,
    /// Edges that are new.
    pub added: Vec<Edge>,
    /// Edges that are gone.
    pub removed: Vec<Edge>,
}

impl Outcome {
    /// Whether nothing is different.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.status.is_none() && self.added.is_empty() && self.removed.is_empty()
    }

    /// The items at the ends of edges that are new or gone.
    #[must_use]
    pub fn ends(&self) -> BTreeSet<TaskId> {
        self.added.iter().chain(&self.removed).flat_map(|edge| [edge.blocker, edge.blocked]).collect()
    }
}

/// Why a change is refused. Nothing of it has happened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is no such item.
    #[error("there is no item {0} in this checklist")]
    NotFound(TaskId),
    /// It is deleted, which is final.
    #[error("item {0} is deleted, which is final")]
    Deleted(TaskId),
    /// An item cannot wait for itself.
    #[error("{field}: item {id} cannot wait for itself")]
    SelfEdge {
        /// Which list names it.
        field: &'static str,
        /// The item.
        id: TaskId,
    },
    /// The same edge is to be there and not to be there.
    #[error("{field}: item {other} is named in the list to add and in the list to remove")]
    Contradiction {
        /// The list to remove from.
        field: &'static str,
        /// The other end of the edge.
        other: TaskId,
    },
    /// The checklist is full.
    #[error(
        "the checklist holds {has} items and may hold {TASKS_MAX}: complete or delete some, {wanted} more do not fit"
    )]
    Full {
        /// Items that are not deleted.
        has: usize,
        /// Items to add.
        wanted: usize,
    },
    /// The item has too many edges.
    #[error("item {id} would have {edges} edges and may have {TASK_EDGES_MAX}")]
    TooManyEdges {
        /// Which item.
        id: TaskId,
        /// How many it would have.
        edges: usize,
    },
    /// Items would wait for each other.
    #[error("the items would wait for each other: {}", Path(.0))]
    Cycle(
        /// Each blocks the next; the last is the first again.
        Vec<TaskId>,
    ),
    /// There is no such transition.
    #[error("item {id} is {from} and cannot become {to}")]
    Transition {
        /// Which item.
        id: TaskId,
        /// What it is.
        from: Status,
        /// What it was to be.
        to: Status,
    },
    /// It sleeps until a file changes.
    #[error(
        "item {0} is dormant: it wakes when a file changes that fits its pattern, and can only be deleted until then"
    )]
    Dormant(TaskId),
    /// Other items are to be done first.
    #[error("item {id} cannot become {to}: it waits for {}", List(.blockers))]
    Blocked {
        /// Which item.
        id: TaskId,
        /// What it was to be.
        to: Status,
        /// The open ones of its blockers, in order.
        blockers: Vec<TaskId>,
    },
}

/// `1 → 2 → 1`.
struct Path<'a>(&'a [TaskId]);

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        join(f, self.0, " → ")
    }
}

/// `1, 2`.
struct List<'a>(&'a [TaskId]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        join(f, self.0, ", ")
    }
}

fn join(f: &mut fmt::Formatter<'_>, ids: &[TaskId], between: &str) -> fmt::Result {
    for (index, id) in ids.iter().enumerate() {
        if index > 0 {
            f.write_str(between)?;
        }
        write!(f, "{id}")?;
    }
    Ok(())
}
