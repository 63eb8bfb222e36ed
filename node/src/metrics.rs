//! What is counted and where it is read: `/metrics`, `/healthz` and `/readyz`, over HTTP on a listener of their own.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use axum::{Router, extract::State, http::StatusCode, http::header, response::IntoResponse, routing::get};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;

use crate::{
    app::{Core, Stage},
    disk,
    identity::write_private,
    post::PostStats,
};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Method {
    method: &'static str,
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Name {
    method: &'static str,
}

/// What is counted as it happens. What the post counts is read from it at each scrape.
#[derive(Debug)]
pub struct Metrics {
    calls: Family<Method, Counter>,
    call_seconds: Family<Name, Histogram>,
    ack_latency_seconds: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            calls: Family::default(),
            // 50 µs to 1.6 s, then more.
            call_seconds: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.000_05, 2.0, 16))),
            // 0.5 ms to four and a half hours: a recipient may be away.
            ack_latency_seconds: Histogram::new(exponential_buckets(0.000_5, 2.0, 25)),
        }
    }
}

impl Metrics {
    /// Counts a call of a known RPC; anything else is no label of ours.
    pub fn called(&self, path: &str, code: &'static str, took: Duration) {
        let Some((path, _)) = murmur_proto::access::scopes().find(|(known, _)| *known == path) else { return };
        let method = path.trim_start_matches('/');
        self.calls.get_or_create(&Method { method, code }).inc();
        self.call_seconds.get_or_create(&Name { method }).observe(took.as_secs_f64());
    }

    /// Counts how long a delivery took until its recipient's receipt.
    pub fn acknowledged(&self, took: Duration) {
        self.ack_latency_seconds.observe(took.as_secs_f64());
    }

    /// Everything in Prometheus' text format.
    async fn text(&self, core: Option<&Core>) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
        let mut registry = Registry::with_prefix("murmur");
        let own = registry.sub_registry_with_prefix("node");
        own.register("rpc_calls", "Calls by RPC and gRPC code", self.calls.clone());
        own.register_with_unit(
            "rpc_latency",
            "From a call's arrival to its answer, or to the begin of its stream",
            Unit::Seconds,
            self.call_seconds.clone(),
        );
        own.register_with_unit(
            "ack_latency",
            "From acceptance to the recipient's receipt",
            Unit::Seconds,
            self.ack_latency_seconds.clone(),
        );
        if let Some(core) = core {
            register_node(&mut registry, core);
            register_post(&mut registry, &core.post.stats().await?);
        }
        let mut text = String::new();
        encode(&mut text, &registry)?;
        Ok(text)
    }
}

type Labelled<T> = Family<Vec<(String, String)>, T>;

fn labelled<T: Default + Clone>(label: &str, values: &[(&str, u64)], set: impl Fn(&T, u64)) -> Labelled<T> {
    let family = Labelled::<T>::default();
    for (value, count) in values {
        set(&family.get_or_create(&vec![(label.to_owned(), (*value).to_owned())]), *count);
    }
    family
}

fn gauge(value: u64) -> Gauge {
    let gauge = Gauge::default();
    set_gauge(&gauge, value);
    gauge
}

fn set_gauge(gauge: &Gauge, value: u64) {
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
}

fn counter(value: u64) -> Counter {
    let counter = Counter::default();
    counter.inc_by(value);
    counter
}

fn register_node(registry: &mut Registry, core: &Core) {
    let registry = registry.sub_registry_with_prefix("node");
    let up = [
        ("control_plane", u64::from(core.control.state().borrow().connected)),
        ("broker", u64::from(*core.bus.connected().borrow())),
    ];
    registry.register("connected", "Whether the node is connected to each", labelled("to", &up, set_gauge));
    registry.register("sessions", "Attached programs", gauge(core.sessions.count() as u64));
    registry.register("agents", "Live agents of this node", gauge(core.agents.all().len() as u64));
}

fn register_post(registry: &mut Registry, stats: &PostStats) {
    let depth = [("queued", stats.queued), ("sealed", stats.sealed), ("stored", stats.stored)];
    registry.register("outbox_depth", "Open deliveries by state", labelled("status", &depth, set_gauge));
    let oldest = Gauge::<f64, std::sync::atomic::AtomicU64>::default();
    oldest.set(Duration::from_millis(stats.oldest_pending_ms).as_secs_f64());
    registry.register_with_unit("outbox_oldest_pending_age", "Age of the oldest open delivery", Unit::Seconds, oldest);
    let ways = [("in", stats.received), ("out", stats.sent)];
    let count = |counter: &Counter, value| {
        counter.inc_by(value);
    };
    registry.register("local_messages", "Messages of local agents", labelled("direction", &ways, count));
    let dead = "Messages that died or expired and that nobody has seen to";
    registry.register("outbox_dead_letter_rows", dead, gauge(stats.dead_letters));
    let refused = "Arrivals that could not be authenticated or read";
    registry.register("quarantine_rows", refused, gauge(stats.in_quarantine));
    let registry = registry.sub_registry_with_prefix("node");
    registry.register("deliveries", "Deliveries that their recipients acknowledged", counter(stats.delivered));
    registry.register("inbox_held", "Messages that wait for their turn to be shown", gauge(stats.held));
    let trips = "Messages for which a pair of agents was found over its rate";
    registry.register("pair_rate_trips", trips, counter(stats.pair_rate_trips));
    registry.register("outbox_dead", "Deliveries that ended as dead", counter(stats.dead));
    registry.register("outbox_expired", "Deliveries that ended as expired", counter(stats.expired));
    registry.register("outbox_retries", "Publishes that the broker did not take", counter(stats.retried));
    registry.register("published", "Publishes that the broker took", counter(stats.published));
    registry.register("duplicates", "Arrivals that were known already", counter(stats.duplicates));
    registry.register("refused", "Arrivals refused with a code", counter(stats.refused));
    registry.register("quarantined", "Arrivals put into quarantine", counter(stats.quarantined));
    registry.register("acks_ignored", "Acknowledgements that did not count", counter(stats.acks_ignored));
}

#[derive(Clone)]
struct Site {
    metrics: Arc<Metrics>,
    stage: watch::Receiver<Stage>,
    data_dir: Arc<Path>,
    drain: CancellationToken,
}

/// Listens for scrapes. With port 0 the address chosen is written to `<data dir>/metrics.addr`.
///
/// # Errors
/// [`std::io::Error`] when the address cannot be used.
pub async fn listen(address: SocketAddr, data_dir: &Path) -> std::io::Result<TcpListener> {
    let listener = TcpListener::bind(address).await?;
    if address.port() == 0 {
        write_private(&data_dir.join("metrics.addr"), listener.local_addr()?.to_string().as_bytes())?;
    }
    Ok(listener)
}

/// Serves scrapes until `drain` is cancelled.
///
/// # Errors
/// [`std::io::Error`] when the listener fails.
pub async fn serve(
    listener: TcpListener,
    metrics: Arc<Metrics>,
    stage: watch::Receiver<Stage>,
    data_dir: Arc<Path>,
    drain: CancellationToken,
) -> std::io::Result<()> {
    let site = Site { metrics, stage, data_dir, drain: drain.clone() };
    let router = Router::new()
        .route("/metrics", get(scrape))
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(ready))
        .with_state(site);
    axum::serve(listener, router).with_graceful_shutdown(async move { drain.cancelled().await }).await
}

async fn scrape(State(site): State<Site>) -> impl IntoResponse {
    let core = core(&site.stage);
    match site.metrics.text(core.as_deref()).await {
        Ok(text) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "metrics could not be read");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// Ready when the node is approved, not going down, and its disk has room: messages are accepted with broker and control plane away.
async fn ready(State(site): State<Site>) -> impl IntoResponse {
    if site.drain.is_cancelled() {
        (StatusCode::SERVICE_UNAVAILABLE, "draining")
    } else if core(&site.stage).is_none() {
        (StatusCode::SERVICE_UNAVAILABLE, "pending")
    } else if disk::left(&site.data_dir).is_ok_and(|left| left < disk::NEEDED_BYTES) {
        (StatusCode::SERVICE_UNAVAILABLE, "disk full")
    } else {
        (StatusCode::OK, "ready")
    }
}

fn core(stage: &watch::Receiver<Stage>) -> Option<Arc<Core>> {
    match &*stage.borrow() {
        Stage::Ready(core) => Some(Arc::clone(core)),
        Stage::Starting(_) | Stage::Pending(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn known_calls_are_counted_and_foreign_paths_are_no_labels() {
        let metrics = Metrics::default();
        metrics.called("/murmur.node.v1.MessageService/Send", "OK", Duration::from_millis(1));
        metrics.called("/../../etc/passwd", "OK", Duration::from_millis(1));
        let text = metrics.text(None).await.unwrap();
        let wanted = r#"murmur_node_rpc_calls_total{method="murmur.node.v1.MessageService/Send",code="OK"} 1"#;
        assert!(text.lines().any(|line| line == wanted), "{text}");
        assert!(!text.contains("passwd"));
    }
}
