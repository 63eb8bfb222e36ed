//! The model: all agents, and what every operation is to answer.

use std::collections::HashMap;

use murmur_core::{phase::Phase, reason::Reason};

use super::{
    life::Life,
    op::{By, Op, PATHS, REGISTERED},
};

const DAY_MS: u64 = 24 * 3600 * 1000;
/// How long a node that is there may take to tell of an end.
const TOLD_WITHIN_MS: u64 = 5 * 60 * 1000;

/// What an operation answers, as far as both sides can tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Out {
    Done,
    Task(u32),
    Woken(Vec<u32>),
    Position(u32),
    Cleared(u32),
    /// Texts with whether they were handed out before; empty when nothing waits.
    Turn(Vec<(String, bool)>),
    Killed {
        slugs: Vec<String>,
        pending: u32,
    },
    Report {
        stale: bool,
        refused: bool,
        phase: Phase,
    },
    Waited {
        matched: bool,
        timed_out: bool,
    },
}

/// Who calls, for good: agents of one slug are different callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Who {
    Owner,
    Colleague,
    /// By the number of its life.
    Agent(usize),
}

struct Kept {
    request: Op,
    answer: Out,
    at_ms: u64,
}

/// See the module.
pub(super) struct Model {
    pub(super) now_ms: u64,
    /// In the order of their creation.
    pub(super) lives: Vec<Life>,
    kept: HashMap<(Who, &'static str, u8), Kept>,
}

pub(super) fn slug(place: usize) -> String {
    format!("/w/acme/u/jdoe/{}", PATHS[place])
}

/// Whether one place is another, or below it.
fn is_within(place: usize, top: usize) -> bool {
    place == top || PATHS[place].strip_prefix(PATHS[top]).is_some_and(|rest| rest.starts_with('/'))
}

impl Model {
    pub(super) fn new(now_ms: u64, first: Life) -> Self {
        Self { now_ms, lives: vec![first], kept: HashMap::new() }
    }

    /// The number of the life that a slug means.
    pub(super) fn newest(&self, place: usize) -> Option<usize> {
        self.lives.iter().rposition(|life| life.place == place)
    }

    /// Who that is; an agent that never was is its owner.
    pub(super) fn who(&self, by: By) -> Who {
        match by {
            By::Owner => Who::Owner,
            By::Colleague => Who::Colleague,
            By::Agent(place) => self.newest(place).map_or(Who::Owner, Who::Agent),
        }
    }

    /// What an operation is to answer; its effects have happened then. `text` is what it says.
    pub(super) fn apply(&mut self, op: &Op, text: &str) -> Result<Out, Reason> {
        match op {
            Op::Create { by, at, pattern, key } => self.once(*by, "CreateTask", *key, op, |model, who| {
                let life = model.writable(who, *at)?;
                Ok(Out::Task(life.create(text.to_owned(), *pattern)))
            }),
            Op::Update { by, at, task, edit, key } => {
                if *edit == super::op::Edit::default() {
                    // Refused before anybody looks who calls, unless nobody may call at all.
                    self.check_caller(self.who(*by))?;
                    return Err(Reason::FieldInvalid);
                }
                self.once(*by, "UpdateTask", *key, op, |model, who| {
                    model.writable(who, *at)?.update(*task, edit).map(|()| Out::Done)
                })
            }
            Op::Add { by, at, tasks, key } => self.once(*by, "AddFollowUp", *key, op, |model, who| {
                let now_ms = model.now_ms;
                let life = model.writable(who, *at)?;
                let position = life.add(text.to_owned(), now_ms);
                for number in 0..*tasks {
                    life.create(format!("{text} {number}"), None);
                }
                life.drain();
                Ok(Out::Position(position))
            }),
            Op::Clear { by, at } => {
                let who = self.who(*by);
                self.check_caller(who)?;
                let now_ms = self.now_ms;
                Ok(Out::Cleared(self.writable(who, *at)?.clear(now_ms)))
            }
            Op::FilesChanged { at, file } => {
                Ok(Out::Woken(self.of(*at).map_or_else(|_| Vec::new(), |life| life.files_changed(*file))))
            }
            Op::Claim { at, stale } => {
                let now_ms = self.now_ms;
                let life = self.run(*at, *stale)?;
                Ok(Out::Turn(life.claim(now_ms)))
            }
            Op::Complete { at, back, stale } => {
                let life = self.run(*at, *stale)?;
                let turn = life.turns.checked_sub(*back).filter(|turn| *turn > 0);
                life.complete(turn).map(|()| Out::Done)
            }
            Op::Spawn { by, at, tasks, dequeue, resurrect, force_new } => {
                let who = self.who(*by);
                self.check_caller(who)?;
                self.spawn(who, *at, (*resurrect, *force_new), Life::new(*at, false, *dequeue), *tasks)?;
                Ok(Out::Done)
            }
            Op::Report { at, phase, stale } => Ok(self.report(*at, *phase, *stale)),
            Op::Kill { by, at } => {
                let who = self.who(*by);
                self.check_caller(who)?;
                self.kill(who, *at)
            }
            Op::Wait { at, phases } => {
                let life = self.of(*at)?;
                let matched = life.fits(phases);
                Ok(Out::Waited { matched, timed_out: !matched && !life.is_ended() })
            }
            Op::Advance { ms } => {
                self.now_ms += ms;
                // The node is there and tells nothing.
                let now_ms = self.now_ms;
                for life in &mut self.lives {
                    if life.told_by_ms.is_some_and(|by_ms| by_ms <= now_ms) {
                        life.end(life.end_as.unwrap_or(Phase::Canceled));
                    }
                }
                Ok(Out::Done)
            }
        }
    }

    /// A write that its caller may repeat.
    fn once(
        &mut self,
        by: By,
        method: &'static str,
        key: Option<u8>,
        op: &Op,
        write: impl FnOnce(&mut Self, Who) -> Result<Out, Reason>,
    ) -> Result<Out, Reason> {
        let who = self.who(by);
        self.check_caller(who)?;
        let name = key.map(|key| (who, method, key));
        if let Some(kept) = name.and_then(|name| self.kept.get(&name)).filter(|kept| self.now_ms < kept.at_ms + DAY_MS)
        {
            // Who calls is no part of the request.
            return if request(&kept.request) == request(op) {
                Ok(kept.answer.clone())
            } else {
                Err(Reason::IdempotencyConflict)
            };
        }
        let answer = write(self, who)?;
        if let Some(name) = name {
            let kept = Kept { request: op.clone(), answer: answer.clone(), at_ms: self.now_ms };
            self.kept.insert(name, kept);
        }
        Ok(answer)
    }

    /// An agent that has ended calls no more.
    fn check_caller(&self, who: Who) -> Result<(), Reason> {
        match who {
            Who::Agent(life) if self.lives[life].is_ended() => Err(Reason::DelegationRefused),
            _ => Ok(()),
        }
    }

    fn of(&mut self, place: usize) -> Result<&mut Life, Reason> {
        let number = self.newest(place).ok_or(Reason::AgentNotFound)?;
        Ok(&mut self.lives[number])
    }

    fn writable(&mut self, who: Who, place: usize) -> Result<&mut Life, Reason> {
        let may = match who {
            Who::Owner => true,
            // A node speaks for its own account, and sees no other.
            Who::Colleague => return Err(Reason::AgentNotFound),
            Who::Agent(own) => is_within(place, self.lives[own].place),
        };
        let life = self.of(place)?;
        if !may {
            return Err(Reason::AgentNotYours);
        }
        life.fence()?;
        Ok(life)
    }

    /// An agent as its node names it.
    fn run(&mut self, place: usize, stale: bool) -> Result<&mut Life, Reason> {
        let life = self.of(place)?;
        if stale {
            return Err(Reason::IncarnationStale);
        }
        life.fence()?;
        Ok(life)
    }

    fn spawn(
        &mut self,
        who: Who,
        place: usize,
        (resurrect, force_new): (bool, bool),
        new: Life,
        tasks: u32,
    ) -> Result<(), Reason> {
        if let Who::Agent(own) = who {
            let own = &self.lives[own];
            if own.phase == Phase::Destroying {
                return Err(Reason::AgentDestroying);
            }
            if own.place == place || !is_within(place, own.place) {
                return Err(Reason::AgentNotYours);
            }
        }
        if resurrect && force_new {
            return Err(Reason::FieldInvalid);
        }
        let mut above = (0..PATHS.len()).filter(|top| is_within(place, *top)).filter_map(|top| self.newest(top));
        if above.any(|life| self.lives[life].phase == Phase::Destroying) {
            return Err(Reason::AgentDestroying);
        }
        let (dequeue, now_ms) = (new.dequeue, self.now_ms);
        match self.newest(place) {
            Some(number) if !self.lives[number].is_ended() => return Err(Reason::AgentLive),
            Some(number) if resurrect => {
                let life = &mut self.lives[number];
                life.start_again();
                life.dequeue = dequeue;
                life.add("work".to_owned(), now_ms);
            }
            None if resurrect => return Err(Reason::AgentNotFound),
            Some(_) if !force_new => return Err(Reason::AgentEnded),
            Some(_) | None => self.lives.push(new),
        }
        let life = self.of(place)?;
        for number in 0..tasks {
            life.create(format!("spawned {number}"), None);
        }
        Ok(())
    }

    fn report(&mut self, place: usize, to: Phase, stale: bool) -> Out {
        let Ok(life) = self.of(place) else {
            return Out::Report { stale: true, refused: false, phase: Phase::Starting };
        };
        if stale || life.is_ended() {
            return Out::Report { stale: true, refused: false, phase: life.phase };
        }
        let mut refused = false;
        life.due &= to != Phase::Running;
        if to.is_ended() {
            let ordered = life.end_as.filter(|_| life.phase == Phase::Destroying);
            life.end(ordered.unwrap_or(to));
        } else if to != life.phase {
            refused = to == Phase::Starting || life.phase.become_(to).is_err();
            if !refused {
                life.enter(to);
                // What was handed out and not taken goes with the process.
                if to == Phase::Sleeping && !life.queue.is_empty() && !life.interactive {
                    life.start_again();
                }
            }
        }
        Out::Report { stale: false, refused, phase: life.phase }
    }

    fn kill(&mut self, who: Who, place: usize) -> Result<Out, Reason> {
        if who == Who::Colleague {
            return Err(Reason::AgentNotFound);
        }
        let top = self.of(place)?;
        let is_ended = top.is_ended();
        if let Who::Agent(own) = who
            && !is_within(place, self.lives[own].place)
        {
            return Err(Reason::AgentNotYours);
        }
        let mut below: Vec<usize> = (0..PATHS.len()).filter(|below| is_within(*below, place)).collect();
        below.sort_by_key(|place| (std::cmp::Reverse(PATHS[*place].split('/').count()), PATHS[*place]));
        let (mut slugs, mut pending, told_by_ms) = (Vec::new(), 0, self.now_ms + TOLD_WITHIN_MS);
        for place in below.into_iter().filter(|_| !is_ended) {
            let Some(number) = self.newest(place).filter(|number| !self.lives[*number].is_ended()) else { continue };
            let life = &mut self.lives[number];
            if life.phase == Phase::Destroying {
                pending += 1;
                continue;
            }
            slugs.push(slug(place));
            if life.interactive || life.phase == Phase::Sleeping {
                life.end(Phase::Canceled);
            } else {
                life.enter(Phase::Destroying);
                life.end_as = Some(Phase::Canceled);
                life.told_by_ms = Some(told_by_ms);
                pending += 1;
            }
        }
        Ok(Out::Killed { slugs, pending })
    }
}

impl Life {
    fn start_again(&mut self) {
        self.incarnation += 1;
        self.enter(Phase::Starting);
    }

    /// Work has come.
    fn drain(&mut self) {
        if self.phase == Phase::Sleeping {
            self.start_again();
        }
    }
}

/// What is asked, without who asks.
fn request(op: &Op) -> Op {
    let mut op = op.clone();
    if let Op::Create { by, .. } | Op::Update { by, .. } | Op::Add { by, .. } = &mut op {
        *by = By::Owner;
    }
    op
}

/// What the generator knows nothing of: the registered one is not spawned, and a colleague has no part in the lives of others.
pub(super) fn fitting(op: Op) -> Op {
    let own = |by: By| if by == By::Colleague { By::Owner } else { by };
    match op {
        Op::Spawn { by, at, tasks, dequeue, resurrect, force_new } => {
            Op::Spawn { by: own(by), at: at % REGISTERED, tasks, dequeue, resurrect, force_new }
        }
        other => other,
    }
}
