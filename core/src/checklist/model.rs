//! The checklist against a slow oracle, over random changes, and the refusals by name.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::{Change, Checklist, Edge, Outcome, Refused, State, Status, TaskId};
use crate::limits::{TASK_EDGES_MAX, TASKS_MAX};

fn id(number: u32) -> TaskId {
    TaskId::new(number).unwrap()
}

fn ids(numbers: &[u32]) -> Vec<TaskId> {
    numbers.iter().copied().map(id).collect()
}

fn list(count: u32) -> Checklist {
    Checklist::new((1..=count).map(|number| (id(number), State::PENDING)), [])
}

fn to(status: Status) -> Change {
    Change { status: Some(status), ..Change::default() }
}

fn blocked_by(numbers: &[u32]) -> Change {
    Change { add_blocked_by: ids(numbers), ..Change::default() }
}

#[test]
fn a_blocked_item_is_neither_started_nor_completed_and_the_blockers_are_named() {
    let mut list = list(3);
    list.update(id(3), &blocked_by(&[1, 2])).unwrap();
    for status in [Status::InProgress, Status::Completed] {
        let refused = list.update(id(3), &to(status)).unwrap_err();
        assert_eq!(refused, Refused::Blocked { id: id(3), to: status, blockers: ids(&[1, 2]) });
        assert_eq!(refused.to_string(), format!("item 3 cannot become {status}: it waits for 1, 2"));
    }
    list.update(id(1), &to(Status::Completed)).unwrap();
    assert_eq!(list.open_blockers(id(3)), ids(&[2]));
    // Deleting counts as done, and takes the edges along.
    let outcome = list.update(id(2), &to(Status::Deleted)).unwrap();
    assert_eq!(outcome.removed, [Edge { blocker: id(2), blocked: id(3) }]);
    assert_eq!(outcome.ends(), BTreeSet::from([id(2), id(3)]));
    list.update(id(3), &to(Status::Completed)).unwrap();
}

#[test]
fn a_cycle_is_refused_with_its_path() {
    let mut list = list(4);
    list.update(id(2), &blocked_by(&[1])).unwrap();
    list.update(id(3), &blocked_by(&[2])).unwrap();
    let refused = list.update(id(1), &blocked_by(&[4, 3])).unwrap_err();
    assert_eq!(refused, Refused::Cycle(ids(&[3, 1, 2, 3])));
    assert_eq!(refused.to_string(), "the items would wait for each other: 3 → 1 → 2 → 3");
    // Both ways in one change are a cycle of two.
    let both = Change { add_blocks: ids(&[4]), add_blocked_by: ids(&[4]), ..Change::default() };
    assert!(matches!(list.update(id(1), &both), Err(Refused::Cycle(path)) if path.len() == 3));
}

#[test]
fn a_cycle_that_the_same_change_opens_is_none() {
    let mut list = list(2);
    list.update(id(2), &blocked_by(&[1])).unwrap();
    let turn = Change { add_blocked_by: ids(&[2]), remove_blocks: ids(&[2]), ..Change::default() };
    let outcome = list.update(id(1), &turn).unwrap();
    assert_eq!((outcome.added.len(), outcome.removed.len()), (1, 1));
}

#[test]
fn names_that_cannot_be_are_refused() {
    let mut list = list(3);
    list.update(id(3), &to(Status::Deleted)).unwrap();
    assert_eq!(list.update(id(9), &to(Status::Pending)), Err(Refused::NotFound(id(9))));
    assert_eq!(list.update(id(1), &blocked_by(&[9])), Err(Refused::NotFound(id(9))));
    assert_eq!(list.update(id(1), &blocked_by(&[3])), Err(Refused::Deleted(id(3))));
    assert_eq!(list.update(id(3), &to(Status::Pending)), Err(Refused::Deleted(id(3))));
    let own = list.update(id(1), &blocked_by(&[1]));
    assert_eq!(own, Err(Refused::SelfEdge { field: "add_blocked_by", id: id(1) }));
    let both = Change { add_blocks: ids(&[2]), remove_blocks: ids(&[2]), ..Change::default() };
    let refused = list.update(id(1), &both);
    assert_eq!(refused, Err(Refused::Contradiction { field: "remove_blocks", other: id(2) }));
}

#[test]
fn an_update_applies_wholly_or_not_at_all() {
    let mut list = list(3);
    let before = list.clone();
    let change = Change {
        status: Some(Status::InProgress),
        add_blocks: ids(&[2]),
        add_blocked_by: ids(&[3]),
        ..Change::default()
    };
    assert!(matches!(list.update(id(1), &change), Err(Refused::Blocked { .. })));
    assert_eq!(list, before);
}

#[test]
fn a_dormant_item_holds_nobody_up_and_is_not_begun() {
    let mut list = list(2);
    list.insert(id(1), State { dormant: true, ..State::PENDING });
    list.update(id(2), &blocked_by(&[1])).unwrap();
    list.update(id(2), &to(Status::InProgress)).unwrap();
    for status in [Status::InProgress, Status::Completed] {
        assert_eq!(list.update(id(1), &to(status)), Err(Refused::Dormant(id(1))));
    }
    // Once it wakes, it counts.
    list.insert(id(1), State::PENDING);
    assert!(matches!(list.update(id(2), &to(Status::Completed)), Err(Refused::Blocked { .. })));
}

#[test]
fn the_caps_hold() {
    let most = u32::try_from(TASK_EDGES_MAX).unwrap();
    let mut list = list(most + 3);
    let all: Vec<u32> = (2..=most + 1).collect();
    list.update(id(1), &blocked_by(&all)).unwrap();
    let refused = list.update(id(1), &Change { add_blocks: ids(&[most + 2]), ..Change::default() });
    assert_eq!(refused, Err(Refused::TooManyEdges { id: id(1), edges: TASK_EDGES_MAX + 1 }));
    // The other end counts, too.
    assert!(matches!(list.update(id(most + 2), &blocked_by(&[1])), Err(Refused::TooManyEdges { .. })));
    assert_eq!(Checklist::check_room(TASKS_MAX - 1, 1), Ok(()));
    assert_eq!(Checklist::check_room(TASKS_MAX, 1), Err(Refused::Full { has: TASKS_MAX, wanted: 1 }));
}

const ITEMS: u32 = 7;

fn some_ids() -> impl Strategy<Value = Vec<TaskId>> {
    // One number more than there are items.
    proptest::collection::vec((1..=ITEMS + 1).prop_map(id), 0..3)
}

fn change() -> impl Strategy<Value = Change> {
    let status = proptest::option::weighted(0.6, proptest::sample::select(Status::ALL.to_vec()));
    (status, some_ids(), some_ids(), some_ids(), some_ids()).prop_map(
        |(status, add_blocks, add_blocked_by, remove_blocks, remove_blocked_by)| Change {
            status,
            add_blocks,
            add_blocked_by,
            remove_blocks,
            remove_blocked_by,
        },
    )
}

/// Whether anything waits for itself, by closing the relation.
fn has_cycle(edges: &BTreeSet<Edge>) -> bool {
    let mut reach: BTreeSet<(TaskId, TaskId)> = edges.iter().map(|edge| (edge.blocker, edge.blocked)).collect();
    loop {
        let longer: BTreeSet<_> = reach
            .iter()
            .flat_map(|(a, b)| reach.iter().filter(move |(c, _)| b == c).map(move |(_, d)| (*a, *d)))
            .collect();
        let before = reach.len();
        reach.extend(longer);
        if reach.len() == before {
            return reach.iter().any(|(a, b)| a == b);
        }
    }
}

/// Whether the rules, read one by one, allow a change.
fn is_allowed(list: &Checklist, item: TaskId, change: &Change) -> bool {
    let Some(state) = list.get(item).filter(|state| state.status != Status::Deleted) else { return false };
    let is_there = |other: &TaskId| list.get(*other).is_some_and(|state| state.status != Status::Deleted);
    let adds = || change.add_blocks.iter().chain(&change.add_blocked_by);
    let removes = || change.remove_blocks.iter().chain(&change.remove_blocked_by);
    let named = adds().all(is_there) && removes().all(|other| list.get(*other).is_some());
    let own = adds().chain(removes()).any(|other| *other == item);
    let contradicted = change.add_blocks.iter().any(|other| change.remove_blocks.contains(other))
        || change.add_blocked_by.iter().any(|other| change.remove_blocked_by.contains(other));
    if !named || own || contradicted {
        return false;
    }
    let mut edges: BTreeSet<Edge> = list.edges().collect();
    for other in &change.remove_blocks {
        edges.remove(&Edge { blocker: item, blocked: *other });
    }
    for other in &change.remove_blocked_by {
        edges.remove(&Edge { blocker: *other, blocked: item });
    }
    edges.extend(change.add_blocks.iter().map(|other| Edge { blocker: item, blocked: *other }));
    edges.extend(change.add_blocked_by.iter().map(|other| Edge { blocker: *other, blocked: item }));
    if has_cycle(&edges) {
        return false;
    }
    let Some(next) = change.status.filter(|next| *next != state.status) else { return true };
    let free = edges.iter().filter(|edge| edge.blocked == item).all(|edge| {
        let blocker = list.get(edge.blocker).unwrap();
        blocker.dormant || blocker.status.is_done()
    });
    let begins = matches!(next, Status::InProgress | Status::Completed);
    state.status.may_become(next) && (!begins || free && !state.dormant)
}

/// The checklist with what an outcome says, which must be what the update made of it.
fn with(before: &Checklist, item: TaskId, outcome: &Outcome) -> Checklist {
    let mut edges: BTreeSet<Edge> = before.edges().collect();
    for edge in &outcome.removed {
        assert!(edges.remove(edge));
    }
    for edge in &outcome.added {
        assert!(edges.insert(*edge));
    }
    let mut list = Checklist::new(before.items(), edges);
    if let Some(status) = outcome.status {
        list.insert(item, State { status, ..before.get(item).unwrap() });
    }
    list
}

proptest! {
    #[test]
    fn random_changes_keep_the_rules(
        dormant in proptest::collection::vec(proptest::bool::weighted(0.2), ITEMS as usize),
        changes in proptest::collection::vec(((1..=ITEMS + 1).prop_map(id), change()), 1..60),
    ) {
        let items = (1..).map(id).zip(dormant).map(|(id, dormant)| (id, State { dormant, ..State::PENDING }));
        let mut list = Checklist::new(items, []);
        for (item, change) in changes {
            let before = list.clone();
            let allowed = is_allowed(&before, item, &change);
            match list.update(item, &change) {
                Ok(outcome) => {
                    prop_assert!(allowed, "{change:?} on {item}");
                    prop_assert_eq!(&with(&before, item, &outcome), &list);
                    prop_assert_eq!(outcome.is_empty(), before == list);
                }
                Err(refused) => {
                    prop_assert!(!allowed, "{change:?} on {item}: {refused}");
                    prop_assert_eq!(&before, &list);
                    if let Refused::Cycle(path) = refused {
                        prop_assert!(path.len() > 2 && path.first() == path.last());
                        let asked = change.added(item);
                        for step in path.windows(2) {
                            let edge = Edge { blocker: step[0], blocked: step[1] };
                            prop_assert!(asked.contains(&edge) || before.edges().any(|there| there == edge));
                        }
                    }
                }
            }
            prop_assert!(!has_cycle(&list.edges().collect()));
            for edge in list.edges() {
                for end in [edge.blocker, edge.blocked] {
                    prop_assert!(list.get(end).unwrap().status != Status::Deleted);
                }
            }
        }
    }
}
