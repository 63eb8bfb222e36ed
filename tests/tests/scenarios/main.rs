//! One binary, many modules: what a user can do, over real processes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "test code")]

mod canary;
mod delivery;
mod errors;
mod message;
mod metrics;
mod operator;
mod python;
mod session;
mod soak;
mod supervise;
mod trace;
