//! Start and end of tracing in a process.

use std::{
    env,
    sync::atomic::{AtomicBool, Ordering},
};

use anyhow::Context as _;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use tracing::{Level, Metadata};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::{FilterExt, filter_fn},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

use crate::plain::Plain;

type BoxedLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// Whether this process exports spans.
static EXPORTING: AtomicBool = AtomicBool::new(false);

/// Whether spans are exported. Set once, by [`init`].
#[must_use]
pub fn is_exporting() -> bool {
    EXPORTING.load(Ordering::Relaxed)
}

/// A span of the hot path: of level `info` while spans are exported, and else of `debug`, which costs nothing unless somebody asks
/// for it in the log.
#[macro_export]
macro_rules! hot_span {
    ($($span:tt)*) => {
        if $crate::is_exporting() { ::tracing::info_span!($($span)*) } else { ::tracing::debug_span!($($span)*) }
    };
}

/// Keeps the exporter alive; [`Guard::shutdown`] sends what is left.
#[must_use = "spans that are still queued are lost without a shutdown"]
#[derive(Debug)]
pub struct Guard {
    provider: Option<SdkTracerProvider>,
}

impl Guard {
    /// Exports what is queued. Call it last in `main`, inside the runtime.
    pub async fn shutdown(self) {
        if let Some(provider) = self.provider {
            // The exporter blocks its thread on work that this runtime drives.
            let _ = tokio::task::spawn_blocking(move || provider.shutdown()).await;
        }
    }
}

/// Installs the process-wide subscriber: logs to standard error at `default_level` and above, and spans to the OTLP endpoint that
/// the environment names, if any. Call it once, inside a tokio runtime.
///
/// # Errors
/// When `MURMUR_LOG` is no filter, the exporter cannot be built, or a subscriber is installed already.
pub fn init(service: &'static str, default_level: &str) -> anyhow::Result<Guard> {
    let provider = exports_traces().then(|| provider(service)).transpose()?;
    let mut layers: Vec<BoxedLayer> = vec![log_layer(default_level)?];
    if let Some(provider) = &provider {
        // The transport's own spans would describe the export of spans, for ever.
        let quiet = EnvFilter::try_new(
            "info,h2=off,tonic=off,hyper=off,hyper_util=off,tower=off,opentelemetry=off,opentelemetry_sdk=off,opentelemetry_otlp=off,async_nats=off",
        )?;
        layers.push(tracing_opentelemetry::layer().with_tracer(provider.tracer(service)).with_filter(quiet).boxed());
    }
    tracing_subscriber::registry().with(layers).try_init().context("tracing is installed already")?;
    EXPORTING.store(provider.is_some(), Ordering::Relaxed);
    Ok(Guard { provider })
}

fn exports_traces() -> bool {
    let set = |name| env::var(name).is_ok_and(|value: String| !value.is_empty());
    let is = |name, wanted| env::var(name).is_ok_and(|value: String| value.eq_ignore_ascii_case(wanted));
    (set("OTEL_EXPORTER_OTLP_ENDPOINT") || set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"))
        && !is("OTEL_SDK_DISABLED", "true")
        && !is("OTEL_TRACES_EXPORTER", "none")
}

fn provider(service: &'static str) -> anyhow::Result<SdkTracerProvider> {
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_tonic()
        .build()
        .context("cannot build the OTLP exporter from the OTEL_* environment")?;
    let mut resource = Resource::builder();
    if env::var_os("OTEL_SERVICE_NAME").is_none() {
        resource = resource.with_service_name(service);
    }
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build()).build())
}

fn log_layer(default_level: &str) -> anyhow::Result<BoxedLayer> {
    let filter = match env::var("MURMUR_LOG") {
        Ok(text) if !text.is_empty() => {
            EnvFilter::try_new(&text).with_context(|| format!("MURMUR_LOG: `{text}` is no log filter"))?
        }
        _ => EnvFilter::try_new(default_level)?,
    };
    let filter = filter.and(filter_fn(keeps_bodies_out));
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    Ok(if env::var("MURMUR_LOG_FORMAT").is_ok_and(|format| format == "json") {
        layer.json().with_filter(filter).boxed()
    } else {
        layer.with_ansi(false).with_writer(|| Plain(std::io::stderr())).with_filter(filter).boxed()
    })
}

/// The MCP library logs whole messages below `info`; no setting may bring a body into a log.
fn keeps_bodies_out(metadata: &Metadata<'_>) -> bool {
    !metadata.target().starts_with("rmcp") || *metadata.level() <= Level::INFO
}
