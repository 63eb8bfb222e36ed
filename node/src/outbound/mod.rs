//! Calls to services outside of the workspace (PROTOCOL §6.7): a place that somebody wrote into a configuration must not become a way into
//! this host's network.
//!
//! Only `https` on listed ports; no addresses in place of names, no redirects, no proxies from the environment. A name is resolved once;
//! if any of its addresses is not a public one the call is refused, and else one of just these addresses is connected to. Time and the
//! answer's size are bounded. Errors name the host and never the path, where some services carry their token.

mod address;
mod connect;
mod place;

use std::{ops::ControlFlow, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;

pub use address::is_public;
pub use connect::TlsError;
pub use place::{Place, Refused};

/// Bytes of an answer that are read; the rest is left.
pub const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// How long resolving, connecting and the handshake may take together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an ordinary call may take.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Where calls may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Ports that may be called.
    pub ports: Vec<u16>,
    /// Servers of this host and its networks may be called, by address, on any port, without TLS.
    pub allow_local: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self { ports: vec![443], allow_local: false }
    }
}

/// Why a call came to nothing. Nothing of what was sent, nor of the path, stands in it.
#[derive(Debug, thiserror::Error)]
pub enum OutboundError {
    /// The rules forbid the place.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The name has no address.
    #[error("the name {host} cannot be resolved")]
    Resolve {
        /// The host.
        host: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The name leads into a private network.
    #[error("{host} has an address that is not public; allow_local lets it be called")]
    NotPublic {
        /// The host.
        host: String,
    },
    /// It cannot be spoken with: its certificate is not the one, or the connection broke.
    #[error("{host} cannot be connected to")]
    Connect {
        /// The host.
        host: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Nobody listens there, or the way is closed: nothing was sent.
    #[error("{host} cannot be connected to")]
    Unreached {
        /// The host.
        host: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It took too long.
    #[error("{host} took too long")]
    Timeout {
        /// The host.
        host: String,
    },
    /// It does not speak HTTP, or broke off.
    #[error("the conversation with {host} broke off")]
    Broken {
        /// The host.
        host: String,
    },
    /// A header value that none can carry.
    #[error("a header for {host} has characters that none can carry")]
    Header {
        /// The host.
        host: String,
    },
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// As much of its body as is read.
    pub body: Vec<u8>,
}

impl Answer {
    /// A header's text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// How an answer begins.
#[derive(Debug)]
pub struct Head {
    /// Its status.
    pub status: u16,
    headers: HeaderMap,
}

impl Head {
    /// A header's text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// A call to make.
pub struct Call<'a> {
    /// Where to.
    pub place: &'a Place,
    /// Beside those that every call has.
    pub headers: Vec<(&'static str, String)>,
    /// A JSON text.
    pub body: Vec<u8>,
    /// How long all of it may take.
    pub timeout: Duration,
}

/// The one that calls.
#[derive(Clone)]
pub struct Outbound {
    rules: Rules,
    tls: Arc<ClientConfig>,
}

impl Outbound {
    /// Calls by these rules; `ca_pem` is trusted beside the system's authorities.
    ///
    /// # Errors
    /// When `ca_pem` holds no certificate.
    pub fn new(rules: Rules, ca_pem: Option<&str>) -> Result<Self, TlsError> {
        Ok(Self { rules, tls: Arc::new(connect::tls(ca_pem)?) })
    }

    /// The rules.
    #[must_use]
    pub const fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Posts, and reads the answer.
    ///
    /// # Errors
    /// [`OutboundError`].
    pub async fn post(&self, call: Call<'_>) -> Result<Answer, OutboundError> {
        let mut body = Vec::new();
        let head = self.exchange(call, HeaderMap::new(), |_, piece| {
            body.extend_from_slice(piece);
            if body.len() < ANSWER_BYTES_MAX { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        let Head { status, headers } = head.await?;
        body.truncate(ANSWER_BYTES_MAX);
        Ok(Answer { status, headers, body })
    }

    /// Posts with more headers, and hands on the body of the answer as it comes, for as long as it is wanted. Returns how the answer began.
    ///
    /// # Errors
    /// [`OutboundError`].
    pub async fn post_heard(
        &self,
        call: Call<'_>,
        more: HeaderMap,
        hear: impl FnMut(&Head, &[u8]) -> ControlFlow<()>,
    ) -> Result<Head, OutboundError> {
        self.exchange(call, more, hear).await
    }

    async fn exchange(
        &self,
        call: Call<'_>,
        more: HeaderMap,
        hear: impl FnMut(&Head, &[u8]) -> ControlFlow<()>,
    ) -> Result<Head, OutboundError> {
        let (host, timeout) = (call.place.host().to_owned(), call.timeout);
        let done = tokio::time::timeout(timeout, self.talk(call, more, hear)).await;
        done.map_err(|_| OutboundError::Timeout { host })?
    }

    async fn talk(
        &self,
        call: Call<'_>,
        more: HeaderMap,
        mut hear: impl FnMut(&Head, &[u8]) -> ControlFlow<()>,
    ) -> Result<Head, OutboundError> {
        let Call { place, headers, body, timeout: _ } = call;
        place.check(&self.rules)?;
        let host = || place.host().to_owned();
        let broken = |_| OutboundError::Broken { host: host() };
        let stream = connect::connect(place, &self.rules, &self.tls, CONNECT_TIMEOUT).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let mut request = request(place, headers, body)?;
        request.headers_mut().extend(more);
        let talk = async {
            let answer = sender.send_request(request).await.map_err(broken)?;
            let (head, mut body) = answer.into_parts();
            let head = Head { status: head.status.as_u16(), headers: head.headers };
            while let Some(frame) = body.frame().await {
                let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
                if hear(&head, &data).is_break() {
                    break;
                }
            }
            Ok(head)
        };
        // The connection lives as long as the conversation and not a moment longer.
        let drive = async {
            // How it ended shows in the conversation.
            drop(connection.await);
            std::future::pending::<()>().await;
        };
        tokio::select! {
            answer = talk => answer,
            () = drive => Err(OutboundError::Broken { host: host() }),
        }
    }
}

fn request(
    place: &Place,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
) -> Result<Request<Full<bytes::Bytes>>, OutboundError> {
    let refused = || OutboundError::Header { host: place.host().to_owned() };
    let mut request = Request::new(Full::new(body.into()));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = place.target();
    let mut put = |name: HeaderName, value: &str| -> Result<(), OutboundError> {
        let mut value = HeaderValue::from_str(value).map_err(|_| refused())?;
        value.set_sensitive(true);
        request.headers_mut().insert(name, value);
        Ok(())
    };
    put(header::HOST, &place.authority())?;
    put(header::CONTENT_TYPE, "application/json")?;
    put(header::USER_AGENT, concat!("murmur/", env!("CARGO_PKG_VERSION")))?;
    for (name, value) in headers {
        put(HeaderName::from_static(name), &value)?;
    }
    Ok(request)
}

#[cfg(test)]
mod tests;
