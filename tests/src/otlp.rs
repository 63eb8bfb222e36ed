//! An OTLP collector in this process, to see the spans that the binaries really send.

use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::any_value::Value,
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

/// A span as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// `service.name` of the process.
    pub service: String,
    /// Name.
    pub name: String,
    /// Hex.
    pub trace_id: String,
    /// Hex.
    pub span_id: String,
    /// Hex; empty for a root.
    pub parent_id: String,
}

/// A running collector.
pub struct Collector {
    /// For `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub endpoint: String,
    spans: Arc<Mutex<Vec<Span>>>,
    heard: Arc<Mutex<String>>,
    task: tokio::task::JoinHandle<()>,
}

impl Collector {
    /// What makes a program send it spans, soon.
    #[must_use]
    pub fn env(&self) -> Vec<(String, String)> {
        let delay = ("OTEL_BSP_SCHEDULE_DELAY".to_owned(), "50".to_owned());
        vec![("OTEL_EXPORTER_OTLP_ENDPOINT".to_owned(), self.endpoint.clone()), delay]
    }

    /// Starts one on a port of its own.
    ///
    /// # Panics
    /// When no port is free.
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (spans, heard) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(String::new())));
        let service = TraceServiceServer::new(Sink { spans: spans.clone(), heard: heard.clone() });
        let task = tokio::spawn(async move {
            let incoming = TcpListenerStream::new(listener);
            tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming).await.unwrap();
        });
        Self { endpoint, spans, heard, task }
    }

    /// Everything that has arrived.
    ///
    /// # Panics
    /// When a test thread panicked while holding the lock.
    #[must_use]
    pub fn spans(&self) -> Vec<Span> {
        self.spans.lock().unwrap().clone()
    }

    /// Every name, attribute and event that has arrived, as text.
    ///
    /// # Panics
    /// When a test thread panicked while holding the lock.
    #[must_use]
    pub fn heard(&self) -> String {
        self.heard.lock().unwrap().clone()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Sink {
    spans: Arc<Mutex<Vec<Span>>>,
    heard: Arc<Mutex<String>>,
}

#[tonic::async_trait]
impl TraceService for Sink {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.heard.lock().unwrap().push_str(&format!("{:?}\n", request.get_ref()));
        let mut spans = self.spans.lock().unwrap();
        for resource in request.into_inner().resource_spans {
            let service = service_name(resource.resource.as_ref());
            spans.extend(resource.scope_spans.into_iter().flat_map(|scope| scope.spans).map(|span| Span {
                service: service.clone(),
                name: span.name,
                trace_id: hex::encode(span.trace_id),
                span_id: hex::encode(span.span_id),
                parent_id: hex::encode(span.parent_span_id),
            }));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn service_name(resource: Option<&opentelemetry_proto::tonic::resource::v1::Resource>) -> String {
    let attribute = resource.and_then(|resource| resource.attributes.iter().find(|kv| kv.key == "service.name"));
    match attribute.and_then(|kv| kv.value.as_ref()).and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(name)) => name.clone(),
        _ => String::new(),
    }
}
