//! Finding the way by which items would wait for each other.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{Edge, TaskId};

/// A shortest way from one item along the items that wait for it to another; both ends are part of it.
pub(super) fn path(edges: &BTreeSet<Edge>, from: TaskId, to: TaskId) -> Option<Vec<TaskId>> {
    let mut came_from = BTreeMap::new();
    let mut waiting = VecDeque::from([from]);
    while let Some(at) = waiting.pop_front() {
        if at == to {
            let mut way = vec![to];
            let mut step = to;
            while step != from {
                step = *came_from.get(&step)?;
                way.push(step);
            }
            way.reverse();
            return Some(way);
        }
        for next in after(edges, at) {
            if next != from && !came_from.contains_key(&next) {
                came_from.insert(next, at);
                waiting.push_back(next);
            }
        }
    }
    None
}

/// The items that wait for one, in order.
fn after(edges: &BTreeSet<Edge>, id: TaskId) -> impl Iterator<Item = TaskId> {
    let first = Edge { blocker: id, blocked: TaskId::FIRST };
    edges.range(first..).take_while(move |edge| edge.blocker == id).map(|edge| edge.blocked)
}
