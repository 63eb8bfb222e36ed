//! The events room: what happens around agents, in a log of each of them (AGENTS-AND-TOOLS §5, PROTOCOL §5.11).
//!
//! An event is a row first: `put` writes it into one log, inside the transaction of whatever it tells of, and [`route::route`] into the logs of
//! all that registered a repository's branch or pull request. With it, in the same transaction, goes what follows: what it replaces, the
//! work that it becomes for an agent that nobody attends to, what the log lets go. Readers are woken by bells and read from where they
//! stand: a node's feed ([`Feed`]), a person's watch ([`Watch`]), pages. Nothing is looked at again and again.

mod access;
mod error;
mod feed;
pub(crate) mod files;
mod follow_up;
mod keeper;
mod lifecycle;
mod list;
mod publish;
pub(crate) mod pull_request;
mod put;
mod repos;
mod room;
pub(crate) mod route;
mod watch;

pub use error::EventError;
pub use feed::{Fed, Feed};
pub(crate) use lifecycle::{child_phase, child_progress, failed_unseen};
pub use list::Wanted;
pub use publish::Published;
pub(crate) use put::settled;
pub(crate) use repos::{registered_by_spawn, registered_by_status};
pub use room::Events;
pub use watch::{Seen, Watch};
