//! Events around agents (PROTOCOL §5.11, AGENTS-AND-TOOLS §5): their kinds, and what follows from a kind.

mod kind;

pub use kind::{EventKind, is_stale, subject};
