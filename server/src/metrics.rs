//! What Prometheus may know: counts and times, never ids.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

/// Seconds; a unary call of this control plane takes between a fraction of a millisecond and its timeout.
const LATENCY_BUCKETS: [f64; 10] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 30.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Call {
    method: String,
    code: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByPresence {
    presence: &'static str,
}

/// Numbers that are read from the database when they are asked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Census {
    /// Live sessions of this process.
    pub sessions: u64,
    /// Nodes with a session.
    pub nodes_online: u64,
    /// Nodes without one.
    pub nodes_offline: u64,
    /// Live agents.
    pub agents: u64,
}

/// Every metric.
pub struct Metrics {
    registry: Mutex<Registry>,
    calls: Family<Call, Counter>,
    latency: Family<Call, Histogram>,
    watchers: Gauge,
    sessions: Gauge,
    nodes: Family<ByPresence, Gauge>,
    agents: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let calls = Family::default();
        let latency = Family::new_with_constructor(Call::histogram as fn() -> Histogram);
        let (watchers, sessions, agents) = (Gauge::default(), Gauge::default(), Gauge::default());
        let nodes = Family::default();
        let mut registry = Registry::with_prefix("murmur_server");
        registry.register("rpc_calls", "RPCs by method and gRPC code", Family::clone(&calls));
        registry.register_with_unit(
            "rpc_latency",
            "Time to the response headers",
            Unit::Seconds,
            Family::clone(&latency),
        );
        registry.register("watchers", "Open directory watches", Gauge::clone(&watchers));
        registry.register("sessions", "Live node sessions", Gauge::clone(&sessions));
        registry.register("nodes", "Nodes by presence", Family::clone(&nodes));
        registry.register("agents", "Live agents", Gauge::clone(&agents));
        Self { registry: Mutex::new(registry), calls, latency, watchers, sessions, nodes, agents }
    }
}

impl Call {
    fn histogram() -> Histogram {
        Histogram::new(LATENCY_BUCKETS)
    }
}

impl Metrics {
    /// Counts one call.
    pub(crate) fn called(&self, method: &str, code: &str, took: Duration) {
        let call = Call { method: method.to_owned(), code: code.to_owned() };
        self.calls.get_or_create(&call).inc();
        self.latency.get_or_create(&call).observe(took.as_secs_f64());
    }

    /// Counts a watch for as long as the answer lives.
    pub(crate) fn watcher(self: &Arc<Self>) -> Watcher {
        self.watchers.inc();
        Watcher(Arc::clone(self))
    }

    /// The text that Prometheus reads.
    ///
    /// # Errors
    /// When a metric cannot be written.
    pub fn render(&self, census: Census) -> Result<String, std::fmt::Error> {
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.sessions.set(gauge(census.sessions));
        self.agents.set(gauge(census.agents));
        for (presence, count) in [("online", census.nodes_online), ("offline", census.nodes_offline)] {
            self.nodes.get_or_create(&ByPresence { presence }).set(gauge(count));
        }
        let mut text = String::new();
        encode(&mut text, &self.registry.lock().unwrap_or_else(PoisonError::into_inner))?;
        Ok(text)
    }
}

/// See [`Metrics::watcher`].
pub(crate) struct Watcher(Arc<Metrics>);

impl Drop for Watcher {
    fn drop(&mut self) {
        self.0.watchers.dec();
    }
}
