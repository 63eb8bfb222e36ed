//! Randomness for ids and back-off.

use std::{
    collections::hash_map::RandomState,
    hash::BuildHasher as _,
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
};

/// A number for a back-off, about evenly drawn: each step of a delivery takes one, most of them for nothing, so it costs no call of the
/// system. Of no use where nobody may guess it.
pub(super) fn number() -> u64 {
    static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    static COUNT: AtomicU64 = AtomicU64::new(0);
    KEY.hash_one(COUNT.fetch_add(1, Ordering::Relaxed))
}

/// 128 random bits for `Nats-Msg-Id`: nobody may be able to use it first (PROTOCOL §5.4). Without randomness it is one that somebody
/// might, which the outbox machine notices.
pub(super) fn nats_msg_id() -> String {
    let mut bytes = [0; 16];
    let _ = getrandom::fill(&mut bytes);
    data_encoding::HEXLOWER.encode(&bytes)
}

/// The random part of a message id, or `None` without randomness.
pub(super) fn id_bytes() -> Option<[u8; 10]> {
    let mut bytes = [0; 10];
    getrandom::fill(&mut bytes).ok()?;
    Some(bytes)
}
