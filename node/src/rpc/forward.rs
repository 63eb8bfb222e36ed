//! The control plane's own services on this socket: forwarded with the caller's credential and nothing decided here (DESIGN §3).

use std::sync::OnceLock;

use http::{HeaderName, HeaderValue, Request, Response};
use murmur_core::{id::NodeId, reason::Reason};
use murmur_proto::status::status;
use tonic::{Status, body::Body, transport::Channel};
use tower::{Service as _, ServiceExt as _};
use tracing::debug;

/// Names the forwarding node.
const NODE_HEADER: HeaderName = HeaderName::from_static("murmur-node");

/// The way to the control plane.
#[derive(Debug, Default)]
pub struct Forward {
    channel: OnceLock<Channel>,
    node: OnceLock<HeaderValue>,
}

impl Forward {
    /// Says where the control plane is. Only the first call counts.
    pub fn set_channel(&self, channel: Channel) {
        let _ = self.channel.set(channel);
    }

    /// Says which node forwards. Only the first call counts.
    pub fn set_node(&self, node: NodeId) {
        if let Ok(value) = HeaderValue::from_str(&node.to_string()) {
            let _ = self.node.set(value);
        }
    }

    /// Forwards a call, body and trailers untouched.
    pub(super) async fn call(&self, mut request: Request<Body>) -> Result<Response<Body>, Status> {
        let Some(channel) = self.channel.get() else { return Err(down("this node does not know a control plane yet")) };
        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = path.map(http::Uri::from).unwrap_or_default();
        let headers = request.headers_mut();
        headers.remove(http::header::HOST);
        headers.remove(NODE_HEADER);
        if let Some(node) = self.node.get() {
            headers.insert(NODE_HEADER, node.clone());
        }
        if let Some(trace) = murmur_telemetry::current_traceparent().and_then(|text| HeaderValue::from_str(&text).ok())
        {
            headers.insert(HeaderName::from_static(murmur_telemetry::context::TRACEPARENT), trace);
        }
        let mut channel = channel.clone();
        let ready = channel.ready().await.map_err(|error| unreachable(&error))?;
        ready.call(request).await.map_err(|error| unreachable(&error))
    }
}

fn unreachable(error: &tonic::transport::Error) -> Status {
    debug!(%error, "a call could not be forwarded");
    down("the control plane cannot be reached")
}

fn down(text: &str) -> Status {
    status(Reason::ControlPlaneDown, text)
}
