//! Checklists: what an agent has to do, in which order, and what may become of an item (AGENTS-AND-TOOLS §3).
//!
//! One agent has one checklist. Items are numbered from 1 in the order of their creation. An edge makes one item wait for another and
//! never leaves the checklist; the edges never form a cycle. An item whose blockers are not all done cannot be started or completed. A
//! deleted item is done with: it loses its edges, and a dormant one does not count until a changed file wakes it.
//!
//! ```text
//! pending ⇄ in_progress → completed → pending        pending → completed        any → deleted, for good
//! ```
//!
//! [`Checklist::update`] decides a change wholly or refuses it wholly, and says which rows are different.

mod change;
mod cycle;
mod id;
mod list;
mod pattern;
mod status;
mod text;

pub use change::{Change, Edge, Outcome, Refused};
pub use id::{InvalidTaskId, TaskId};
pub use list::{Checklist, State};
pub use pattern::{InvalidPattern, Pattern};
pub use status::{InvalidStatus, Status};
pub use text::{Details, InvalidDetails, InvalidSubject, Subject};

#[cfg(test)]
mod model;
