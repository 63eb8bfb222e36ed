//! The queue of an agent's follow-up work: what a turn takes from it, and under which lease (AGENTS-AND-TOOLS §3).
//!
//! Entries wait in the order in which they came. A turn takes some from the front and has them under a [`Lease`], until the runtime has
//! taken its prompt. When that is not heard of (the agent has started anew, or the lease is over), the entries wait again where they
//! stood, marked as handed out before. So an entry is never lost, and never held by two incarnations.

mod lease;
mod strategy;

pub use lease::{Claim, Lease};
pub use strategy::{DequeueStrategy, InvalidDequeueStrategy, Kind, Waiting};
