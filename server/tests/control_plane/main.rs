//! The control plane as its callers see it: a real port, a real database, real certificates.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

mod access;
mod agents;
mod binary;
mod broker;
mod delegation;
mod enrolment;
mod events;
mod keys;
mod model;
mod page_tokens;
mod pages;
mod queue;
mod raw;
mod retention;
mod revocation;
mod sessions;
mod slugs;
mod tasks;
mod tunnels;
mod turns;
mod uploads;
mod watching;
mod webhooks;
mod world;
