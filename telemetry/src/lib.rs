//! Tracing for every Murmur binary: logs to standard error, spans to an OTLP collector, W3C trace context across processes.
//!
//! Configuration is the standard `OTEL_*` environment (spans are exported when an OTLP endpoint is named) and two variables of
//! our own: `MURMUR_LOG`, a filter such as `info,murmur_node=debug`, and `MURMUR_LOG_FORMAT=json`.
//!
//! What is never traced or logged: message bodies, keys, tokens.

pub mod context;
pub mod grpc;
mod init;
mod plain;

pub use context::{current_traceparent, set_parent};
pub use init::{Guard, init, is_exporting};
