//! One agent as the model has it: its phase, its checklist, its queue. Written from the documents and as plainly as possible.

use std::collections::{BTreeMap, BTreeSet};

use murmur_core::{checklist::Status, phase::Phase, queue::DequeueStrategy, reason::Reason};

use super::op::Edit;

const LEASE_MS: u64 = 5 * 60 * 1000;

#[derive(Debug, Clone)]
pub(super) struct Life {
    pub(super) place: usize,
    pub(super) interactive: bool,
    pub(super) phase: Phase,
    pub(super) rev: u64,
    pub(super) incarnation: u32,
    pub(super) dequeue: DequeueStrategy,
    /// As what it ends once its node says that it did.
    pub(super) end_as: Option<Phase>,
    /// When its node is not waited for any longer.
    pub(super) told_by_ms: Option<u64>,
    pub(super) items: BTreeMap<u32, Item>,
    /// The first waits for the second.
    pub(super) waits: BTreeSet<(u32, u32)>,
    pub(super) queue: Vec<Entry>,
    /// How many turns it ever had; the last of them holds entries while it is open.
    pub(super) turns: u32,
    pub(super) open: Option<Open>,
    /// The last turn was completed, in this incarnation.
    pub(super) completed: Option<u32>,
    /// It was given a turn and has not said since that it runs.
    pub(super) due: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) subject: String,
    pub(super) status: Status,
    pub(super) pattern: Option<usize>,
    pub(super) rev: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) text: String,
    pub(super) seen: bool,
    /// The turn that it was handed out with last.
    pub(super) turn: Option<u32>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Open {
    pub(super) incarnation: u32,
    pub(super) expire_ms: u64,
}

impl Life {
    pub(super) fn new(place: usize, interactive: bool, dequeue: DequeueStrategy) -> Self {
        Self {
            place,
            interactive,
            phase: if interactive { Phase::Idle } else { Phase::Starting },
            rev: 1,
            incarnation: 1,
            dequeue,
            end_as: None,
            told_by_ms: None,
            items: BTreeMap::new(),
            waits: BTreeSet::new(),
            queue: Vec::new(),
            turns: 0,
            open: None,
            completed: None,
            due: false,
        }
    }

    pub(super) fn is_ended(&self) -> bool {
        self.phase.is_ended()
    }

    pub(super) fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.rev += 1;
        self.due &= phase != Phase::Starting;
        if phase.is_ended() {
            (self.end_as, self.told_by_ms) = (None, None);
        }
    }

    /// Whether a wait for `wanted` is over.
    pub(super) fn fits(&self, wanted: &[Phase]) -> bool {
        let is_busy = !self.interactive && (self.due || !self.queue.is_empty());
        let says_done = match self.phase {
            Phase::TaskComplete | Phase::Idle => true,
            Phase::Sleeping => wanted.is_empty(),
            _ => false,
        };
        let fits = if wanted.is_empty() { self.phase.needs_attention() } else { wanted.contains(&self.phase) };
        fits && !(is_busy && says_done)
    }

    /// Ends, through DESTROYING where there is no other way.
    pub(super) fn end(&mut self, phase: Phase) {
        if self.phase != Phase::Destroying && self.phase.become_(phase).is_err() {
            self.enter(Phase::Destroying);
        }
        self.enter(phase);
    }

    /// Why nothing may be written.
    pub(super) fn fence(&self) -> Result<(), Reason> {
        match self.phase {
            Phase::Destroying => Err(Reason::AgentDestroying),
            phase if phase.is_ended() => Err(Reason::AgentEnded),
            _ => Ok(()),
        }
    }

    // === the checklist

    pub(super) fn create(&mut self, subject: String, pattern: Option<usize>) -> u32 {
        let number = u32::try_from(self.items.len()).unwrap() + 1;
        self.items.insert(number, Item { subject, status: Status::Pending, pattern, rev: 1 });
        number
    }

    fn is_open(&self, number: u32) -> bool {
        let item = &self.items[&number];
        item.pattern.is_none() && matches!(item.status, Status::Pending | Status::InProgress)
    }

    pub(super) fn update(&mut self, number: u32, edit: &Edit) -> Result<(), Reason> {
        let item = self.items.get(&number).ok_or(Reason::TaskNotFound)?.clone();
        if item.status == Status::Deleted {
            return Err(Reason::TaskState);
        }
        let lists = [
            (&edit.add_blocks, true),
            (&edit.add_blocked_by, true),
            (&edit.remove_blocks, false),
            (&edit.remove_blocked_by, false),
        ];
        for (list, adds) in lists {
            for other in list {
                if *other == number {
                    return Err(Reason::FieldInvalid);
                }
                let other = self.items.get(other).ok_or(Reason::TaskNotFound)?;
                if adds && other.status == Status::Deleted {
                    return Err(Reason::TaskState);
                }
            }
        }
        if edit.add_blocks.iter().any(|other| edit.remove_blocks.contains(other))
            || edit.add_blocked_by.iter().any(|other| edit.remove_blocked_by.contains(other))
        {
            return Err(Reason::FieldInvalid);
        }
        let mut waits = self.waits.clone();
        waits.retain(|edge| {
            !edit.remove_blocks.iter().any(|other| *edge == (*other, number))
                && !edit.remove_blocked_by.iter().any(|other| *edge == (number, *other))
        });
        waits.extend(edit.add_blocks.iter().map(|other| (*other, number)));
        waits.extend(edit.add_blocked_by.iter().map(|other| (number, *other)));
        if has_cycle(&waits) {
            return Err(Reason::TaskCycle);
        }
        let next = edit.status.filter(|next| *next != item.status);
        if let Some(next) = next {
            self.check_step(number, &item, next, &waits)?;
            if next == Status::Deleted {
                waits.retain(|(waiting, first)| *waiting != number && *first != number);
            }
        }
        let subject = edit.subject.clone().unwrap_or_else(|| item.subject.clone());
        if waits == self.waits && next.is_none() && subject == item.subject {
            return Err(Reason::FieldInvalid);
        }
        let mut touched = BTreeSet::from([number]);
        for (waiting, first) in waits.symmetric_difference(&self.waits) {
            touched.extend([*waiting, *first]);
        }
        for other in touched {
            if let Some(item) = self.items.get_mut(&other) {
                item.rev += 1;
            }
        }
        self.waits = waits;
        if let Some(item) = self.items.get_mut(&number) {
            item.subject = subject;
            item.status = next.unwrap_or(item.status);
        }
        Ok(())
    }

    fn check_step(&self, number: u32, item: &Item, next: Status, waits: &BTreeSet<(u32, u32)>) -> Result<(), Reason> {
        let known = match (item.status, next) {
            (Status::Deleted, _) | (Status::Completed, Status::InProgress) => false,
            (_, _) => true,
        };
        let begins = matches!(next, Status::InProgress | Status::Completed);
        if !known || begins && item.pattern.is_some() {
            return Err(Reason::TaskState);
        }
        let held_up = waits.iter().any(|(waiting, first)| *waiting == number && self.is_open(*first));
        if begins && held_up { Err(Reason::TaskBlocked) } else { Ok(()) }
    }

    /// Wakes what fits, by a table and not by globs.
    pub(super) fn files_changed(&mut self, file: usize) -> Vec<u32> {
        const FITS: [[bool; 3]; 3] = [[true, true, false], [true, false, false], [false, false, true]];
        let mut woken = Vec::new();
        for (number, item) in &mut self.items {
            if item.status != Status::Deleted && item.pattern.is_some_and(|pattern| FITS[pattern][file]) {
                item.pattern = None;
                item.rev += 1;
                woken.push(*number);
            }
        }
        woken
    }

    // === the queue

    /// Whether the last turn still holds its entries.
    fn holds(&self, now_ms: u64) -> bool {
        self.open.is_some_and(|open| open.incarnation == self.incarnation && now_ms < open.expire_ms)
    }

    fn is_held(&self, entry: &Entry, now_ms: u64) -> bool {
        self.holds(now_ms) && entry.turn == Some(self.turns)
    }

    /// What waits, with whether it was handed out before.
    pub(super) fn waiting(&self, now_ms: u64) -> Vec<(String, bool)> {
        let waiting = self.queue.iter().filter(|entry| !self.is_held(entry, now_ms));
        waiting.map(|entry| (entry.text.clone(), entry.seen || entry.turn.is_some())).collect()
    }

    pub(super) fn add(&mut self, text: String, now_ms: u64) -> u32 {
        let position = self.waiting(now_ms).len();
        self.queue.push(Entry { text, seen: false, turn: None });
        u32::try_from(position).unwrap()
    }

    pub(super) fn clear(&mut self, now_ms: u64) -> u32 {
        let before = self.queue.len();
        let kept = self.queue.iter().filter(|entry| self.is_held(entry, now_ms)).cloned().collect();
        self.queue = kept;
        u32::try_from(before - self.queue.len()).unwrap()
    }

    pub(super) fn claim(&mut self, now_ms: u64) -> Vec<(String, bool)> {
        if self.holds(now_ms) {
            let turns = self.turns;
            self.queue.iter_mut().filter(|entry| entry.turn == Some(turns)).for_each(|entry| entry.seen = true);
        } else {
            let most = match self.dequeue {
                DequeueStrategy::Auto | DequeueStrategy::Five => 5,
                DequeueStrategy::All => usize::MAX,
                DequeueStrategy::One => 1,
            };
            if self.queue.is_empty() {
                return Vec::new();
            }
            for entry in &mut self.queue {
                entry.seen |= entry.turn.take().is_some();
            }
            self.turns += 1;
            let turns = self.turns;
            self.queue.iter_mut().take(most).for_each(|entry| entry.turn = Some(turns));
        }
        self.due = true;
        self.open = Some(Open { incarnation: self.incarnation, expire_ms: now_ms + LEASE_MS });
        self.completed = None;
        let held = self.queue.iter().filter(|entry| entry.turn == Some(self.turns));
        held.map(|entry| (entry.text.clone(), entry.seen)).collect()
    }

    /// `turn` counts from 1.
    pub(super) fn complete(&mut self, turn: Option<u32>) -> Result<(), Reason> {
        let turn = turn.filter(|turn| *turn == self.turns).ok_or(Reason::TurnNotFound)?;
        if self.completed == Some(self.incarnation) {
            return Ok(());
        }
        let open = self.open.filter(|open| open.incarnation == self.incarnation).ok_or(Reason::TurnNotFound)?;
        self.queue.retain(|entry| entry.turn != Some(turn));
        self.open = None;
        self.completed = Some(open.incarnation);
        Ok(())
    }
}

/// Whether anything waits for itself.
fn has_cycle(waits: &BTreeSet<(u32, u32)>) -> bool {
    let mut left = waits.clone();
    loop {
        // Whatever waits for nothing that is left is out of the way.
        let stuck: BTreeSet<u32> = left.iter().map(|(waiting, _)| *waiting).collect();
        let before = left.len();
        left.retain(|(_, first)| stuck.contains(first));
        if left.len() == before {
            return !left.is_empty();
        }
    }
}
