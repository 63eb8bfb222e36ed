//! The broker room: everything the control plane knows about NATS.
//!
//! Streams live in one account, nodes connect to another that has no JetStream (PROTOCOL §5.3), so a node can reach the
//! streams only through the few subjects imported for it. No other room of the server names NATS.
