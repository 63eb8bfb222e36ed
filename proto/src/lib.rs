//! Murmur's gRPC contracts: generated code, the scope of every RPC, and what both ends of a connection share.
//!
//! - [`v1`] is the control plane's public interface, [`node::v1`] the local socket of a node.
//! - [`access`] tells what a caller must hold for a path; the doors enforce it before a handler runs.
//! - [`status`] maps a [`murmur_core::reason::Reason`] to a gRPC status with details, and back.
//! - [`client`] connects to a node's socket or to the control plane.
//! - [`file`] reads files that a user names, tokens among them.
//! - [`tunnel`] carries connections over frames.
//! - [`time`] turns moments into timestamps and back, [`words`] enumerations into words.

pub mod access;
pub mod client;
pub mod file;
pub mod status;
pub mod time;
pub mod tunnel;
pub mod words;

/// The control plane's services.
#[allow(
    missing_docs,
    unused_qualifications,
    unreachable_pub,
    clippy::all,
    clippy::large_futures,
    clippy::needless_pass_by_value,
    clippy::semicolon_if_nothing_returned,
    reason = "generated; the proto files are the documentation"
)]
pub mod v1 {
    tonic::include_proto!("murmur.v1");
}

/// The local socket's services.
pub mod node {
    /// Version 1.
    #[allow(
        missing_docs,
        unused_qualifications,
        unreachable_pub,
        clippy::all,
        clippy::large_futures,
        clippy::needless_pass_by_value,
        clippy::semicolon_if_nothing_returned,
        reason = "generated; the proto files are the documentation"
    )]
    pub mod v1 {
        tonic::include_proto!("murmur.node.v1");
    }
}

/// Every file of the contract, encoded, with comments and options: for reflection and for tests.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/murmur.fds.bin"));

/// The protocol spoken between shim, command line, node and control plane. A change that an older peer cannot follow raises it.
pub const PROTOCOL: u32 = 1;
