//! Which service a path is of.

use std::convert::Infallible;

use http::{Request, Response};
use murmur_proto::node::v1::message_service_server::{self, MessageServiceServer};
use tonic::{body::Body, service::Routes};
use tower::Service as _;

use super::message::Messages;

/// The services of the socket. Most calls are about messages: they are answered without the router, which costs more than everything else
/// that stands before a service.
#[derive(Clone)]
pub(super) struct Paths {
    messages: MessageServiceServer<Messages>,
    rest: Routes,
}

impl Paths {
    /// `rest` is every service but that of messages.
    pub(super) const fn new(messages: MessageServiceServer<Messages>, rest: Routes) -> Self {
        Self { messages, rest }
    }

    /// Answers a call. All services are always ready.
    pub(super) async fn call(&mut self, request: Request<Body>) -> Result<Response<Body>, Infallible> {
        if is_of(request.uri().path(), message_service_server::SERVICE_NAME) {
            self.messages.call(request).await
        } else {
            self.rest.call(request).await
        }
    }
}

/// Whether a path is `/service/method`.
fn is_of(path: &str, service: &str) -> bool {
    path.strip_prefix('/').and_then(|path| path.strip_prefix(service)).is_some_and(|rest| rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_of_the_service_that_it_begins_with() {
        assert!(is_of("/a.v1.B/Do", "a.v1.B"));
        for other in ["/a.v1.Bc/Do", "/a.v1.B", "a.v1.B/Do", "/x/a.v1.B/Do", "", "/"] {
            assert!(!is_of(other, "a.v1.B"), "{other}");
        }
    }
}
