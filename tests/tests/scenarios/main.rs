//! One binary, many modules: what a user can do, over real processes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "test code")]

mod agents_defects;
mod agents_parents;
mod agents_watch;
mod backlog;
mod canary;
mod crash;
mod credentials;
mod delivery;
mod disk;
mod errors;
mod fencing;
mod files;
mod hostile_input;
mod keys;
mod letters;
mod message;
mod metrics;
mod operator;
mod pace;
mod pair;
mod power;
mod promises;
mod python;
mod reconnect;
mod restore;
mod runtime_acp;
mod runtime_claude;
mod runtime_command;
mod runtime_restart;
mod session;
mod share;
mod sizes;
mod soak;
mod supervise;
mod trace;
