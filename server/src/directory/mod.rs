//! The directory room: workspaces, their agents and the public keys to write to them.
//!
//! What is published is checked here against the workspace's root, although every reader checks again: a directory that
//! holds only what verifies is easier to debug, and a mistake shows where it was made.

mod agents;
mod error;
mod keys;
mod register;
mod resolve;
mod room;
mod watch;
mod workspaces;

pub use error::DirectoryError;
pub use register::Registration;
pub use room::Directory;
pub use watch::{Batch, ResumeToken};
