//! One step of a delivery: the table of PROTOCOL §5.4.

use super::{DeadCause, Effect, Event, PublishAnswer, Receipt, State};
use crate::{
    code::{Code, Reaction},
    limits::SEAL_ATTEMPT_MAX,
    retry::{Backoff, RepublishSchedule},
};

/// The times of the outbox; the defaults are the protocol's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Between tries to reach the broker or the directory.
    pub transport: Backoff,
    /// Between tries when the recipient, or its lane, asks to wait.
    pub nack: Backoff,
    /// When to meet silence with another publish.
    pub republish: RepublishSchedule,
    /// How long an effect may take before it is asked for again.
    pub answer_wait_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            transport: Backoff::TRANSPORT,
            nack: Backoff::NACK,
            republish: RepublishSchedule::default(),
            answer_wait_ms: 30_000,
        }
    }
}

/// One message on its way to one recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivery {
    /// When it expires, in Unix milliseconds; fixed when it was queued.
    pub expires_ms: u64,
    /// Where it stands.
    pub state: State,
}

/// What comes of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The delivery to commit.
    pub delivery: Delivery,
    /// What to do then, in order.
    pub effects: Vec<Effect>,
}

impl Delivery {
    /// A delivery that was just queued.
    #[must_use]
    pub const fn new(now_ms: u64, expires_ms: u64) -> Self {
        Self { expires_ms, state: State::new(now_ms) }
    }

    /// Moves on by one event. `random` is any evenly drawn number; it spreads the back-off.
    #[must_use]
    pub fn step(self, event: Event, now_ms: u64, random: u64, config: &Config) -> Step {
        let clock = Clock { now_ms, random, config };
        let mut effects = Vec::new();
        let mut state = clock.apply(self.state, event, &mut effects);
        if state.name().is_open() && now_ms >= self.expires_ms {
            effects.clear();
            state = State::Expired;
        }
        if state.name().is_open() {
            state = clock.take_up(state, &mut effects);
            if let Some(next_at_ms) = state.next_at_ms() {
                effects.push(Effect::ScheduleAt { at_ms: next_at_ms.min(self.expires_ms) });
            }
        } else if state.name() != self.state.name() {
            effects.push(Effect::Report(state.name()));
        }
        Step { delivery: Self { expires_ms: self.expires_ms, state }, effects }
    }
}

/// Time, randomness and configuration of one step.
struct Clock<'a> {
    now_ms: u64,
    random: u64,
    config: &'a Config,
}

impl Clock<'_> {
    /// The state after an event; an event that does not fit the state changes nothing.
    fn apply(&self, state: State, event: Event, effects: &mut Vec<Effect>) -> State {
        if !state.name().is_open() {
            return self.closed(state, event);
        }
        match event {
            Event::Tick | Event::GivenBack => state,
            Event::Restarted => self.restarted(state),
            Event::Sealed { seal_attempt } => self.sealed(state, seal_attempt),
            Event::KeysMissing { seal_attempt } => self.keys_missing(state, seal_attempt),
            Event::PublishStarted => self.publish_started(state),
            Event::PublishAnswered { seal_attempt, answer } => {
                self.publish_answered(state, seal_attempt, answer, effects)
            }
            Event::Resolved { unchanged } => self.resolved(state, unchanged, effects),
            Event::Receipt { seal_attempt, receipt } => self.receipt(state, seal_attempt, receipt, effects),
            Event::RecipientGone => State::Dead { cause: DeadCause::AgentGone },
            Event::Cancel => State::Cancelled,
        }
    }

    /// Closed is closed, but for the recipient's word that it has the message: that is the truth, whatever was given up here.
    /// A message that was published may have been on its way when it was cancelled or expired.
    /// What is given back is sealed anew, for where the agent is now.
    fn closed(&self, state: State, event: Event) -> State {
        if let (State::Delivered { .. }, Event::GivenBack) = (state, event) {
            return State::new(self.now_ms);
        }
        let Event::Receipt { receipt, .. } = event else { return state };
        match (state, receipt) {
            (State::Expired | State::Dead { .. } | State::Cancelled, Receipt::Delivered) => {
                State::Delivered { at_ms: self.now_ms }
            }
            (State::Delivered { .. } | State::Expired | State::Dead { .. } | State::Cancelled, Receipt::Read) => {
                State::Read { at_ms: self.now_ms }
            }
            _ => state,
        }
    }

    /// Work that may have been under way is due at once. A sealed copy that waits because the recipient asked for it has begun
    /// no publish under its new id, and goes on waiting.
    fn restarted(&self, mut state: State) -> State {
        match &mut state {
            State::Queued { not_before_ms: at, .. } => *at = self.now_ms,
            State::Sealed { next_at_ms: at, publish_tries: 1.., .. } => *at = self.now_ms,
            State::Sealed { .. } | State::Stored { .. } => {}
            State::Delivered { .. } | State::Read { .. } | State::Expired | State::Dead { .. } | State::Cancelled => {}
        }
        state
    }

    fn sealed(&self, state: State, answered: u32) -> State {
        match state {
            State::Queued { seal_attempt, backoff_prev_ms, .. } if seal_attempt == answered => State::Sealed {
                seal_attempt,
                publish_tries: 0,
                republish_count: 0,
                next_at_ms: self.now_ms,
                backoff_prev_ms,
            },
            _ => state,
        }
    }

    fn keys_missing(&self, state: State, answered: u32) -> State {
        match state {
            State::Queued { seal_attempt, backoff_prev_ms, .. } if seal_attempt == answered => {
                self.queued_after(seal_attempt, self.config.transport.next(backoff_prev_ms, self.random))
            }
            _ => state,
        }
    }

    fn publish_started(&self, mut state: State) -> State {
        if let State::Sealed { publish_tries, next_at_ms, .. } = &mut state {
            *publish_tries = publish_tries.saturating_add(1);
            *next_at_ms = self.answer_due_ms();
        }
        state
    }

    fn publish_answered(&self, state: State, answered: u32, answer: PublishAnswer, effects: &mut Vec<Effect>) -> State {
        let State::Sealed { seal_attempt, publish_tries, republish_count, backoff_prev_ms, .. } = state else {
            return state;
        };
        if seal_attempt != answered {
            return state;
        }
        let is_final = matches!(answer, PublishAnswer::TooLarge | PublishAnswer::Denied);
        if publish_tries == 0 && !is_final {
            // It speaks of a publish under an earlier id.
            return state;
        }
        match answer {
            PublishAnswer::Stored { duplicate: true } if publish_tries <= 1 => {
                // Nobody but the broker has seen this id before its first use, unless somebody guessed or stole it.
                effects.extend([Effect::CountDuplicateSuspect, Effect::RenewNatsMsgId]);
                self.sealed_again(seal_attempt, republish_count, self.now_ms, backoff_prev_ms)
            }
            PublishAnswer::Stored { .. } => State::Stored {
                seal_attempt,
                republish_count,
                since_ms: self.now_ms,
                next_at_ms: self.now_ms.saturating_add(self.config.republish.wait_ms(republish_count)),
                backoff_prev_ms,
            },
            PublishAnswer::LaneFull => {
                self.queued_after(seal_attempt, self.config.nack.next(backoff_prev_ms, self.random))
            }
            PublishAnswer::TooLarge => State::Dead { cause: DeadCause::TooLarge },
            PublishAnswer::Denied => State::Dead { cause: DeadCause::PublishDenied },
            PublishAnswer::Failed => {
                let delay_ms = self.config.transport.next(backoff_prev_ms, self.random);
                let next_at_ms = self.now_ms.saturating_add(delay_ms);
                State::Sealed { seal_attempt, publish_tries, republish_count, next_at_ms, backoff_prev_ms: delay_ms }
            }
        }
    }

    /// Silence is met with the same bytes when the recipient's keys and route are the same, otherwise with a new seal. When
    /// no seal is left, the old bytes are still the best there is: the prekey they use lives for weeks.
    fn resolved(&self, state: State, unchanged: bool, effects: &mut Vec<Effect>) -> State {
        match state {
            State::Sealed { seal_attempt, .. } | State::Stored { seal_attempt, .. }
                if !unchanged && seal_attempt < SEAL_ATTEMPT_MAX =>
            {
                self.queued_after(seal_attempt + 1, 0)
            }
            State::Stored { seal_attempt, republish_count, backoff_prev_ms, .. } => {
                effects.push(Effect::RenewNatsMsgId);
                self.sealed_again(seal_attempt, republish_count.saturating_add(1), self.now_ms, backoff_prev_ms)
            }
            _ => state,
        }
    }

    fn receipt(&self, state: State, copy: u32, receipt: Receipt, effects: &mut Vec<Effect>) -> State {
        match receipt {
            Receipt::Delivered => State::Delivered { at_ms: self.now_ms },
            Receipt::Read => State::Read { at_ms: self.now_ms },
            Receipt::Failed { code, retry_after_s, has_fresh_prekey } => match current(state) {
                Some(now) if now.seal_attempt == copy => {
                    self.refused(state, now, Refusal { code, retry_after_s, has_fresh_prekey }, effects)
                }
                _ => state,
            },
        }
    }

    fn refused(&self, state: State, now: Current, refusal: Refusal, effects: &mut Vec<Effect>) -> State {
        let Refusal { code, retry_after_s, has_fresh_prekey } = refusal;
        let backoff_ms = self.config.nack.next(now.backoff_prev_ms, self.random);
        match code.reaction() {
            Reaction::Ignore | Reaction::Stream => state,
            Reaction::Dead => State::Dead { cause: DeadCause::Refused(code) },
            Reaction::Expire => State::Expired,
            Reaction::Reseal | Reaction::ResolveAndReseal if now.seal_attempt >= SEAL_ATTEMPT_MAX => {
                State::Dead { cause: DeadCause::SealsExhausted(code) }
            }
            // Without a fresh prekey the directory may still hand out the one that was just refused.
            Reaction::Reseal if !has_fresh_prekey => self.queued_after(now.seal_attempt + 1, backoff_ms),
            Reaction::Reseal | Reaction::ResolveAndReseal => self.queued_after(now.seal_attempt + 1, 0),
            Reaction::BackOff => {
                let asked_ms = u64::from(retry_after_s).saturating_mul(1000);
                let at_ms = self.now_ms.saturating_add(backoff_ms.max(asked_ms));
                match state {
                    State::Queued { seal_attempt, .. } => {
                        State::Queued { seal_attempt, not_before_ms: at_ms, backoff_prev_ms: backoff_ms }
                    }
                    _ => {
                        effects.push(Effect::RenewNatsMsgId);
                        self.sealed_again(now.seal_attempt, now.republish_count, at_ms, backoff_ms)
                    }
                }
            }
        }
    }

    /// Asks for the work that is due and moves the next time ahead, so that a lost answer is noticed.
    fn take_up(&self, mut state: State, effects: &mut Vec<Effect>) -> State {
        let (at, effect) = match &mut state {
            State::Queued { seal_attempt, not_before_ms, .. } => {
                let seal_attempt = *seal_attempt;
                (not_before_ms, Effect::Seal { seal_attempt })
            }
            State::Sealed { next_at_ms, .. } => (next_at_ms, Effect::Publish),
            State::Stored { next_at_ms, .. } => (next_at_ms, Effect::Resolve),
            State::Delivered { .. } | State::Read { .. } | State::Expired | State::Dead { .. } | State::Cancelled => {
                return state;
            }
        };
        if *at <= self.now_ms {
            *at = self.answer_due_ms();
            effects.push(effect);
        }
        state
    }

    fn answer_due_ms(&self) -> u64 {
        self.now_ms.saturating_add(self.config.answer_wait_ms.max(1))
    }

    fn queued_after(&self, seal_attempt: u32, delay_ms: u64) -> State {
        let not_before_ms = self.now_ms.saturating_add(delay_ms);
        State::Queued { seal_attempt, not_before_ms, backoff_prev_ms: delay_ms }
    }

    /// Sealed under a new `Nats-Msg-Id`, which has seen no publish yet.
    fn sealed_again(&self, seal_attempt: u32, republish_count: u32, next_at_ms: u64, backoff_prev_ms: u64) -> State {
        State::Sealed { seal_attempt, publish_tries: 0, republish_count, next_at_ms, backoff_prev_ms }
    }
}

/// What a recipient's refusal says.
#[derive(Clone, Copy)]
struct Refusal {
    code: Code,
    retry_after_s: u32,
    has_fresh_prekey: bool,
}

/// What every open state knows.
#[derive(Clone, Copy)]
struct Current {
    seal_attempt: u32,
    republish_count: u32,
    backoff_prev_ms: u64,
}

fn current(state: State) -> Option<Current> {
    match state {
        State::Queued { seal_attempt, backoff_prev_ms, .. } => {
            Some(Current { seal_attempt, republish_count: 0, backoff_prev_ms })
        }
        State::Sealed { seal_attempt, republish_count, backoff_prev_ms, .. }
        | State::Stored { seal_attempt, republish_count, backoff_prev_ms, .. } => {
            Some(Current { seal_attempt, republish_count, backoff_prev_ms })
        }
        State::Delivered { .. } | State::Read { .. } | State::Expired | State::Dead { .. } | State::Cancelled => None,
    }
}
