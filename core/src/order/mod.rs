//! In which order, and when, what was received is shown (PROTOCOL §5.7, DESIGN §8.15).
//!
//! A message is stored and acknowledged when it comes; whether its agent sees it at once is decided here. [`Sequencer`] keeps the
//! messages of one conversation in the sender's order and waits a while for one that is missing. [`Pace`] gives each message of a
//! pair of agents the time from which it may be shown, so that a flooder, or two agents that answer each other for ever, wait for
//! themselves alone. Both are pure; their owner keeps what is held in its store and asks again at [`Sequencer::next_at_ms`].

mod pace;
mod sequencer;

pub use pace::{Pace, Rate};
pub use sequencer::{Held, Sequencer, Shown};
