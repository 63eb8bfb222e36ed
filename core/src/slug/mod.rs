//! Slugs: the names that people and models type, and the one resolver that turns them into agents
//! (AGENTS-AND-TOOLS §1, DESIGN §8 points 3 and 5).
//!
//! ```text
//! seg     = [a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?      reserved: w, u, self
//! path    = seg *7("/" seg)
//! account = [a-z0-9]([a-z0-9-]{0,37}[a-z0-9])?      lowercased on the way in
//! abs     = "/w/" seg "/u/" account "/" path  |  "/u/" account "/" path
//! ```
//!
//! [`Slug`] is the absolute form with its workspace, the only one that is stored, signed or compared. [`SlugText`] is what may
//! be typed. [`resolve`] goes from the second to an immutable agent id; [`Scope`] is a prefix that limits whom a certificate
//! or token may speak for.

mod error;
mod name;
mod path;
mod resolve;
mod scope;
mod text;

pub use error::{SlugError, SlugRule};
pub use name::{AccountName, Segment, WorkspaceName, normalise_name};
pub use path::{AgentPath, Slug};
pub use resolve::{Caller, Lookup, ResolveError, Resolved, asked, resolve};
pub use scope::Scope;
pub use text::{Force, SlugText};

/// Strategies for valid names, shared by the property tests of this room.
#[cfg(test)]
mod strategy {
    use proptest::prelude::*;

    use super::{AccountName, AgentPath, Segment, Slug};

    pub(super) fn segment() -> impl Strategy<Value = Segment> {
        "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?".prop_filter_map("reserved", |text| text.parse().ok())
    }

    pub(super) fn account() -> impl Strategy<Value = AccountName> {
        "[a-z0-9]([a-z0-9-]{0,37}[a-z0-9])?".prop_map(|text| text.parse().unwrap())
    }

    pub(super) fn path() -> impl Strategy<Value = AgentPath> {
        proptest::collection::vec("[a-z0-9]([a-z0-9-]{0,9}[a-z0-9])?", 1..=8)
            .prop_filter_map("reserved", |parts| parts.join("/").parse().ok())
    }

    pub(super) fn slug() -> impl Strategy<Value = Slug> {
        (segment(), account(), path())
            .prop_map(|(workspace, account, path)| Slug::new(workspace, account, path).unwrap())
    }
}
