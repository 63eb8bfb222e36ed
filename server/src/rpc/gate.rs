//! In front of every handler: who calls, whether the contract allows it, how often, and for how long.

use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    body::Body,
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use http::{HeaderMap, StatusCode};
use murmur_proto::{
    FILE_DESCRIPTOR_SET,
    access::scope_of,
    client::{AS_HEADER, PROTOCOL_HEADER},
    status::code_name,
    v1::Scope,
};
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tokio::sync::oneshot;
use tonic::{Code, Status};
use tracing::Instrument as _;

use super::{Limits, incarnation_in as incarnation, status};
use crate::{
    invalid::{Invalid, parse},
    lifecycle::Lifecycle,
    metrics::Metrics,
    nodes::Nodes,
    tokens::{AuthError, Delegate, DelegateError, Principal, Tokens, check},
};

/// Where a connection comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// What the gate asks.
pub(crate) struct Gate {
    pub(crate) tokens: Arc<Tokens>,
    /// Knows which incarnation of a node may speak for others.
    pub(crate) nodes: Arc<Nodes>,
    pub(crate) limits: Limits,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) unary_timeout: Duration,
    /// Paths of RPCs that stream, which outlast every timeout.
    pub(crate) streams: HashSet<String>,
}

/// The middleware.
pub(crate) async fn gate(State(gate): State<Arc<Gate>>, mut request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let path = request.uri().path().to_owned();
    if !is_grpc(request.headers()) {
        return not_grpc(&path);
    }
    let Some(scope) = scope_of(&path) else {
        // Health, reflection and what is not ours at all; they tell nothing that needs a credential.
        return next.run(request).await;
    };
    let response = match gate.admit(&path, scope, &mut request).await {
        Ok(()) => gate.run(&path, request, next).await,
        Err(status) => status.into_http(),
    };
    gate.metrics.called(path.trim_start_matches('/'), code_of(&response), begun.elapsed());
    response
}

impl Gate {
    async fn admit(&self, path: &str, scope: Scope, request: &mut Request) -> Result<(), Status> {
        check_protocol(request)?;
        if self.lifecycle.is_draining() {
            return Err(status::draining());
        }
        let peer = request.extensions().get::<Peer>().map(|peer| peer.0.ip());
        if scope == Scope::Public {
            // Only an enrolment is public, and only its secret tells a friend from a guesser.
            return peer.map_or(Ok(()), |from| self.limits.enrolment(from)).map_err(status::rate_limited);
        }
        let caller = match bearer(request) {
            Some(text) => Some(self.verified(text, peer).await?),
            None => None,
        };
        let caller = self.spoken_for(request.headers(), caller).await?;
        check(scope, caller.as_deref()).map_err(|refusal| status::refusal(&refusal))?;
        if let Some(caller) = caller {
            if !self.streams.contains(path) {
                self.limits.call(caller.rate_key()).map_err(status::rate_limited)?;
            }
            request.extensions_mut().insert(caller);
        }
        Ok(())
    }

    async fn verified(&self, text: &str, peer: Option<std::net::IpAddr>) -> Result<Arc<Principal>, Status> {
        let error = match self.tokens.verify(text).await {
            Ok(caller) => return Ok(caller),
            Err(error) => error,
        };
        let guess = matches!(error, AuthError::Malformed(_) | AuthError::Unknown);
        match peer.filter(|_| guess).map_or(Ok(()), |from| self.limits.failure(from)) {
            Ok(()) => Err(error.into()),
            Err(wait) => Err(status::rate_limited(wait)),
        }
    }

    /// Whom a node forwards the call for, when it says so; else the caller itself. Nobody but a node speaks for others.
    async fn spoken_for(
        &self,
        headers: &HeaderMap,
        caller: Option<Arc<Principal>>,
    ) -> Result<Option<Arc<Principal>>, Status> {
        let Some(named) = delegate(headers)? else { return Ok(caller) };
        let node = caller.ok_or_else(|| status::refusal(&crate::tokens::Refusal::TokenMissing))?;
        let place = node.as_node().ok_or_else(|| Status::from(DelegateError::NotANode))?;
        self.nodes.require_current(place, incarnation(headers)?).await?;
        Ok(Some(Arc::new(self.tokens.speaking_for(&node, place, named).await?)))
    }

    /// Runs a unary call within its time; a stream as long as it likes.
    ///
    /// A unary handler is a task of its own, so that a caller who leaves cannot cut it off between a commit and what must
    /// follow it: forgetting a revoked token, waking the watchers.
    async fn run(&self, path: &str, request: Request, next: Next) -> Response {
        if self.streams.contains(path) {
            return next.run(request).await;
        }
        let limit = deadline(&request).map_or(self.unary_timeout, |asked| asked.min(self.unary_timeout));
        let (answer, answered) = oneshot::channel();
        let call = async move {
            // A caller who left needs no answer.
            let _ = answer.send(next.run(request).await);
        };
        self.lifecycle.spawn(call.in_current_span());
        match tokio::time::timeout(limit, answered).await {
            Ok(Ok(response)) => response,
            Ok(Err(_)) => Status::internal("the call was cut off").into_http(),
            Err(_) => Status::deadline_exceeded(format!("no answer within {limit:?}")).into_http(),
        }
    }
}

/// The paths of the contract's streaming RPCs.
///
/// # Errors
/// When the compiled contract cannot be read.
pub(crate) fn streaming_paths() -> Result<HashSet<String>, prost::DecodeError> {
    let mut paths = HashSet::new();
    for file in FileDescriptorSet::decode(FILE_DESCRIPTOR_SET)?.file {
        for service in &file.service {
            for method in service.method.iter().filter(|method| method.server_streaming() || method.client_streaming())
            {
                paths.insert(format!("/{}.{}/{}", file.package(), service.name(), method.name()));
            }
        }
    }
    Ok(paths)
}

/// Whether this is a call at all, and not a browser that lost its way.
fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(http::header::CONTENT_TYPE).map_or(&b""[..], |kind| kind.as_bytes());
    kind.starts_with(b"application/grpc")
}

/// What HTTP has for it: gRPC would answer 200 and say more in a header that nobody reads.
fn not_grpc(path: &str) -> Response {
    match scope_of(path) {
        Some(_) => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "this is called by gRPC\n").into_response(),
        None => (StatusCode::NOT_FOUND, "there is nothing here\n").into_response(),
    }
}

fn check_protocol(request: &Request) -> Result<(), Status> {
    let Some(theirs) = request.headers().get(PROTOCOL_HEADER) else { return Ok(()) };
    let theirs = theirs.to_str().unwrap_or("?");
    if theirs == murmur_proto::PROTOCOL.to_string() { Ok(()) } else { Err(status::version_skew(theirs)) }
}

/// What the call says about whom it is made for. More than one answer is none.
fn delegate(headers: &HeaderMap) -> Result<Option<Delegate>, Status> {
    let mut values = headers.get_all(AS_HEADER).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => Ok(Some(parse(AS_HEADER, value.to_str().unwrap_or_default())?)),
        (Some(_), Some(_)) => Err(Invalid::new(AS_HEADER, "must come once").into()),
    }
}

fn bearer(request: &Request) -> Option<&str> {
    let value = request.headers().get(http::header::AUTHORIZATION)?.to_str().unwrap_or_default();
    // A header of another scheme is a token that cannot be read, not an absent one.
    Some(value.strip_prefix("Bearer ").or_else(|| value.strip_prefix("bearer ")).unwrap_or(value))
}

/// The caller's own deadline, `grpc-timeout: <digits><unit>`.
fn deadline(request: &Request) -> Option<Duration> {
    let text = request.headers().get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count.saturating_mul(3600))),
        "M" => Some(Duration::from_secs(count.saturating_mul(60))),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

/// A refusal carries its code in the headers; whatever else begins is counted as OK.
fn code_of(response: &http::Response<Body>) -> &'static str {
    code_name(response.headers().get("grpc-status").map_or(Code::Ok, |value| Code::from_bytes(value.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_read_from_the_contract() {
        let paths = streaming_paths().unwrap();
        assert!(paths.contains("/murmur.v1.NodeService/OpenSession"));
        assert!(paths.contains("/murmur.v1.DirectoryService/WatchDirectory"));
        assert!(!paths.contains("/murmur.v1.DirectoryService/ListAgents"));
    }

    #[test]
    fn a_callers_deadline_is_read() {
        let request = |text: &str| Request::builder().header("grpc-timeout", text).body(Body::empty()).unwrap();
        assert_eq!(deadline(&request("250m")), Some(Duration::from_millis(250)));
        assert_eq!(deadline(&request("2S")), Some(Duration::from_secs(2)));
        for text in ["", "S", "xS", "5é"] {
            assert_eq!(
                deadline(&Request::builder().header("grpc-timeout", text.as_bytes()).body(Body::empty()).unwrap()),
                None
            );
        }
    }
}
