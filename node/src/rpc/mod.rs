//! The door: the services of the local socket, who may call them, and the client of the control plane.
//!
//! [`server`] puts the door together: every call passes `door`, which checks the caller's user and protocol, knows who speaks
//! (`caller`) and forwards the control plane's own services ([`forward`]). The services translate and decide nothing; what they
//! refuse is told by `status` alone.

mod caller;
mod client;
mod connection;
pub mod control;
mod convert;
mod door;
mod event;
mod file;
pub mod forward;
mod host;
mod lasting;
mod message;
mod notify;
mod outbox;
mod parse;
mod paths;
mod peer;
mod permission;
mod places;
mod send_many;
pub mod server;
mod session;
mod share;
pub mod socket;
mod status;

#[cfg(test)]
mod event_tests;
#[cfg(test)]
mod tests;
