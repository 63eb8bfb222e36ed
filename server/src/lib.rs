//! The control plane's rooms.
//!
//! `rpc` and [`http`] are doors; [`directory`], [`nodes`] and [`tokens`] decide; [`db`] alone names the database and
//! [`broker`] alone the broker's client. [`app`] wires them.

pub mod agents;
pub mod app;
pub mod broker;
pub mod broker_link;
pub mod clock;
pub mod config;
pub mod db;
pub mod directory;
pub mod events;
mod files;
pub mod http;
mod hub;
pub mod idempotency;
mod invalid;
pub mod lifecycle;
mod limit;
pub mod links;
pub mod metrics;
pub mod nodes;
mod page;
pub mod queue;
mod random;
pub mod retention;
mod rpc;
pub mod target;
pub mod tasks;
mod together;
pub mod tokens;
pub mod tunnels;
pub mod uploads;
pub mod webhooks;
