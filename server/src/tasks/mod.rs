//! The tasks room: every agent's checklist.
//!
//! What may become of an item is decided by [`murmur_core::checklist`]; here it is read, decided and written in one transaction, so that
//! two writers never act on the same state. Written by the agent itself, those above it and the owner of its account; read by whoever
//! sees the agent.

mod create;
mod error;
mod list;
mod room;
mod update;
mod wake;

pub use create::{NewTask, add_subjects};
pub use error::TaskError;
pub use room::Tasks;
pub use update::Edit;
pub use wake::files_changed;
