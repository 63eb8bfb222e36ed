//! What every call passes: the caller's user, its protocol, who speaks, and what the contract demands of it.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures::{FutureExt as _, future::BoxFuture};
use http::{Request, Response};
use murmur_core::id::TokenId;
use murmur_proto::{access::scope_of, status::code_name, v1::Scope};
use tonic::{Code, Status, body::Body};
use tower::Service;

use super::{
    caller::{Caller, CallerError, Speaker, bearer, check_protocol, check_user, identify, spoken_for},
    connection::OtherEnd,
    lasting::{Lasting, Revocation},
    paths::Paths,
    peer::Peers,
    server::Shared,
    status::Refusal,
};
use crate::app::Stage;

/// Begins every path of the control plane's public services.
const CONTROL_PLANE: &str = "/murmur.v1.";
/// Whoever starts agents is one from then on.
const SPAWN: &str = "/murmur.v1.AgentService/SpawnAgent";
/// Tells how the node stands, at any time.
const HOST: &str = "/murmur.node.v1.HostService/";
/// How long a call waits for a node that starts. It takes longer only to look through a large store after a crash.
const START_MAX: Duration = Duration::from_secs(10);

/// The check in front of the services.
#[derive(Clone)]
pub(super) struct Door {
    paths: Paths,
    shared: Arc<Shared>,
    peers: Arc<Peers>,
    own_uid: u32,
}

impl Door {
    pub(super) fn new(paths: Paths, shared: Arc<Shared>) -> Self {
        let peers = Arc::new(Peers::new(&shared.data_dir));
        Self { paths, shared, peers, own_uid: nix::unistd::geteuid().as_raw() }
    }
}

impl Service<Request<Body>> for Door {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // The services are always ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let door = self.clone();
        Box::pin(async move {
            let began = Instant::now();
            let path = request.uri().path().to_owned();
            let metrics = Arc::clone(&door.shared.metrics);
            let answer = door.pass(request).await.unwrap_or_else(|status: Status| status.into_http());
            metrics.called(&path, grpc_code(&answer), began.elapsed());
            Ok(answer)
        })
    }
}

impl Door {
    async fn pass(mut self, mut request: Request<Body>) -> Result<Response<Body>, Status> {
        let refused = |error: CallerError| Status::from(Refusal::from(error));
        check_user(request.extensions().get::<OtherEnd>(), self.own_uid).map_err(refused)?;
        check_protocol(request.headers()).map_err(refused)?;
        let path = request.uri().path();
        self.check_process(path, &request).map_err(refused)?;
        if !path.starts_with(HOST) {
            self.wait_for_start().await;
        }
        if path.starts_with(CONTROL_PLANE) {
            let speaker = self.speaker(path, request.headers()).await?;
            let place = self.shared.forward.place(speaker)?;
            let answer = self.shared.forward.call(request, speaker).await?;
            let token = if let Speaker::Agent(_, token) = speaker { token } else { None };
            return Ok(self.lasting(answer, token, place));
        }
        let mut shown = None;
        if let Some(scope) = scope_of(path) {
            let caller = self.caller(scope, request.headers()).await?;
            shown = if let Caller::Agent(_, token) = &caller { Some(*token) } else { None };
            request.extensions_mut().insert(caller);
        }
        let answer = match self.paths.call(request).await {
            Ok(answer) => answer,
            Err(infallible) => match infallible {},
        };
        // Who shows no token has none that could be revoked.
        Ok(if shown.is_some() { self.lasting(answer, shown, ()) } else { answer })
    }

    /// An answer that ends with the token that it was asked for with, and holds a place until then.
    fn lasting<P>(&self, answer: Response<Body>, token: Option<TokenId>, place: P) -> Response<Body>
    where
        P: Send + Unpin + 'static,
    {
        let revocation = token.and_then(|token| self.revocation(token));
        answer.map(|body| Body::new(Lasting::new(body, revocation, place)))
    }

    /// What ends an answer that lasts longer than the token it was asked for with.
    fn revocation(&self, token: TokenId) -> Option<Revocation> {
        let Stage::Ready(core) = &*self.shared.stage.borrow() else { return None };
        let agents = Arc::clone(&core.agents);
        Some(Box::new(move || agents.until_revoked(token).boxed()))
    }

    /// A node that was just started again is not one that waits for its owner: callers need not know that it was away.
    async fn wait_for_start(&self) {
        if !matches!(*self.shared.stage.borrow(), Stage::Starting(_)) {
            return;
        }
        let mut stage = self.shared.stage.clone();
        let settled = stage.wait_for(|stage| !matches!(stage, Stage::Starting(_)));
        // What it is then is what the call is answered by.
        let _ = tokio::time::timeout(START_MAX, settled).await;
    }

    /// Refuses a process of an agent that does not show the agent's token: without one it would be the owner.
    fn check_process(&self, path: &str, request: &Request<Body>) -> Result<(), CallerError> {
        let needs_nobody = scope_of(path).is_none_or(|scope| scope == Scope::Public);
        if needs_nobody || request.headers().contains_key(http::header::AUTHORIZATION) {
            return Ok(());
        }
        let Some(end) = request.extensions().get::<OtherEnd>() else { return Ok(()) };
        // A process of another container has no number here.
        match end.cred.and_then(|cred| cred.pid()).filter(|pid| *pid > 0) {
            Some(pid) if end.is_agents(|| self.peers.is_agents(pid)) => {
                Err(CallerError::TokenRequired { slug: "the agent that this process belongs to".to_owned() })
            }
            _ => Ok(()),
        }
    }

    /// For whom a call to the control plane is made. A node that is not approved yet speaks for nobody.
    async fn speaker(&self, path: &str, headers: &http::HeaderMap) -> Result<Speaker, Status> {
        let core = match &*self.shared.stage.borrow() {
            Stage::Ready(core) if scope_of(path) != Some(Scope::Public) => Arc::clone(core),
            Stage::Ready(_) | Stage::Starting(_) | Stage::Pending(_) => return Ok(Speaker::Itself),
        };
        let may_register = path == SPAWN;
        let speaker = spoken_for(headers, self.shared.require_token, may_register, &core.agents, &core.identity).await;
        Ok(speaker?)
    }

    /// Who speaks, when the scope allows it.
    async fn caller(&self, scope: Scope, headers: &http::HeaderMap) -> Result<Caller, Status> {
        let core = match &*self.shared.stage.borrow() {
            Stage::Ready(core) => Some(Arc::clone(core)),
            Stage::Starting(_) | Stage::Pending(_) => None,
        };
        let caller = match core {
            Some(core) => identify(headers, &core.agents).await,
            // Nobody has a token before there are agents.
            None => bearer(headers).map(|_| Caller::User),
        };
        let caller = caller.map_err(Refusal::from)?;
        permit(scope, &caller, self.shared.require_token).map_err(Refusal::from)?;
        Ok(caller)
    }
}

/// Holds a caller to what the contract demands of an RPC of this socket.
fn permit(scope: Scope, caller: &Caller, require_token: bool) -> Result<(), CallerError> {
    match (scope, caller) {
        (Scope::LocalAgent, Caller::User) if require_token => {
            Err(CallerError::TokenRequired { slug: "every agent of this node".to_owned() })
        }
        _ => Ok(()),
    }
}

/// The gRPC code of an answer without a body, by name; whatever else begins is counted as OK.
fn grpc_code(answer: &Response<Body>) -> &'static str {
    code_name(Status::from_header_map(answer.headers()).map_or(Code::Ok, |status| status.code()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_require_token_only_reading_needs_none() {
        assert!(permit(Scope::LocalAgent, &Caller::User, true).is_err());
        assert!(permit(Scope::Local, &Caller::User, true).is_ok());
        assert!(permit(Scope::LocalAgent, &Caller::User, false).is_ok());
    }

    #[test]
    fn a_caller_that_the_kernel_does_not_name_is_refused() {
        let error = check_user(None, 7).unwrap_err();
        assert_eq!(error.to_string(), "the caller runs as user unknown, and this node serves user 7 alone");
    }

    #[test]
    fn another_protocol_is_refused_and_none_is_ours() {
        let headers = |value: &'static str| {
            let mut headers = http::HeaderMap::new();
            headers.insert(murmur_proto::client::PROTOCOL_HEADER, http::HeaderValue::from_static(value));
            headers
        };
        assert!(check_protocol(&http::HeaderMap::new()).is_ok());
        assert!(check_protocol(&headers("1")).is_ok());
        assert!(matches!(check_protocol(&headers("2")), Err(CallerError::Protocol { .. })));
    }
}
