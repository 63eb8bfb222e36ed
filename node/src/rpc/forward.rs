//! The control plane's own services on this socket (DESIGN §3, ADR 11).
//!
//! This node knows its callers and the control plane does not: an agent's token is this node's own, and a person at the socket has none.
//! So a call goes out with the node's token and the name of whom it is made for. A caller with a token of the control plane's speaks for
//! itself. What callers themselves write into the headers by which nodes are told apart never leaves.

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, header::AUTHORIZATION};
use murmur_core::{
    id::{Incarnation, NodeId},
    reason::Reason,
};
use murmur_proto::{
    client::{AGENT_HEADER, AS_HEADER, INCARNATION_HEADER},
    status::status,
};
use tonic::{Status, body::Body, transport::Channel};
use tower::{Service as _, ServiceExt as _};
use tracing::debug;

use super::{
    caller::Speaker,
    places::{Place, Places},
};

/// Names the forwarding node.
const NODE_HEADER: HeaderName = HeaderName::from_static("murmur-node");
/// What no caller says for itself.
const OURS: [HeaderName; 4] = [
    NODE_HEADER,
    HeaderName::from_static(AS_HEADER),
    HeaderName::from_static(INCARNATION_HEADER),
    HeaderName::from_static(AGENT_HEADER),
];

/// The way to the control plane.
#[derive(Debug, Default)]
pub struct Forward {
    channel: OnceLock<Channel>,
    node: OnceLock<HeaderValue>,
    credential: ArcSwapOption<Credential>,
    places: Arc<Places>,
}

/// What the node proves itself with.
#[derive(Debug)]
struct Credential {
    authorization: HeaderValue,
    incarnation: HeaderValue,
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

    /// Says what the node speaks for others with from now on.
    pub fn set_credential(&self, token: &str, incarnation: Incarnation) {
        let authorization = HeaderValue::from_str(&format!("Bearer {token}"));
        if let (Ok(mut authorization), Ok(incarnation)) =
            (authorization, HeaderValue::from_str(&incarnation.to_string()))
        {
            authorization.set_sensitive(true);
            self.credential.store(Some(Arc::new(Credential { authorization, incarnation })));
        }
    }

    /// A place for a call, to be held for as long as its answer lasts.
    pub(super) fn place(&self, speaker: Speaker) -> Result<Place, Status> {
        self.places.take(match speaker {
            Speaker::Agent(id, _) => Some(id),
            Speaker::Itself | Speaker::User => None,
        })
    }

    /// Forwards a call for somebody, body and trailers untouched.
    pub(super) async fn call(&self, mut request: Request<Body>, speaker: Speaker) -> Result<Response<Body>, Status> {
        let unknown = || down("this node does not know a control plane yet");
        let Some(channel) = self.channel.get() else { return Err(unknown()) };
        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = path.map(http::Uri::from).unwrap_or_default();
        let headers = request.headers_mut();
        headers.remove(http::header::HOST);
        self.sign(headers, speaker).ok_or_else(unknown)?;
        if let Some(trace) = murmur_telemetry::current_traceparent().and_then(|text| HeaderValue::from_str(&text).ok())
        {
            headers.insert(HeaderName::from_static(murmur_telemetry::context::TRACEPARENT), trace);
        }
        let mut channel = channel.clone();
        let ready = channel.ready().await.map_err(|error| unreachable(&error))?;
        ready.call(request).await.map_err(|error| unreachable(&error))
    }

    /// Takes out what the caller must not say, and puts in for whom the call is made; `None` while the node has no credential.
    fn sign(&self, headers: &mut HeaderMap, speaker: Speaker) -> Option<()> {
        for name in &OURS {
            headers.remove(name);
        }
        if let Some(node) = self.node.get() {
            headers.insert(NODE_HEADER, node.clone());
        }
        let named = match speaker {
            Speaker::Itself => return Some(()),
            Speaker::User => HeaderValue::from_static("user"),
            Speaker::Agent(id, _) => HeaderValue::from_str(&format!("agent:{id}")).ok()?,
        };
        let credential = self.credential.load_full()?;
        let Credential { authorization, incarnation } = &*credential;
        // `insert` replaces every value that the caller gave.
        headers.insert(AUTHORIZATION, authorization.clone());
        headers.insert(HeaderName::from_static(INCARNATION_HEADER), incarnation.clone());
        headers.insert(HeaderName::from_static(AS_HEADER), named);
        Some(())
    }
}

fn unreachable(error: &tonic::transport::Error) -> Status {
    debug!(%error, "a call could not be forwarded");
    down("the control plane cannot be reached")
}

fn down(text: &str) -> Status {
    status(Reason::ControlPlaneDown, text)
}

#[cfg(test)]
mod tests {
    use murmur_core::id::AgentId;

    use super::*;

    fn forward() -> Forward {
        let forward = Forward::default();
        forward.set_node(NodeId::from_bytes([1; 16]));
        forward.set_credential("node-token", Incarnation::from_bytes([2; 16]));
        forward
    }

    fn hostile() -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("authorization", "Bearer theirs"),
            ("murmur-as", "agent:00000000-0000-0000-0000-000000000000"),
            ("murmur-as", "user"),
            ("murmur-node", "another"),
            ("murmur-incarnation", "another"),
            ("murmur-agent", "alice"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        headers
    }

    fn all<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
        headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
    }

    #[test]
    fn what_a_caller_says_of_itself_never_leaves() {
        let mut headers = hostile();
        let agent = AgentId::from_bytes([7; 16]);
        forward().sign(&mut headers, Speaker::Agent(agent, None)).unwrap();
        assert_eq!(all(&headers, "murmur-as"), [format!("agent:{agent}")]);
        assert_eq!(all(&headers, "authorization"), ["Bearer node-token"]);
        assert_eq!(all(&headers, "murmur-node"), [NodeId::from_bytes([1; 16]).to_string()]);
        assert_eq!(all(&headers, "murmur-incarnation"), [Incarnation::from_bytes([2; 16]).to_string()]);
        assert!(all(&headers, "murmur-agent").is_empty());
    }

    #[test]
    fn a_token_of_the_control_planes_speaks_for_itself_alone() {
        let mut headers = hostile();
        forward().sign(&mut headers, Speaker::Itself).unwrap();
        assert_eq!(all(&headers, "authorization"), ["Bearer theirs"]);
        assert!(["murmur-as", "murmur-incarnation", "murmur-agent"].iter().all(|name| all(&headers, name).is_empty()));
    }

    #[test]
    fn a_node_without_a_credential_speaks_for_nobody() {
        assert!(Forward::default().sign(&mut HeaderMap::new(), Speaker::User).is_none());
    }
}
