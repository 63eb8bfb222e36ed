//! What callers do, chosen at random. Everything is named by small numbers that fit whatever there is.

use murmur_core::{checklist::Status, phase::Phase, queue::DequeueStrategy};
use proptest::prelude::*;

/// Where agents may be, below the account `jdoe`. The last one registers itself, the others are spawned.
pub(super) const PATHS: [&str; 6] = ["a", "a/b", "a/b/c", "a/d", "e", "me"];
/// The place of the one that registers itself.
pub(super) const REGISTERED: usize = PATHS.len() - 1;
/// Files that change.
pub(super) const FILES: [&str; 3] = ["src/a.rs", "src/deep/b.rs", "docs/c.md"];
/// What dormant items wait for.
pub(super) const PATTERNS: [&str; 3] = ["src/**", "src/*.rs", "**/*.md"];

/// Who calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum By {
    /// The owner of the account.
    Owner,
    /// Somebody of another account.
    Colleague,
    /// The agent at a place.
    Agent(usize),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Op {
    Create {
        by: By,
        at: usize,
        pattern: Option<usize>,
        key: Option<u8>,
    },
    Update {
        by: By,
        at: usize,
        task: u32,
        edit: Edit,
        key: Option<u8>,
    },
    FilesChanged {
        at: usize,
        file: usize,
    },
    Add {
        by: By,
        at: usize,
        tasks: u32,
        key: Option<u8>,
    },
    Clear {
        by: By,
        at: usize,
    },
    /// By the node; `stale` speaks for an earlier start.
    Claim {
        at: usize,
        stale: bool,
    },
    /// Of the turn that was claimed `back` turns ago.
    Complete {
        at: usize,
        back: u32,
        stale: bool,
    },
    Spawn {
        by: By,
        at: usize,
        tasks: u32,
        dequeue: DequeueStrategy,
        resurrect: bool,
        force_new: bool,
    },
    Report {
        at: usize,
        phase: Phase,
        stale: bool,
    },
    Kill {
        by: By,
        at: usize,
    },
    Wait {
        at: usize,
        phases: Vec<Phase>,
    },
    Advance {
        ms: u64,
    },
}

/// An update of an item.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Edit {
    pub(super) status: Option<Status>,
    pub(super) subject: Option<String>,
    pub(super) add_blocks: Vec<u32>,
    pub(super) add_blocked_by: Vec<u32>,
    pub(super) remove_blocks: Vec<u32>,
    pub(super) remove_blocked_by: Vec<u32>,
}

fn by() -> impl Strategy<Value = By> {
    prop_oneof![8 => Just(By::Owner), 1 => Just(By::Colleague), 4 => place().prop_map(By::Agent)]
}

fn place() -> impl Strategy<Value = usize> {
    // Most of it at one place, so that much happens there.
    prop_oneof![4 => Just(0), 3 => 0..PATHS.len()]
}

fn key() -> impl Strategy<Value = Option<u8>> {
    proptest::option::weighted(0.2, 0..2_u8)
}

fn edit() -> impl Strategy<Value = Edit> {
    let ids = || proptest::option::weighted(0.25, 1..6_u32).prop_map(|id| id.into_iter().collect::<Vec<_>>());
    let status = proptest::option::weighted(0.7, proptest::sample::select(Status::ALL.to_vec()));
    let subject = proptest::option::weighted(0.2, "[xy]");
    (status, subject, ids(), ids(), ids(), ids()).prop_map(
        |(status, subject, add_blocks, add_blocked_by, remove_blocks, remove_blocked_by)| Edit {
            status,
            subject,
            add_blocks,
            add_blocked_by,
            remove_blocks,
            remove_blocked_by,
        },
    )
}

fn phase() -> impl Strategy<Value = Phase> {
    let likely = vec![Phase::Running, Phase::TaskComplete, Phase::Idle, Phase::Sleeping];
    prop_oneof![6 => proptest::sample::select(likely), 1 => proptest::sample::select(Phase::ALL.to_vec())]
}

pub(super) fn op() -> impl Strategy<Value = Op> {
    let strategies = proptest::sample::select(DequeueStrategy::ALL.to_vec());
    let seldom = || proptest::bool::weighted(0.1);
    prop_oneof![
        12 => (by(), place(), proptest::option::weighted(0.2, 0..PATTERNS.len()), key())
            .prop_map(|(by, at, pattern, key)| Op::Create { by, at, pattern, key }),
        16 => (by(), place(), 1..6_u32, edit(), key())
            .prop_map(|(by, at, task, edit, key)| Op::Update { by, at, task, edit, key }),
        2 => (place(), 0..FILES.len()).prop_map(|(at, file)| Op::FilesChanged { at, file }),
        12 => (by(), place(), 0..3_u32, key()).prop_map(|(by, at, tasks, key)| Op::Add { by, at, tasks, key }),
        2 => (by(), place()).prop_map(|(by, at)| Op::Clear { by, at }),
        10 => (place(), seldom()).prop_map(|(at, stale)| Op::Claim { at, stale }),
        8 => (place(), prop_oneof![6 => Just(0), 1 => Just(1), 1 => Just(99)], seldom())
            .prop_map(|(at, back, stale)| Op::Complete { at, back, stale }),
        12 => (by(), place(), 0..3_u32, strategies, any::<bool>(), seldom()).prop_map(
            |(by, at, tasks, dequeue, resurrect, force_new)| Op::Spawn { by, at, tasks, dequeue, resurrect, force_new }
        ),
        14 => (place(), phase(), seldom()).prop_map(|(at, phase, stale)| Op::Report { at, phase, stale }),
        1 => (by(), place()).prop_map(|(by, at)| Op::Kill { by, at }),
        3 => (place(), proptest::collection::vec(phase(), 0..2)).prop_map(|(at, phases)| Op::Wait { at, phases }),
        4 => prop_oneof![4 => Just(1_000), 4 => Just(5 * 60 * 1000), 1 => Just(24 * 3600 * 1000)]
            .prop_map(|ms| Op::Advance { ms }),
    ]
}
