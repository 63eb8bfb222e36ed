//! The sender's outbox: one message on its way to one recipient, as a pure machine (PROTOCOL §5.4).
//!
//! ```text
//! QUEUED → SEALED → STORED → DELIVERED → READ        side exits: EXPIRED, DEAD, CANCELLED
//! ```
//!
//! The driver feeds [`Event`]s to [`Delivery::step`], **commits** the delivery that comes back together with what the effects
//! ask to be stored, and only then runs the [`Effect`]s. After a crash it loads the rows ([`Row`]) and steps each open one with
//! [`Event::Restarted`].
//!
//! Every effect that waits for an answer moves the next time ahead by [`Config::answer_wait_ms`]; if the answer gets lost, a
//! [`Event::Tick`] at that time tries again. So an open delivery always has a next time, and it is never later than its expiry.
//!
//! Receipts name the sealed copy they speak of by its seal attempt. A refusal of an older copy is stale and changes nothing; a
//! DELIVERED of any copy is the truth and is accepted, even of a message that was given up. What died or expired can be begun
//! again by a person: [`redrive`].

mod event;
mod redrive;
mod row;
mod state;
mod step;

pub use event::{Effect, Event, PublishAnswer, Receipt};
pub use redrive::{Redrive, redrive};
pub use row::{InvalidRow, Row};
pub use state::{DeadCause, InvalidStateName, State, StateName};
pub use step::{Config, Delivery, Step};

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
