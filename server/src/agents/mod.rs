//! The agents room: the lives of agents, from the spawn to the end, and what nodes are told to do about them.
//!
//! Every change is made in one [`Work`]: a transaction that remembers whom to wake once it is committed. A change of phase goes through
//! [`Work::become_`] and nothing else, so that revision, timeline and the parent's timeline are written with it. What nodes are to do is
//! written as orders in the same transaction and told by their streams. Whatever happens by itself (a node that stays away, time that is
//! used up, a node that has room again) is done by the keeper, whose timers are read from the rows.

mod bells;
mod each;
mod end;
mod error;
mod find;
mod idle;
mod interrupt;
mod keeper;
mod kill;
mod link;
mod list;
mod orders;
mod output;
mod place;
mod register;
mod report;
mod report_node;
mod room;
mod spawn;
mod spec;
mod update;
mod wait;
mod work;

pub(crate) use end::{end_all_of_node, read as read_phase, wire as wire_phase};
pub use error::AgentError;
pub use find::Who;
pub(crate) use find::{live, resolved};
pub(crate) use idle::idle;
pub use kill::Killed;
pub use link::Linked;
pub use list::{Detail, Listing, StatusBatch};
pub use orders::{Next, OrderStream};
pub use output::{OutputSink, OutputWatch};
pub(crate) use register::{deregistered, moved, registered, require_free};
pub use report::Told;
pub use room::{Agents, AgentsConfig};
pub use wait::{Wait, Waited};
pub(crate) use work::Work;
