//! The queue room: follow-up work for agents, and the turns that take it.
//!
//! An entry is a row from the moment that its giver is answered until the runtime has taken the prompt of its turn. What a turn takes and
//! how long it holds it is decided by [`murmur_core::queue`]. Whether a turn holds its entries depends on the agent's incarnation and the
//! time alone, so nothing has to be cleaned up after a crash.

mod add;
mod error;
mod event;
mod list;
mod room;
mod turn;

pub use add::{Added, NewFollowUp, Standing, push};
pub use error::QueueError;
pub(crate) use event::{NewEventWork, push_event};
pub use list::{count, count_waiting, waiting};
pub use room::Queue;
pub use turn::Handed;
