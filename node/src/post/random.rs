//! Randomness for ids and back-off.

/// An evenly drawn number; 0 when there is no randomness, which only makes back-offs alike.
pub(super) fn number() -> u64 {
    getrandom::u64().unwrap_or(0)
}

/// 128 random bits for `Nats-Msg-Id`: nobody may be able to use it first (PROTOCOL §5.4).
pub(super) fn nats_msg_id() -> String {
    format!("{:016x}{:016x}", number(), number())
}

/// The random part of a message id, or `None` without randomness.
pub(super) fn id_bytes() -> Option<[u8; 10]> {
    let mut bytes = [0; 10];
    getrandom::fill(&mut bytes).ok()?;
    Some(bytes)
}
