//! The Murmur node: one per host and user.
//!
//! It holds the private keys of its agents, accepts messages for the price of one fsync, seals and delivers them, opens and stores what
//! arrives, and serves all of this to local programs on a unix socket. `docs/ARCHITECTURE.md` names the rooms.
pub mod agents;
pub mod app;
pub mod bus;
pub mod clock;
pub mod config;
mod delay;
pub mod directory;
pub mod disk;
pub mod enroll;
pub mod events;
mod failpoint;
pub mod identity;
pub mod keys;
pub mod lifecycle;
pub mod metrics;
pub mod notify;
pub mod outbound;
pub mod permission;
pub mod post;
pub mod rpc;
pub mod runtime;
pub mod session;
pub mod store;
pub mod tunnel;
pub mod upload;
pub mod vital;
pub mod wake;
