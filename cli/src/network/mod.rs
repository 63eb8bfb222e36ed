//! A network of background processes on one machine: broker, control plane, nodes.
//!
//! `up`, `down`, `status` and `demo` share this room. [`layout`] says where everything lies under one data directory, [`plan`]
//! remembers names and ports, [`process`] starts and ends processes that are known by pid and start time, [`supervise`] starts
//! crashed ones again, and [`broker`], [`server`] and [`node`] know how each part is started and when it is ready. Readiness is
//! always a condition, with a bound.

pub(crate) mod binaries;
pub(crate) mod broker;
pub(crate) mod enrol;
pub(crate) mod layout;
pub(crate) mod lock;
pub(crate) mod node;
pub(crate) mod plan;
pub(crate) mod process;
pub(crate) mod progress;
pub(crate) mod ready;
pub(crate) mod revoke;
pub(crate) mod server;
pub(crate) mod start;
pub(crate) mod supervise;
