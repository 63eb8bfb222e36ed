//! Events around agents (PROTOCOL §5.11, AGENTS-AND-TOOLS §5): their kinds, and what follows from a kind; what they carry and how their words
//! are cleaned and cut; whether somebody has to be bothered with one; and what a repository is called however it was written.

mod clean;
mod draft;
mod envelope;
mod kind;
mod origin;
mod repo;
mod told_kind;

pub use clean::{clean_text, clean_value};
pub use draft::{Draft, InvalidAttribute};
pub use envelope::envelope;
pub use kind::{EventKind, is_stale, subject};
pub use origin::Origin;
pub use repo::{InvalidRepo, PullRequest, RepoName, branch};
pub use told_kind::{InvalidKind, Kind, Name};
