//! The broker room: everything the control plane knows about NATS.
//!
//! Streams live in one account, nodes connect to another that has no JetStream (PROTOCOL §5.3), so a node can reach the
//! streams only through the few subjects imported for it. No other room of the server names NATS.
//!
//! [`init()`] prepares a directory to start the server from, [`BrokerKeys`] signs what nodes present, [`BrokerAdmin`] makes
//! streams and consumers and deletes what nobody takes, and [`Revoker`] ends a node's access.

mod accounts;
mod config;
mod connect;
mod error;
mod init;
mod jetstream;
mod jwt;
mod keys;
mod revoke;

pub use accounts::{NODE_API_PREFIX, NODE_JWT_LIFE_S, NODE_PAYLOAD_BYTES_MAX, NODE_SUBSCRIPTIONS_MAX};
pub use config::{InitOptions, SERVER_PAYLOAD_BYTES_MAX, TlsFiles};
pub use connect::BrokerAddress;
pub use error::BrokerError;
pub use init::{BrokerLayout, init};
pub use jetstream::{BrokerAdmin, Room, StreamSettings};
pub use keys::BrokerKeys;
pub use revoke::Revoker;
