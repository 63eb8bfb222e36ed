//! The machine in a model of the world: a broker that loses, repeats, reorders and refuses, a recipient that refuses and changes
//! its keys, a sender that crashes, a clock that jumps. A tape of numbers decides what goes wrong; when it has run out the world
//! is honest. A zero on the tape means that all is well, so that a failing tape shrinks to the few faults that matter.

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;

use super::{tests::check_step, *};
use crate::{
    code::{Code, Reaction},
    limits::SEAL_ATTEMPT_MAX,
};

const HOUR_MS: u64 = 3_600_000;
/// Longer than the longest wait of the republish schedule.
const REPUBLISHED_MS: u64 = 25 * HOUR_MS;
/// Publishes that an honest world may need: what is due, what is repeated after silence, and what its lost answer repeats.
const HONEST_PUBLISHES_MAX: u32 = 4;
/// Far more events than any tape causes.
const EVENTS_MAX: u32 = 5_000;

/// One sealed copy on the sender's disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Copy {
    seal_attempt: u32,
    /// Which of the recipient's keys it is sealed to.
    key: u32,
    /// Tells apart copies of one attempt: a copy that the lane refused is sealed anew.
    number: u32,
}

/// What the sender's node has committed.
struct Disk {
    row: Row,
    copies: Vec<Copy>,
    nats_msg_id: u64,
    reports: Vec<StateName>,
}

/// Something on its way.
#[derive(Debug, Clone, Copy)]
enum Arrival {
    /// An answer to the running process; one that crashed meanwhile never hears it.
    Answer { process: u32, event: Event },
    /// A copy, at the recipient.
    Frame(Copy),
    /// A signed receipt, at the sender.
    Receipt { seal_attempt: u32, receipt: Receipt },
}

/// What was really said to the sender, and how often it did something.
#[derive(Default)]
struct Told {
    codes: Vec<Code>,
    answers: Vec<PublishAnswer>,
    gone: bool,
    cancelled: bool,
    publishes: u32,
}

struct World {
    tape: std::vec::IntoIter<u16>,
    config: Config,
    now_ms: u64,
    /// How far the sender's clock is ahead; it may be behind by as much as it starts with.
    ahead_ms: u64,
    clock_max_ms: u64,
    expires_ms: u64,
    delivery: Delivery,
    timer_ms: Option<u64>,
    process: u32,
    disk: Disk,
    ids: u64,
    /// Broker: the copy stored under each message id.
    stored: HashMap<u64, Option<Copy>>,
    on_the_way: BTreeMap<(u64, u32), Arrival>,
    arrivals: u32,
    /// Recipient.
    key: u32,
    has_it: bool,
    told: Told,
}

impl World {
    fn new(tape: Vec<u16>, ttl_ms: u64) -> Self {
        let ahead_ms = 24 * HOUR_MS;
        let expires_ms = ahead_ms + ttl_ms;
        let delivery = Delivery::new(ahead_ms, expires_ms);
        let row = Row::from(delivery.state);
        Self {
            tape: tape.into_iter(),
            config: Config::default(),
            now_ms: 0,
            ahead_ms,
            clock_max_ms: ahead_ms,
            expires_ms,
            delivery,
            timer_ms: None,
            process: 0,
            disk: Disk { row, copies: vec![], nats_msg_id: 0, reports: vec![] },
            ids: 0,
            stored: HashMap::new(),
            on_the_way: BTreeMap::new(),
            arrivals: 0,
            key: 0,
            has_it: false,
            told: Told::default(),
        }
    }

    const fn clock_ms(&self) -> u64 {
        self.now_ms + self.ahead_ms
    }

    fn draw(&mut self) -> u64 {
        self.tape.next().map_or(0, u64::from)
    }

    /// One of `n` things; the first is that all is well, and the worst come last. Every other number means harm.
    fn pick(&mut self, n: u64) -> u64 {
        match self.draw() {
            0 => 0,
            draw if draw.is_multiple_of(2) => draw / 2 % n,
            draw => n - 1 - draw / 2 % (n / 3 + 1),
        }
    }

    fn is_honest(&self) -> bool {
        self.tape.as_slice().is_empty()
    }

    fn later(&mut self, delay_ms: u64, arrival: Arrival) {
        self.arrivals += 1;
        self.on_the_way.insert((self.now_ms + delay_ms, self.arrivals), arrival);
    }

    /// Soon, after whatever comes soon too, or hours later.
    fn delay_ms(&mut self) -> u64 {
        let draw = self.draw();
        [1, 50, 700, 40_000, HOUR_MS][usize::try_from(draw % 5).unwrap()]
    }

    fn answer(&mut self, event: Event) {
        let (delay_ms, process) = (self.delay_ms(), self.process);
        self.later(delay_ms, Arrival::Answer { process, event });
    }

    // === the sender's node ===

    /// Steps, commits, and does what is asked; it may die before the commit, after it, and between two effects.
    fn step(&mut self, event: Event) {
        let (clock_ms, random) = (self.clock_ms(), self.draw().wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let before = self.delivery;
        let step = before.step(event, clock_ms, random, &self.config);
        check_step(before, event, clock_ms, &step).unwrap();
        if self.pick(40) == 39 {
            return self.crash();
        }
        self.commit(before.state, &step);
        for effect in step.effects {
            if self.pick(60) == 59 {
                return self.crash();
            }
            self.act(effect);
        }
    }

    fn commit(&mut self, before: State, step: &Step) {
        self.delivery = step.delivery;
        self.disk.row = Row::from(step.delivery.state);
        if let (State::Queued { .. }, State::Sealed { seal_attempt, .. }) = (before, step.delivery.state) {
            let number = u32::try_from(self.disk.copies.len()).unwrap();
            // A directory that lags hands out the key before.
            let key = self.key - u32::from(self.pick(4) == 3 && self.key > 0);
            self.disk.copies.push(Copy { seal_attempt, key, number });
            self.disk.nats_msg_id = self.new_id();
        }
        for effect in &step.effects {
            match effect {
                Effect::RenewNatsMsgId => self.disk.nats_msg_id = self.new_id(),
                Effect::Report(state) => self.disk.reports.push(*state),
                _ => {}
            }
        }
    }

    fn new_id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    fn crash(&mut self) {
        self.process += 1;
        self.timer_ms = None;
        let state = State::try_from(self.disk.row.clone()).unwrap();
        self.delivery = Delivery { expires_ms: self.expires_ms, state };
        self.step(Event::Restarted);
    }

    fn act(&mut self, effect: Effect) {
        match effect {
            Effect::Seal { seal_attempt } => match self.pick(6) {
                3 => {}
                4 | 5 => self.answer(Event::KeysMissing { seal_attempt }),
                _ => self.answer(Event::Sealed { seal_attempt }),
            },
            Effect::Publish => self.publish(),
            Effect::Resolve => match self.pick(6) {
                4 => {}
                5 => self.answer(Event::Resolved { unchanged: false }),
                _ => self.answer(Event::Resolved { unchanged: true }),
            },
            Effect::ScheduleAt { at_ms } => self.timer_ms = Some(at_ms),
            Effect::RenewNatsMsgId | Effect::Report(_) | Effect::CountDuplicateSuspect => {}
        }
    }

    fn publish(&mut self) {
        if self.pick(8) == 7 {
            return; // not the head of its lane
        }
        let process = self.process;
        self.step(Event::PublishStarted);
        if process != self.process || self.pick(30) == 29 {
            return;
        }
        let State::Sealed { seal_attempt, publish_tries, .. } = self.delivery.state else { return };
        let committed = State::try_from(self.disk.row.clone()).unwrap();
        assert_eq!(committed, self.delivery.state, "it publishes what is not committed");
        assert!(publish_tries >= 1, "a publish was not counted before it began");
        let copy = *self.disk.copies.last().expect("it publishes what was never sealed");
        assert_eq!(copy.seal_attempt, seal_attempt, "it publishes another copy than the state names");
        self.told.publishes += 1;
        self.broker(copy, seal_attempt);
    }

    // === the broker ===

    fn broker(&mut self, copy: Copy, seal_attempt: u32) {
        let id = self.disk.nats_msg_id;
        let refusal = match self.pick(24) {
            // The request is lost; the answer is; somebody used the id before; a real refusal.
            16 => return,
            17 => {
                self.store(id, copy);
                return;
            }
            18 => {
                self.store(id, copy);
                Some(PublishAnswer::Failed)
            }
            19 => {
                self.stored.entry(id).or_insert(None);
                None
            }
            20 => Some(PublishAnswer::Failed),
            21 => Some(PublishAnswer::LaneFull),
            22 if self.pick(8) == 7 => Some(PublishAnswer::TooLarge),
            23 if self.pick(8) == 7 => Some(PublishAnswer::Denied),
            _ => None,
        };
        let answer = refusal.unwrap_or_else(|| PublishAnswer::Stored { duplicate: !self.store(id, copy) });
        self.told.answers.push(answer);
        self.answer(Event::PublishAnswered { seal_attempt, answer });
    }

    /// Whether the id was new. It names one copy: nothing else may ever come under it.
    fn store(&mut self, id: u64, copy: Copy) -> bool {
        if let Some(earlier) = self.stored.get(&id) {
            assert!(earlier.is_none_or(|earlier| earlier == copy), "two copies share a message id");
            return false;
        }
        self.stored.insert(id, Some(copy));
        let times = match self.pick(8) {
            6 => 0, // the broker's disk was lost
            7 => 2,
            _ => 1,
        };
        for _ in 0..times {
            let delay_ms = self.delay_ms();
            self.later(delay_ms, Arrival::Frame(copy));
        }
        true
    }

    // === the recipient ===

    fn receive(&mut self, copy: Copy) {
        // An honest recipient keeps the keys that living copies are sealed to.
        let key_is_gone = copy.key < self.key && !self.is_honest();
        if self.has_it {
            self.receipt(copy, Receipt::Delivered);
        } else if key_is_gone {
            self.refuse(copy, Code::KeyUnknown);
        } else {
            match self.pick(16) {
                10 => {} // it dies, again and again, and puts it away
                11 => self.refuse(copy, Code::RateLimited),
                12 => self.refuse(copy, Code::StorageFull),
                13 => self.refuse(copy, Code::AgentMoved),
                14 => {
                    let code = Code::ALL[usize::try_from(self.pick(34)).unwrap()];
                    self.refuse(copy, code);
                }
                15 => {
                    self.key += 1;
                    self.refuse(copy, Code::KeyUnknown);
                }
                _ => {
                    self.has_it = true;
                    self.receipt(copy, Receipt::Delivered);
                    if self.pick(2) == 1 {
                        self.receipt(copy, Receipt::Read);
                    }
                }
            }
        }
    }

    fn refuse(&mut self, copy: Copy, code: Code) {
        self.told.codes.push(code);
        let has_fresh_prekey = self.pick(4) != 3;
        let retry_after_s = u32::try_from(self.pick(3600)).unwrap();
        self.receipt(copy, Receipt::Failed { code, retry_after_s, has_fresh_prekey });
    }

    fn receipt(&mut self, copy: Copy, receipt: Receipt) {
        let times = match self.pick(8) {
            6 => 0,
            7 => 2,
            _ => 1,
        };
        for _ in 0..times {
            let delay_ms = self.delay_ms();
            self.later(delay_ms, Arrival::Receipt { seal_attempt: copy.seal_attempt, receipt });
        }
    }

    // === time ===

    /// Goes on to whatever comes next; `false` when nothing does.
    fn go_on(&mut self) -> bool {
        match self.pick(50) {
            44 if self.pick(10) == 9 => {
                self.told.gone = true;
                return self.interrupt(|world| world.step(Event::RecipientGone));
            }
            45 => return self.interrupt(Self::crash),
            46 => self.ahead_ms = self.ahead_ms.saturating_sub(self.draw() * 60),
            47 => self.ahead_ms += self.draw() * 60,
            48 if self.pick(10) == 9 => {
                self.told.cancelled = true;
                return self.interrupt(|world| world.step(Event::Cancel));
            }
            49 => return self.interrupt(|world| world.step(Event::Tick)),
            _ => {}
        }
        let timer_ms = self.timer_ms.map(|at_ms| at_ms.saturating_sub(self.ahead_ms).max(self.now_ms));
        let arrival_ms = self.on_the_way.first_key_value().map(|((at_ms, _), _)| *at_ms);
        match (timer_ms, arrival_ms) {
            (None, None) => return false,
            (Some(timer_ms), arrival_ms) if arrival_ms.is_none_or(|at_ms| timer_ms <= at_ms) => {
                self.pass_to(timer_ms);
                self.timer_ms = None;
                self.step(Event::Tick);
            }
            _ => {
                let Some(((at_ms, _), arrival)) = self.on_the_way.pop_first() else { return false };
                self.pass_to(at_ms);
                self.arrive(arrival);
            }
        }
        true
    }

    fn interrupt(&mut self, what: impl FnOnce(&mut Self)) -> bool {
        what(self);
        true
    }

    fn pass_to(&mut self, at_ms: u64) {
        self.now_ms = self.now_ms.max(at_ms);
        self.clock_max_ms = self.clock_max_ms.max(self.clock_ms());
    }

    fn arrive(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::Answer { process, event } if process == self.process => self.step(event),
            Arrival::Answer { .. } => {}
            Arrival::Frame(copy) => self.receive(copy),
            Arrival::Receipt { seal_attempt, receipt } => self.step(Event::Receipt { seal_attempt, receipt }),
        }
        let open = self.delivery.state.name().is_open();
        assert!(!open || self.timer_ms.is_some(), "an open delivery waits for nothing");
    }

    /// Bad news that is still on its way gets lost.
    fn turn_honest(&mut self) {
        self.on_the_way.retain(|_, arrival| match arrival {
            Arrival::Frame(_) => true,
            Arrival::Receipt { receipt, .. } => !matches!(receipt, Receipt::Failed { .. }),
            Arrival::Answer { event, .. } => !matches!(
                event,
                Event::PublishAnswered { answer, .. } if !matches!(answer, PublishAnswer::Stored { .. })
            ),
        });
    }

    // === what must be true at the end ===

    /// It ended in exactly one way, once, and for a reason that is true.
    fn check_end(&self) {
        let (state, reports, told) = (self.delivery.state, &self.disk.reports, &self.told);
        // Given up, and arrived all the same; never the other way, and nothing twice.
        let rank = |name: &StateName| match name {
            StateName::Delivered => 1,
            StateName::Read => 2,
            _ => 0,
        };
        let rises = reports.is_sorted_by(|before, after| rank(before) < rank(after));
        assert!(rises && reports.last() == Some(&state.name()), "told {reports:?}, ended as {state:?}");
        match state {
            State::Delivered { .. } | State::Read { .. } => assert!(self.has_it, "delivered to nobody"),
            State::Dead { cause } => assert!(is_founded(cause, told), "dead without a reason: {cause:?}"),
            State::Expired => {
                let said = told.codes.iter().any(|code| code.reaction() == Reaction::Expire);
                assert!(said || self.clock_max_ms >= self.expires_ms, "expired before its time");
            }
            State::Cancelled => assert!(told.cancelled, "nobody took it back"),
            State::Queued { .. } | State::Sealed { .. } | State::Stored { .. } => panic!("it never ended: {state:?}"),
        }
        let highest = self.disk.copies.iter().map(|copy| copy.seal_attempt).max();
        assert!(highest.is_none_or(|attempt| attempt <= SEAL_ATTEMPT_MAX), "sealed too often");
    }
}

/// Whether somebody in the world said what the sender gives as its reason.
fn is_founded(cause: DeadCause, told: &Told) -> bool {
    match cause {
        DeadCause::Refused(code) => code.reaction() == Reaction::Dead && told.codes.contains(&code),
        DeadCause::SealsExhausted(code) => {
            let reseals = |code: &&Code| matches!(code.reaction(), Reaction::Reseal | Reaction::ResolveAndReseal);
            told.codes.contains(&code) && told.codes.iter().filter(reseals).count() >= 1
        }
        DeadCause::TooLarge => told.answers.contains(&PublishAnswer::TooLarge),
        DeadCause::PublishDenied => told.answers.contains(&PublishAnswer::Denied),
        DeadCause::AgentGone => told.gone,
    }
}

/// Runs a world to its end.
fn run(tape: Vec<u16>, ttl_ms: u64) -> World {
    let mut world = World::new(tape, ttl_ms);
    world.step(Event::Tick);
    let mut turned: Option<(bool, u64, u32)> = None;
    for _ in 0..EVENTS_MAX {
        if world.is_honest() && turned.is_none() {
            world.turn_honest();
            let due_ms = world.delivery.state.next_at_ms().unwrap_or(0).max(world.clock_ms());
            let has_time = due_ms.saturating_add(REPUBLISHED_MS) < world.expires_ms;
            turned = Some((world.delivery.state.name().is_open() && has_time, due_ms, world.told.publishes));
        }
        if !world.go_on() {
            break;
        }
    }
    world.check_end();
    if let Some((true, _, publishes)) = turned {
        let state = world.delivery.state;
        let arrived = matches!(state, State::Delivered { .. } | State::Read { .. });
        assert!(arrived, "an honest world did not deliver: {state:?}");
        assert!(world.told.publishes - publishes <= HONEST_PUBLISHES_MAX, "an honest world was flooded");
    }
    world
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, max_shrink_time: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn in_any_world_a_message_ends_in_one_true_way(
        // Mostly quiet, so that deep states are reached.
        tape in proptest::collection::vec(prop_oneof![2 => Just(0), 1 => any::<u16>()], 0..400),
        ttl_hours in 1..=168_u64,
    ) {
        run(tape, ttl_hours * HOUR_MS);
    }
}

#[test]
fn in_an_honest_world_one_publish_delivers() {
    let world = run(vec![], HOUR_MS);
    assert_eq!((world.delivery.state.name(), world.told.publishes), (StateName::Delivered, 1));
}

/// What the worlds above reach, so that they cannot quietly come to test nothing.
#[test]
fn the_worlds_reach_every_end() {
    let mut ends: BTreeMap<&str, u32> = BTreeMap::new();
    let mut random = 1_u64;
    for _ in 0..3000 {
        let tape = (0..300).map(|_| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            if (random >> 60).is_multiple_of(3) { u16::try_from((random >> 33) & 0xffff).unwrap() } else { 0 }
        });
        let world = run(tape.collect(), 48 * HOUR_MS);
        let end = match world.delivery.state {
            State::Dead { cause } => cause.as_str(),
            state => state.name().as_str(),
        };
        *ends.entry(end).or_default() += 1;
    }
    for end in [
        "DELIVERED",
        "READ",
        "EXPIRED",
        "CANCELLED",
        "REFUSED",
        "SEALS_EXHAUSTED",
        "TOO_LARGE",
        "PUBLISH_DENIED",
        "AGENT_GONE",
    ] {
        assert!(ends.contains_key(end), "no world ended as {end}: {ends:?}");
    }
}
