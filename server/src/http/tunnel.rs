//! Visits to a tunnel: a proxy that reads a request, writes it anew to the port, and brings the answer back (docs/adr/0014).
//!
//! Both sides are read and written by hyper, so that what the visitor wrote is never passed on as bytes: where one message ends and the next
//! begins is decided once. Each visit has a connection of its own, which ends with it.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{
    HeaderName, HeaderValue, Method, StatusCode, Uri, Version,
    header::{
        CACHE_CONTROL, CONTENT_SECURITY_POLICY, COOKIE, HOST, LOCATION, REFERRER_POLICY, RETRY_AFTER, SET_COOKIE,
    },
};
use hyper::{client::conn::http1, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use tokio_util::sync::CancellationToken;

use super::hop;
use crate::{
    lifecycle::Lifecycle,
    links::LinkKey,
    rpc::gate::Peer,
    tunnels::{DialError, Tunnels},
};

/// How long a program may take until it begins to answer.
const ANSWER_MAX: Duration = Duration::from_secs(300);
const PATH: &str = "/t/";
const SANDBOX: &str = "sandbox allow-downloads allow-forms allow-modals allow-popups allow-scripts";

/// What visits need.
pub(crate) struct Door {
    pub(crate) tunnels: Arc<Tunnels>,
    pub(crate) lifecycle: Lifecycle,
}

/// How a visitor named a tunnel.
struct Visit {
    key: LinkKey,
    host: String,
    /// By a path of the control plane's own host, which all such tunnels share.
    by_path: bool,
}

/// What goes to a tunnel goes no further.
pub(crate) async fn proxy(State(door): State<Arc<Door>>, mut request: Request, next: Next) -> Response {
    match door.visit(&mut request) {
        Ok(None) => next.run(request).await,
        Ok(Some(visit)) => door.pass(visit, request).await,
        Err(refused) => refused.into_response(),
    }
}

impl Door {
    /// Which tunnel is visited, if any.
    fn visit(&self, request: &mut Request) -> Result<Option<Visit>, (StatusCode, &'static str)> {
        let named: Vec<&str> = request
            .uri()
            .authority()
            .map(http::uri::Authority::as_str)
            .into_iter()
            .chain(request.headers().get_all(HOST).iter().map(|value| value.to_str().unwrap_or_default()))
            .collect();
        let public = self.tunnels.public();
        let gone = (StatusCode::NOT_FOUND, "there is no such tunnel, or its agent has ended\n");
        if let Some(host) = named.iter().find(|host| public.tunnel_of(host).is_some()) {
            // Two that differ would be understood one way here and another way behind.
            if named.iter().any(|other| !other.eq_ignore_ascii_case(host)) {
                return Err((StatusCode::BAD_REQUEST, "the request names two hosts\n"));
            }
            let key = public.tunnel_of(host).and_then(Result::ok).ok_or(gone)?;
            return Ok(Some(Visit { key, host: (*host).to_owned(), by_path: false }));
        }
        let Some(rest) = request.uri().path().strip_prefix(PATH).filter(|_| !public.has_tunnel_domain()) else {
            return Ok(None);
        };
        let (key, path) = rest.split_once('/').unwrap_or((rest, ""));
        let key: LinkKey = key.parse().map_err(|_| gone)?;
        let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
        let path = format!("/{path}{query}").parse::<Uri>();
        let host = named.first().copied().unwrap_or_default().to_owned();
        *request.uri_mut() = path.map_err(|_| (StatusCode::BAD_REQUEST, "the path cannot be read\n"))?;
        Ok(Some(Visit { key, host, by_path: true }))
    }

    async fn pass(&self, visit: Visit, mut request: Request) -> Response {
        if request.method() == Method::CONNECT {
            return (StatusCode::METHOD_NOT_ALLOWED, "a tunnel is no proxy\n").into_response();
        }
        let line = match self.tunnels.dial(visit.key).await {
            Ok(line) => line,
            Err(error) => return refusal(&error),
        };
        let is_websocket = request.method() == Method::GET
            && request.version() == Version::HTTP_11
            && hop::wants_websocket(request.headers());
        let visitor = is_websocket.then(|| hyper::upgrade::on(&mut request));
        self.prepare(&visit, &mut request, is_websocket);
        let closed = line.closed.clone();
        let Ok((mut sender, connection)) = http1::handshake(TokioIo::new(line)).await else {
            return (StatusCode::BAD_GATEWAY, "the connection to the port broke\n").into_response();
        };
        let (ended, lifecycle) = (closed.clone(), self.lifecycle.clone());
        self.lifecycle.spawn(async move {
            tokio::select! {
                over = connection.with_upgrades() => if let Err(error) = over {
                    tracing::debug!(error = &error as &dyn std::error::Error, "a visit to a tunnel ended early");
                },
                () = ended.cancelled() => {}
                () = lifecycle.draining() => {}
            }
        });
        let answer = tokio::select! {
            answer = tokio::time::timeout(ANSWER_MAX, sender.send_request(request)) => answer,
            () = closed.cancelled() => return refusal(&DialError::NotFound),
        };
        match answer {
            Ok(Ok(answer)) => self.answer(&visit, answer, visitor, closed),
            Ok(Err(error)) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "a port behind a tunnel gave no answer");
                (StatusCode::BAD_GATEWAY, "what listens on the port gave no answer that can be read\n").into_response()
            }
            Err(_) => {
                (StatusCode::GATEWAY_TIMEOUT, "what listens on the port did not answer in time\n").into_response()
            }
        }
    }

    /// Makes the request that goes on of the one that came.
    fn prepare(&self, visit: &Visit, request: &mut Request, is_websocket: bool) {
        let peer = request.extensions().get::<Peer>().map(|peer| peer.0.ip().to_string());
        // In the form that a server expects; where it goes is settled.
        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = path.map(Uri::from).unwrap_or_default();
        *request.version_mut() = Version::HTTP_11;
        let headers = request.headers_mut();
        hop::strip(headers, is_websocket);
        hop::introduce(headers, peer, &visit.host, self.tunnels.public().scheme());
        hop::join_cookies(headers);
        if visit.by_path {
            // They are of the control plane's own host, or of another tunnel's.
            headers.remove(COOKIE);
        }
        if let Ok(host) = HeaderValue::from_str(&visit.host) {
            headers.insert(HOST, host);
        }
    }

    fn answer(
        &self,
        visit: &Visit,
        mut answer: http::Response<hyper::body::Incoming>,
        visitor: Option<OnUpgrade>,
        closed: CancellationToken,
    ) -> Response {
        // Whatever the port speaks, this connection is the visitor's.
        *answer.version_mut() = Version::HTTP_11;
        let is_changed = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
        if is_changed {
            let Some(visitor) = visitor.filter(|_| hop::wants_websocket(answer.headers())) else {
                return (StatusCode::BAD_GATEWAY, "what listens on the port changed the protocol unasked\n")
                    .into_response();
            };
            self.join(visitor, hyper::upgrade::on(&mut answer), closed);
        }
        let headers = answer.headers_mut();
        hop::strip(headers, is_changed);
        hop::narrow_cookies(headers);
        // The host is the secret: links to elsewhere must not tell it.
        headers.entry(REFERRER_POLICY).or_insert(HeaderValue::from_static("same-origin"));
        headers.insert(HeaderName::from_static("x-robots-tag"), HeaderValue::from_static("noindex"));
        if visit.by_path {
            headers.remove(SET_COOKIE);
            // A page of its own, though its host is shared.
            headers.append(CONTENT_SECURITY_POLICY, HeaderValue::from_static(SANDBOX));
            let place = headers.get(LOCATION).and_then(|value| value.to_str().ok());
            let place = place.filter(|text| text.starts_with('/') && !text.starts_with("//"));
            let moved = place.and_then(|text| HeaderValue::from_str(&format!("{PATH}{}{text}", visit.key)).ok());
            if let Some(moved) = moved {
                headers.insert(LOCATION, moved);
            }
        }
        answer.map(Body::new)
    }

    /// Joins two connections that go on as WebSocket, until one of them ends.
    fn join(&self, visitor: OnUpgrade, port: OnUpgrade, closed: CancellationToken) {
        let lifecycle = self.lifecycle.clone();
        self.lifecycle.spawn(async move {
            let carried = async {
                let (visitor, port) = tokio::try_join!(visitor, port).map_err(std::io::Error::other)?;
                tokio::io::copy_bidirectional(&mut TokioIo::new(visitor), &mut TokioIo::new(port)).await
            };
            tokio::select! {
                over = carried => if let Err(error) = over {
                    tracing::debug!(error = &error as &dyn std::error::Error, "a WebSocket through a tunnel broke");
                },
                () = closed.cancelled() => {}
                () = lifecycle.draining() => {}
            }
        });
    }
}

fn refusal(error: &DialError) -> Response {
    let status = match error {
        DialError::NotFound => StatusCode::NOT_FOUND,
        DialError::Busy | DialError::Offline => StatusCode::SERVICE_UNAVAILABLE,
        DialError::Refused(_) => StatusCode::BAD_GATEWAY,
        DialError::Silent => StatusCode::GATEWAY_TIMEOUT,
        DialError::Db(_) | DialError::Random(_) => {
            tracing::error!(error = error as &dyn std::error::Error, "a tunnel could not be dialled");
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        }
    };
    let mut response = (status, [(CACHE_CONTROL, "no-store")], format!("{error}\n")).into_response();
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}
