//! Scenarios over the real binaries: what the harness offers to them and to the benchmarks.
//!
//! Nothing of ours is imitated: [`network::Network`] starts a real nats-server, a real control plane and real nodes as processes
//! with their own ports, directories and broker accounts; [`shim::Shim`] drives the real `murmur-mcp` with an MCP client. Waiting is
//! always for a condition ([`wait::until`]), never for a time.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a harness fails loudly; it is all test code"
)]

pub mod agents;
pub mod fuzz;
pub mod home;
pub mod hook;
pub mod network;
pub mod otlp;
pub mod ports;
pub mod process;
pub mod proxy;
pub mod shim;
pub mod spawned;
pub mod store;
pub mod strangers;
pub mod talk;
pub mod wait;
pub mod web;
