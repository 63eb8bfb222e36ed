//! The W3C `traceparent` as a string, for carriers that are neither gRPC nor HTTP: broker headers, sealed messages, MCP.

use opentelemetry::{
    Context,
    propagation::{Extractor, Injector, TextMapPropagator},
    trace::TraceContextExt,
};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// The header of the W3C trace context.
pub const TRACEPARENT: &str = "traceparent";

/// The current span's `traceparent`, or `None` when nothing is traced.
#[must_use]
pub fn current_traceparent() -> Option<String> {
    traceparent_of(&Span::current())
}

/// The `traceparent` of a span, or `None` when it is not traced.
#[must_use]
pub fn traceparent_of(span: &Span) -> Option<String> {
    let context = span.context();
    context.span().span_context().is_valid().then(|| {
        let mut carrier = Single(String::new());
        TraceContextPropagator::new().inject_context(&context, &mut carrier);
        carrier.0
    })
}

/// Makes a span, not yet entered, the child of a remote `traceparent`. A malformed one is ignored: the span starts a trace.
pub fn set_parent(span: &Span, traceparent: &str) {
    adopt(span, TraceContextPropagator::new().extract_with_context(&Context::new(), &Single(traceparent.to_owned())));
}

/// Gives a span the remote context as its parent, if there is one.
pub(crate) fn adopt(span: &Span, context: Context) {
    if context.span().span_context().is_valid() {
        // Refused only when the span has started already, which costs a link in a trace and nothing else.
        let _ = span.set_parent(context);
    }
}

/// A carrier of `traceparent` alone.
struct Single(String);

impl Injector for Single {
    fn set(&mut self, key: &str, value: String) {
        if key == TRACEPARENT {
            self.0 = value;
        }
    }
}

impl Extractor for Single {
    fn get(&self, key: &str) -> Option<&str> {
        (key == TRACEPARENT).then_some(self.0.as_str())
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT]
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::TracerProvider as _;
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    const REMOTE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_span_continues_a_remote_trace_and_a_malformed_one_starts_its_own() {
        let provider = SdkTracerProvider::builder().build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let span = tracing::info_span!("child");
            set_parent(&span, REMOTE);
            let own = span.in_scope(current_traceparent).unwrap();
            assert_eq!(own[..36], REMOTE[..36], "the same trace");
            assert_ne!(own, REMOTE, "another span");
            let stray = tracing::info_span!("stray");
            set_parent(&stray, "nonsense");
            assert_ne!(traceparent_of(&stray).unwrap()[..36], REMOTE[..36]);
        });
    }

    #[test]
    fn without_an_exporter_nothing_is_traced() {
        assert_eq!(current_traceparent(), None);
    }
}
