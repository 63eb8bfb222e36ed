//! Trace context over gRPC: a client puts it into the metadata, a server opens a span under it for every call.

use std::task::{Context as TaskContext, Poll};

use opentelemetry::{
    Context,
    propagation::{Extractor, TextMapPropagator},
};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tonic::metadata::MetadataMap;
use tower::{Layer, Service};
use tracing::{Instrument, Span, field::Empty, instrument::Instrumented};

use crate::{
    context::{TRACEPARENT, adopt, current_traceparent},
    hot_span, is_exporting,
};

/// Writes the current span's context into the metadata of a call.
pub fn inject(metadata: &mut MetadataMap) {
    if let Some(value) = current_traceparent().and_then(|text| text.parse().ok()) {
        metadata.insert(TRACEPARENT, value);
    }
}

/// A layer that runs every call inside a span named after its path, under the caller's trace.
#[must_use]
pub fn server_layer() -> ServerLayer {
    ServerLayer
}

/// See [`server_layer`].
#[derive(Debug, Clone, Copy)]
pub struct ServerLayer;

impl<S> Layer<S> for ServerLayer {
    type Service = Traced<S>;

    fn layer(&self, inner: S) -> Traced<S> {
        Traced { inner }
    }
}

/// A service whose calls run inside spans.
#[derive(Debug, Clone)]
pub struct Traced<S> {
    inner: S,
}

impl<S, B> Service<http::Request<B>> for Traced<S>
where
    S: Service<http::Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Instrumented<S::Future>;

    fn poll_ready(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let span = call_span(request.uri().path(), request.headers());
        let future = span.in_scope(|| self.inner.call(request));
        future.instrument(span)
    }
}

fn call_span(path: &str, headers: &http::HeaderMap) -> Span {
    let method = path.trim_start_matches('/');
    let span = hot_span!("rpc", otel.name = method, otel.kind = "server", rpc.system = "grpc", rpc.code = Empty);
    if is_exporting() {
        adopt(&span, TraceContextPropagator::new().extract_with_context(&Context::new(), &Headers(headers)));
    }
    span
}

struct Headers<'a>(&'a http::HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}
