//! The outbox machine: single rows of the table, then every history against the invariants.

use proptest::prelude::*;

use super::*;
use crate::code::Code;

const EXPIRES_MS: u64 = 86_400_000;

/// Steps through events, one per millisecond from 1 on, and gives the final delivery and the last step's effects.
fn run(events: &[Event]) -> (Delivery, Vec<Effect>) {
    run_from(Delivery::new(0, EXPIRES_MS), events)
}

fn run_from(delivery: Delivery, events: &[Event]) -> (Delivery, Vec<Effect>) {
    let mut step = Step { delivery, effects: vec![] };
    for (event, now_ms) in events.iter().zip(1..) {
        step = step.delivery.step(*event, now_ms, 0, &Config::default());
    }
    (step.delivery, step.effects)
}

fn sealed(seal_attempt: u32) -> Event {
    Event::Sealed { seal_attempt }
}

fn answered(answer: PublishAnswer) -> Event {
    Event::PublishAnswered { seal_attempt: 0, answer }
}

fn stored() -> Event {
    answered(PublishAnswer::Stored { duplicate: false })
}

fn receipt(receipt: Receipt) -> Event {
    Event::Receipt { seal_attempt: 0, receipt }
}

fn failed(seal_attempt: u32, code: Code, has_fresh_prekey: bool) -> Event {
    Event::Receipt { seal_attempt, receipt: Receipt::Failed { code, retry_after_s: 60, has_fresh_prekey } }
}

/// Checks the state's name and effects after some events.
#[track_caller]
fn check(events: &[Event], name: StateName, effects: &[Effect]) {
    let (delivery, actual) = run(events);
    assert_eq!((delivery.state.name(), actual.as_slice()), (name, effects));
}

fn at(at_ms: u64) -> Effect {
    Effect::ScheduleAt { at_ms }
}

#[test]
fn a_message_goes_all_the_way() {
    use Event::{PublishStarted, Tick};
    use StateName::{Delivered, Queued, Read, Sealed, Stored};
    let way = [Tick, sealed(0), PublishStarted, stored(), receipt(Receipt::Delivered), receipt(Receipt::Read)];
    check(&way[..1], Queued, &[Effect::Seal { seal_attempt: 0 }, at(30_001)]);
    check(&way[..2], Sealed, &[Effect::Publish, at(30_002)]);
    check(&way[..3], Sealed, &[at(30_003)]);
    check(&way[..4], Stored, &[at(600_004)]);
    check(&way[..5], Delivered, &[Effect::Report(Delivered)]);
    check(&way, Read, &[Effect::Report(Read)]);
}

#[test]
fn a_foreign_use_of_our_id_is_met_with_a_new_one() {
    let duplicate = answered(PublishAnswer::Stored { duplicate: true });
    let again = [Effect::CountDuplicateSuspect, Effect::RenewNatsMsgId, Effect::Publish, at(30_003)];
    check(&[sealed(0), Event::PublishStarted, duplicate], StateName::Sealed, &again);
    let second_try = [sealed(0), Event::PublishStarted, Event::PublishStarted, duplicate];
    check(&second_try, StateName::Stored, &[at(600_004)]);
}

#[test]
fn the_broker_may_refuse() {
    let publish = |answer| [sealed(0), Event::PublishStarted, answered(answer)];
    check(&publish(PublishAnswer::LaneFull), StateName::Queued, &[at(5_003)]);
    check(&publish(PublishAnswer::Failed), StateName::Sealed, &[at(253)]);
    check(&publish(PublishAnswer::TooLarge), StateName::Dead, &[Effect::Report(StateName::Dead)]);
    check(&publish(PublishAnswer::Denied), StateName::Dead, &[Effect::Report(StateName::Dead)]);
}

#[test]
fn silence_is_met_with_the_same_bytes_or_a_new_seal() {
    let way = [sealed(0), Event::PublishStarted, stored()];
    let (delivery, _) = run(&way);
    let due = delivery.step(Event::Tick, 600_003, 0, &Config::default());
    assert_eq!(due.effects, [Effect::Resolve, at(630_003)]);
    let answer = |unchanged| run_from(due.delivery, &[Event::Resolved { unchanged }]);
    assert_eq!(answer(true).1, [Effect::RenewNatsMsgId, Effect::Publish, at(30_001)]);
    assert_eq!(answer(false).1, [Effect::Seal { seal_attempt: 1 }, at(30_001)]);
}

#[test]
fn a_lost_key_is_answered_with_three_more_seals() {
    let mut events = vec![sealed(0)];
    for attempt in 0..3 {
        events.extend([failed(attempt, Code::KeyUnknown, true), sealed(attempt + 1)]);
    }
    assert!(matches!(run(&events).0.state, State::Sealed { seal_attempt: 3, .. }));
    events.push(failed(3, Code::KeyUnknown, true));
    assert_eq!(run(&events).0.state, State::Dead { cause: DeadCause::SealsExhausted(Code::KeyUnknown) });
}

#[test]
fn a_key_lost_without_a_fresh_one_waits() {
    check(&[sealed(0), failed(0, Code::KeyUnknown, false)], StateName::Queued, &[at(5_002)]);
}

#[test]
fn a_stale_refusal_burns_no_attempt() {
    let once = [sealed(0), failed(0, Code::AgentMoved, false), sealed(1)];
    let (before, _) = run(&once);
    assert_eq!(run_from(before, &[failed(0, Code::AgentMoved, false)]).0, before);
}

#[test]
fn a_busy_recipient_is_asked_again_when_it_likes() {
    let busy = [sealed(0), Event::PublishStarted, stored(), failed(0, Code::RateLimited, false)];
    check(&busy, StateName::Sealed, &[Effect::RenewNatsMsgId, at(60_004)]);
}

#[test]
fn a_late_receipt_of_an_earlier_copy_counts() {
    let events = [sealed(0), failed(0, Code::KeyUnknown, true), sealed(1), receipt(Receipt::Delivered)];
    check(&events, StateName::Delivered, &[Effect::Report(StateName::Delivered)]);
}

#[test]
fn a_late_answer_of_the_broker_for_an_earlier_copy_does_not_count() {
    let events = [sealed(0), Event::PublishStarted, failed(0, Code::KeyUnknown, true), sealed(1), stored()];
    assert_eq!(run(&events).0.state.name(), StateName::Sealed);
}

#[test]
fn after_a_crash_a_begun_publish_is_repeated_at_once() {
    let events = [sealed(0), Event::PublishStarted, Event::Restarted];
    check(&events, StateName::Sealed, &[Effect::Publish, at(30_003)]);
}

#[test]
fn a_message_may_be_taken_back_until_it_is_delivered() {
    let stored = [sealed(0), Event::PublishStarted, stored(), Event::Cancel];
    for way in [&[Event::Cancel][..], &[sealed(0), Event::Cancel], &stored] {
        check(way, StateName::Cancelled, &[Effect::Report(StateName::Cancelled)]);
    }
    check(&[sealed(0), receipt(Receipt::Delivered), Event::Cancel], StateName::Delivered, &[]);
}

#[test]
fn what_was_given_up_and_arrived_all_the_same_is_delivered() {
    let (gone, _) = run(&[Event::RecipientGone]);
    assert_eq!(gone.state, State::Dead { cause: DeadCause::AgentGone });
    check(&[Event::Cancel, receipt(Receipt::Delivered)], StateName::Delivered, &[Effect::Report(StateName::Delivered)]);
    check(&[Event::RecipientGone, receipt(Receipt::Read)], StateName::Read, &[Effect::Report(StateName::Read)]);
    check(&[Event::Cancel, failed(0, Code::KeyUnknown, true)], StateName::Cancelled, &[]);
}

#[test]
fn what_is_given_back_unread_is_sealed_anew_while_its_time_lasts() {
    let (delivered, _) = run(&[sealed(0), Event::PublishStarted, receipt(Receipt::Delivered)]);
    assert_eq!(run_from(delivered, &[Event::GivenBack]).1, [Effect::Seal { seal_attempt: 0 }, at(30_001)]);
    let late = delivered.step(Event::GivenBack, EXPIRES_MS, 0, &Config::default());
    assert_eq!((late.delivery.state, late.effects), (State::Expired, vec![Effect::Report(StateName::Expired)]));
    check(&[Event::GivenBack], StateName::Queued, &[Effect::Seal { seal_attempt: 0 }, at(30_001)]);
    check(&[receipt(Receipt::Read), Event::GivenBack], StateName::Read, &[]);
}

#[test]
fn names_read_back() {
    for name in StateName::ALL {
        assert_eq!(name.as_str().parse(), Ok(name));
    }
    assert!("queued".parse::<StateName>().is_err());
}

fn event() -> impl Strategy<Value = Event> {
    let answer = prop_oneof![
        any::<bool>().prop_map(|duplicate| PublishAnswer::Stored { duplicate }),
        Just(PublishAnswer::LaneFull),
        Just(PublishAnswer::TooLarge),
        Just(PublishAnswer::Denied),
        Just(PublishAnswer::Failed),
    ];
    let failed = (0..Code::ALL.len(), any::<u32>(), any::<bool>()).prop_map(|(code, retry_after_s, fresh)| {
        Receipt::Failed { code: Code::ALL[code], retry_after_s, has_fresh_prekey: fresh }
    });
    let receipt = prop_oneof![1 => Just(Receipt::Delivered), 1 => Just(Receipt::Read), 6 => failed];
    let attempt = 0..=4_u32;
    prop_oneof![
        4 => Just(Event::Tick),
        1 => Just(Event::Restarted),
        6 => attempt.clone().prop_map(|seal_attempt| Event::Sealed { seal_attempt }),
        2 => attempt.clone().prop_map(|seal_attempt| Event::KeysMissing { seal_attempt }),
        4 => Just(Event::PublishStarted),
        6 => (attempt.clone(), answer)
            .prop_map(|(seal_attempt, answer)| Event::PublishAnswered { seal_attempt, answer }),
        3 => any::<bool>().prop_map(|unchanged| Event::Resolved { unchanged }),
        4 => (attempt, receipt).prop_map(|(seal_attempt, receipt)| Event::Receipt { seal_attempt, receipt }),
        1 => Just(Event::GivenBack),
        1 => Just(Event::RecipientGone),
        1 => Just(Event::Cancel),
    ]
}

/// Every rule that holds for every single step.
pub(super) fn check_step(before: Delivery, event: Event, now_ms: u64, step: &Step) -> Result<(), TestCaseError> {
    let (old, new) = (before.state.name(), step.delivery.state.name());
    let scheduled: Vec<_> = step.effects.iter().filter(|effect| matches!(effect, Effect::ScheduleAt { .. })).collect();
    let reported: Vec<_> = step.effects.iter().filter(|effect| matches!(effect, Effect::Report(_))).collect();
    if new.is_open() {
        prop_assert!(now_ms < before.expires_ms, "an open delivery outlived its expiry");
        let next_at_ms = step.delivery.state.next_at_ms().unwrap_or(0);
        prop_assert!(next_at_ms > now_ms, "the next time is not ahead");
        prop_assert_eq!(scheduled, [&at(next_at_ms.min(before.expires_ms))]);
        prop_assert!(reported.is_empty());
    } else {
        prop_assert!(scheduled.is_empty(), "a closed delivery scheduled something");
        prop_assert_eq!(reported.len(), usize::from(old != new), "each end is reported once");
    }
    if !old.is_open() {
        let gave_up = matches!(old, StateName::Expired | StateName::Dead | StateName::Cancelled);
        let told_late = match (event, new) {
            (Event::Receipt { receipt: Receipt::Read, .. }, StateName::Read) => old != StateName::Read,
            (Event::Receipt { receipt: Receipt::Delivered, .. }, StateName::Delivered) => gave_up,
            (Event::GivenBack, StateName::Queued | StateName::Expired) => old == StateName::Delivered,
            _ => false,
        };
        prop_assert!(told_late || (step.delivery == before && step.effects.is_empty()), "a closed delivery moved");
    }
    let says_delivered = matches!(event, Event::Receipt { receipt: Receipt::Delivered | Receipt::Read, .. });
    if matches!(new, StateName::Delivered | StateName::Read) && old != new {
        prop_assert!(says_delivered, "delivered without a receipt");
    }
    if says_delivered {
        prop_assert!(matches!(new, StateName::Delivered | StateName::Read), "a receipt was lost");
    }
    if let State::Queued { seal_attempt, .. } | State::Sealed { seal_attempt, .. } = step.delivery.state {
        prop_assert!(seal_attempt <= crate::limits::SEAL_ATTEMPT_MAX);
    }
    Ok(())
}

proptest! {
    #[test]
    fn every_history_keeps_the_rules(
        events in proptest::collection::vec((event(), 0..700_000_u64, any::<u64>()), 1..120),
        expires_ms in 1..EXPIRES_MS,
    ) {
        let mut delivery = Delivery::new(0, expires_ms);
        let mut now_ms = 0;
        for (event, passed_ms, random) in events {
            now_ms += passed_ms;
            let step = delivery.step(event, now_ms, random, &Config::default());
            check_step(delivery, event, now_ms, &step)?;
            let row = Row::from(step.delivery.state);
            prop_assert_eq!(State::try_from(row), Ok(step.delivery.state));
            delivery = step.delivery;
        }
        let end = delivery.step(Event::Tick, now_ms.max(expires_ms), 0, &Config::default());
        prop_assert!(!end.delivery.state.name().is_open(), "it never ended");
    }

    #[test]
    fn with_a_lossy_broker_and_an_honest_recipient_it_arrives(losses in proptest::collection::vec(any::<bool>(), 40)) {
        let mut delivery = Delivery::new(0, u64::MAX);
        let mut now_ms = 0;
        let mut queue = vec![Event::Tick];
        let mut losses = losses.into_iter();
        while let Some(event) = queue.pop() {
            let Step { delivery: next, effects } = delivery.step(event, now_ms, 7, &Config::default());
            delivery = next;
            for effect in effects {
                let lost = losses.next().unwrap_or(false);
                match effect {
                    Effect::Seal { seal_attempt } if !lost => queue = vec![Event::Sealed { seal_attempt }],
                    Effect::Publish if !lost => queue = vec![receipt(Receipt::Delivered), stored(), Event::PublishStarted],
                    Effect::Publish => queue = vec![stored(), Event::PublishStarted],
                    Effect::Resolve if !lost => queue = vec![Event::Resolved { unchanged: true }],
                    Effect::ScheduleAt { at_ms } if queue.is_empty() => {
                        now_ms = at_ms;
                        queue = vec![Event::Tick];
                    }
                    _ => {}
                }
            }
        }
        prop_assert_eq!(delivery.state.name(), StateName::Delivered);
    }
}
