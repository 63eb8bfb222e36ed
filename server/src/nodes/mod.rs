//! The nodes room: how a host's node joins a workspace and proves that it is alive.
//!
//! A node makes its keys itself, redeems an invite and waits for the owner's signature. Then one stream at a time is its
//! session: the stream's end frees the lease and sets presence offline at once, silence does so when the lease is over
//! (DESIGN §8 point 2). The owner's list ends it ([`revoke`]); [`strays`] keeps the broker's store free of mail to nobody.

mod approve;
mod credentials;
mod enroll;
mod error;
mod invite;
mod list;
mod registry;
mod restore;
mod revoke;
mod room;
mod session;
mod strays;
mod token;

pub use credentials::Credentials;
pub use enroll::{Enrolled, Enrolment};
pub use error::NodeError;
pub use invite::InviteRequest;
pub use registry::{Ended, Registry};
pub use revoke::Published;
pub use room::Nodes;
pub use session::{Hello, Session};
pub use token::Renewed;
