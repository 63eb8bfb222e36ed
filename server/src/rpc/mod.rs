//! The gRPC door: one file per service, one gate in front of all, one map from errors to status.
//!
//! The gate ([`gate`]) knows who calls, whether the contract allows it, how often and for how long; a handler only reads
//! fields into types, calls a room and writes the answer.

mod agent;
mod auth;
mod convert;
mod convert_agent;
mod directory;
mod event;
pub(crate) mod gate;
pub(crate) mod limit;
mod node;
mod queue;
mod runtime;
pub(crate) mod session;
mod status;
mod task;
mod tunnel;
mod upload;
mod webhook;

pub(crate) use agent::AgentRpc;
pub(crate) use auth::AuthRpc;
pub(crate) use directory::DirectoryRpc;
pub(crate) use event::EventRpc;
pub(crate) use limit::Limits;
pub(crate) use node::NodeRpc;
pub(crate) use queue::QueueRpc;
pub(crate) use runtime::RuntimeRpc;
pub(crate) use task::TaskRpc;
pub(crate) use tunnel::TunnelRpc;
pub(crate) use upload::UploadRpc;
pub(crate) use webhook::WebhookRpc;

use std::{pin::Pin, sync::Arc};

use murmur_core::id::Incarnation;
use murmur_proto::client::INCARNATION_HEADER;
use tokio_stream::Stream;
use tonic::{Request, Status};

use crate::tokens::Principal;

/// A server stream.
pub(crate) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Items of a stream that wait for a slow reader; then the watch waits.
pub(crate) const STREAM_ITEMS_MAX: usize = 64;

/// The caller, whom the gate put into the request.
fn caller<T>(request: &Request<T>) -> Result<Arc<Principal>, Status> {
    let found = request.extensions().get::<Arc<Principal>>().cloned();
    found.ok_or_else(|| status::refusal(&crate::tokens::Refusal::TokenMissing))
}

/// Which incarnation of a node calls; `None` when it does not say.
fn incarnation<T>(request: &Request<T>) -> Result<Option<Incarnation>, Status> {
    incarnation_in(request.metadata().as_ref())
}

fn incarnation_in(headers: &http::HeaderMap) -> Result<Option<Incarnation>, Status> {
    let Some(value) = headers.get(INCARNATION_HEADER) else { return Ok(None) };
    Ok(Some(crate::invalid::parse(INCARNATION_HEADER, value.to_str().unwrap_or_default())?))
}

/// The calling node.
fn calling_node<T>(
    request: &Request<T>,
) -> Result<(Arc<Principal>, (murmur_core::id::WorkspaceId, murmur_core::id::NodeId)), Status> {
    let caller = caller(request)?;
    let node = caller
        .as_node()
        .ok_or_else(|| status::refusal(&crate::tokens::Refusal::ScopeMissing(murmur_proto::v1::Scope::Node)))?;
    Ok((caller, node))
}
