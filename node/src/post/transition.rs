//! One step of a delivery, in a transaction: the machine decides, the rows follow.

use std::sync::atomic::{AtomicU64, Ordering};

use murmur_core::{
    id::{AgentId, MessageId},
    outbox::{Config, DeadCause, Effect, Event, PublishAnswer, Receipt, State, StateName},
};

use super::random;
use crate::store::{StoreError, Tx, copy, dead_letter, delivery, delivery::DeliveryRow};

/// Why a message waits that the broker has no room for: its recipient's lane, or the whole stream, is full.
pub(super) const BROKER_FULL: &str = "BROKER_FULL";

/// Names a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) msg_id: MessageId,
    pub(super) recipient: AgentId,
}

/// What came of a step, for whoever acts on it after the commit.
#[derive(Debug, Clone)]
pub(super) struct Stepped {
    pub(super) row: DeliveryRow,
    pub(super) effects: Vec<Effect>,
    /// Goes up with each step in the order of the transactions, in which steps need not be heard of.
    pub(super) number: u64,
}

impl Stepped {
    /// To be made in the transaction of the step.
    pub(super) fn new(row: DeliveryRow, effects: Vec<Effect>) -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self { row, effects, number: LAST.fetch_add(1, Ordering::Relaxed) + 1 }
    }

    pub(super) const fn key(&self) -> Key {
        Key { msg_id: self.row.msg_id, recipient: self.row.recipient }
    }

    /// The state it came to with this step, if it ended.
    pub(super) fn ended(&self) -> Option<StateName> {
        self.effects.iter().find_map(|effect| match effect {
            Effect::Report(state) => Some(*state),
            _ => None,
        })
    }
}

/// Loads a delivery, steps it and saves it; `None` when there is no such delivery.
pub(super) fn step(
    tx: Tx<'_>,
    key: Key,
    event: Event,
    now_ms: u64,
    config: &Config,
) -> Result<Option<Stepped>, StoreError> {
    let Some(mut row) = delivery::get(tx, key.msg_id, key.recipient)? else { return Ok(None) };
    let effects = step_row(tx, &mut row, event, now_ms, config)?;
    Ok(Some(Stepped::new(row, effects)))
}

/// Steps a loaded delivery and saves it.
pub(super) fn step_row(
    tx: Tx<'_>,
    row: &mut DeliveryRow,
    event: Event,
    now_ms: u64,
    config: &Config,
) -> Result<Vec<Effect>, StoreError> {
    let before = row.delivery;
    let effects = advance(tx, row, event, now_ms, config)?;
    if row.delivery != before || !effects.is_empty() {
        delivery::update(tx, row)?;
    }
    Ok(effects)
}

/// Steps a delivery that its caller saves: everything beside its own row is stored.
pub(super) fn advance(
    tx: Tx<'_>,
    row: &mut DeliveryRow,
    event: Event,
    now_ms: u64,
    config: &Config,
) -> Result<Vec<Effect>, StoreError> {
    let step = row.delivery.step(event, now_ms, random::number(), config);
    if step.delivery == row.delivery && step.effects.is_empty() {
        return Ok(step.effects);
    }
    let before = row.delivery.state.name();
    row.delivery = step.delivery;
    note(row, event, now_ms);
    for effect in &step.effects {
        match effect {
            Effect::RenewNatsMsgId => renew_nats_msg_id(tx, row)?,
            Effect::Report(state) => close(tx, row, before, *state, now_ms)?,
            _ => {}
        }
    }
    Ok(step.effects)
}

/// Keeps of an event what people ask for later.
fn note(row: &mut DeliveryRow, event: Event, now_ms: u64) {
    match event {
        Event::PublishStarted => row.published = row.published.saturating_add(1),
        Event::Receipt { receipt: Receipt::Delivered, .. } => row.delivered_ms = Some(now_ms),
        Event::Receipt { receipt: Receipt::Read, .. } => {
            row.delivered_ms = row.delivered_ms.or(Some(now_ms));
            row.read_ms = Some(now_ms);
        }
        Event::Receipt { receipt: Receipt::Failed { code, .. }, .. } => row.code = Some(code.name().to_owned()),
        Event::PublishAnswered { answer: PublishAnswer::LaneFull, .. } => row.code = Some(BROKER_FULL.to_owned()),
        _ => {}
    }
    if let State::Dead { cause } = row.delivery.state {
        row.code = Some(dead_reason(cause).to_owned());
    }
}

/// The recipient's code when it was the recipient, else what the broker said.
pub(super) fn dead_reason(cause: DeadCause) -> &'static str {
    cause.code().map_or(cause.as_str(), |code| code.name())
}

fn renew_nats_msg_id(tx: Tx<'_>, row: &DeliveryRow) -> Result<(), StoreError> {
    let Some(env_digest) = &row.env_digest else { return Ok(()) };
    copy::renew_nats_msg_id(tx, row, env_digest, &random::nats_msg_id())
}

fn close(tx: Tx<'_>, row: &DeliveryRow, before: StateName, state: StateName, now_ms: u64) -> Result<(), StoreError> {
    match row.delivery.state {
        State::Dead { cause } => dead_letter::insert(tx, row.msg_id, row.recipient, dead_reason(cause), now_ms)?,
        State::Expired => dead_letter::insert(tx, row.msg_id, row.recipient, state.as_str(), now_ms)?,
        // It may have been given up before it turned out that it had arrived.
        State::Delivered { .. } | State::Read { .. } if matches!(before, StateName::Dead | StateName::Expired) => {
            dead_letter::remove(tx, row.msg_id, row.recipient)?;
        }
        _ => {}
    }
    if before == StateName::Delivered {
        // The bytes went when it was delivered.
        return Ok(());
    }
    if !matches!(state, StateName::Delivered | StateName::Read) {
        return copy::drop_bytes(tx, row);
    }
    copy::close_delivered(tx, row)
}
