//! The pure middle of Murmur: identifiers, slugs, limits, tokens, error reasons, retry schedules and the outbox machine.
//!
//! Nothing here does IO, awaits, reads a clock or draws randomness. Time and randomness come in as arguments, so that every
//! decision can be tested as a function.

pub mod checklist;
pub mod code;
pub mod event;
pub mod id;
pub mod limits;
pub mod order;
pub mod outbox;
pub mod output;
pub mod phase;
pub mod place;
pub mod presence;
pub mod queue;
pub mod reason;
pub mod retry;
pub mod slug;
pub mod stream;
pub mod subject;
pub mod text;
pub mod tier;
pub mod token;
