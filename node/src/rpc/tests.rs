//! The socket as a local program sees it: a real store and real sessions behind it, the control plane away.

use std::sync::Arc;

use murmur_core::{
    id::AgentId,
    reason::Reason,
    token::{Token, TokenKind},
};
use murmur_proto::{
    client::{ControlClient, Headers, NodeClient, connect_socket},
    node::v1::{self, attach_response::Item},
    status::RpcError,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status, Streaming};

use super::{
    control::{self, Control},
    server::{Copies, Services, Shared},
    socket,
};
use crate::tunnel::{TunnelConfig, Tunnels};
use crate::{
    agents::Agents,
    app::{Core, Pending, Stage},
    bus::{Bus, BusConfig},
    clock::Clock,
    directory::{Batch, Change, Directory},
    events::Events,
    identity::IdentityDir,
    keys::Keys,
    notify::{Notify, NotifyConfig},
    permission::{self, Permissions},
    post::{
        Post, PostConfig,
        testing::{node_identity, slug},
    },
    session::Sessions,
    store::{Store, StoreOptions, agents::AgentRow},
};

/// A node on a socket, with the interactive agents `alice` and `bob` and the spawned agent `worker`.
pub(super) struct Door {
    home: tempfile::TempDir,
    pub(super) core: Arc<Core>,
    stage: watch::Sender<Stage>,
    pub(super) drain: CancellationToken,
    forward: Arc<super::forward::Forward>,
    _socket: socket::Socket,
}

impl Door {
    pub(super) async fn open() -> Self {
        Self::with(false).await
    }

    pub(super) async fn with(require_token: bool) -> Self {
        let home = tempfile::tempdir().unwrap();
        let core = core(&home).await;
        let stage = watch::Sender::new(Stage::Ready(core.clone()));
        let drain = CancellationToken::new();
        let forward = Arc::<super::forward::Forward>::default();
        let shared = Shared {
            stage: stage.subscribe(),
            drain: drain.clone(),
            metrics: Arc::default(),
            forward: forward.clone(),
            clients: Arc::default(),
            require_token,
            data_dir: home.path().to_owned(),
            started_ms: 1,
            clock: Clock::system(),
            copies: Copies::default(),
        };
        let (socket, listener) = socket::listen(&home.path().join("node.sock")).await.unwrap();
        let services = Services::new(Arc::new(shared)).await.unwrap();
        tokio::spawn(async move { services.serve(listener).await.unwrap() });
        Self { home, core, stage, drain, forward, _socket: socket }
    }

    async fn client(&self, headers: Headers) -> NodeClient {
        let channel = connect_socket(&self.home.path().join("node.sock")).await.unwrap();
        NodeClient::new(channel, headers)
    }

    pub(super) async fn user(&self) -> NodeClient {
        self.client(Headers::new()).await
    }

    pub(super) async fn with_token(&self, token: &str) -> NodeClient {
        self.client(Headers::new().with_token(token).unwrap()).await
    }

    /// A token of one of the node's agents.
    pub(super) async fn token(&self, name: &str) -> String {
        let agent = self.core.agents.by_slug(&slug(name)).unwrap();
        self.core.agents.issue_token(agent.agent_id).await.unwrap().expose().to_string()
    }
}

async fn core(home: &tempfile::TempDir) -> Arc<Core> {
    let clock = Clock::system();
    let options = StoreOptions { readers: 1, pages_max: None, now_ms: clock.now_ms() };
    let store = Store::open(&home.path().join("store.db"), &options).unwrap();
    for (number, name, kind) in [(1, "alice", 1), (2, "bob", 1), (3, "worker", 2)] {
        let row = AgentRow {
            agent_id: AgentId::from_bytes([number; 16]),
            slug: slug(name),
            kind,
            description: String::new(),
            group: String::new(),
            created_ms: 1,
            deregistered_ms: None,
        };
        store.write(move |tx| crate::store::agents::save(tx, &row)).await.unwrap();
    }
    let identity = node_identity(1, clock.now_ms());
    let directory = Directory::load(identity.clone(), store.clone()).await.unwrap();
    let keys = Arc::new(Keys::open(home.path(), identity.clone()).unwrap());
    let control = Control::new(
        control::channel("http://127.0.0.1:1", None).unwrap(),
        "token",
        murmur_core::id::Incarnation::from_bytes([1; 16]),
    )
    .unwrap();
    let bus = Bus::new(BusConfig::new(identity.node_id));
    let sessions = Sessions::new(directory.clone(), control.clone(), clock);
    let agents = Agents::load(
        store.clone(),
        keys.clone(),
        directory.clone(),
        identity.clone(),
        control.clone(),
        sessions.clone(),
        clock,
    );
    let post =
        Post::new(store.clone(), keys, directory.clone(), identity.clone(), bus.clone(), clock, PostConfig::default());
    let notify = Notify::open(NotifyConfig::default(), home.path(), clock, CancellationToken::new()).unwrap();
    let (agents, events) = (agents.await.unwrap(), Events::new(store.clone(), clock));
    let permissions = Permissions::new(permission::Parts {
        store,
        events: events.clone(),
        post: post.clone(),
        agents: agents.clone(),
        directory: directory.clone(),
        clock,
        stop: CancellationToken::new(),
    });
    let tunnels = Tunnels::new(home.path(), TunnelConfig::default(), control.clone(), agents.clone());
    Arc::new(Core {
        agents,
        events,
        permissions,
        notify,
        tunnels,
        sessions,
        dir: IdentityDir::open(home.path()).unwrap(),
        identity,
        directory,
        post,
        control,
        bus,
        file_roots: Vec::new(),
        runtime_dir: home.path().join("runtime"),
    })
}

fn named(agent: &str) -> v1::RegisterRequest {
    v1::RegisterRequest { agent: agent.to_owned(), ..Default::default() }
}

pub(super) fn attach(agent: &str) -> v1::AttachRequest {
    v1::AttachRequest { agent: agent.to_owned(), client: "test".to_owned(), ..Default::default() }
}

pub(super) fn reason<T: std::fmt::Debug>(answer: Result<T, Status>) -> Option<Reason> {
    RpcError::from(answer.unwrap_err()).reason
}

pub(super) async fn attached(stream: &mut Streaming<v1::AttachResponse>) -> String {
    match stream.message().await.unwrap().unwrap().item.unwrap() {
        Item::Attached(attached) => attached.slug,
        other => panic!("the first item must be `attached`, got {other:?}"),
    }
}

#[tokio::test]
async fn the_same_user_speaks_as_interactive_agents_only() {
    let door = Door::open().await;
    let mut user = door.user().await;
    let alice = user.sessions.register(named("alice")).await.unwrap().into_inner();
    assert_eq!((alice.slug.as_str(), alice.created), ("/w/acme/u/jdoe/alice", false));
    for name in ["/w/acme/u/jdoe/alice", "Alice"] {
        assert_eq!(user.sessions.register(named(name)).await.unwrap().into_inner().agent_id, alice.agent_id);
    }
    assert_eq!(reason(user.sessions.register(named("worker")).await), Some(Reason::AgentTokenRequired));
    assert_eq!(reason(user.sessions.attach(attach("worker")).await), Some(Reason::AgentTokenRequired));
    assert_eq!(reason(user.sessions.register(named("/u/mallory/alice")).await), Some(Reason::AgentNotFound));
    assert_eq!(reason(user.sessions.register(named("a//b")).await), Some(Reason::FieldInvalid));
}

#[tokio::test]
async fn a_token_speaks_for_its_agent_and_no_other() {
    let door = Door::open().await;
    let mut worker = door.with_token(&door.token("worker").await).await;
    for name in ["", "worker", "self", "/u/jdoe/worker"] {
        let registered = worker.sessions.register(named(name)).await.unwrap().into_inner();
        assert_eq!(registered.slug, "/w/acme/u/jdoe/worker");
    }
    for name in ["alice", "/u/mallory/worker"] {
        assert_eq!(reason(worker.sessions.register(named(name)).await), Some(Reason::NameMismatch), "{name}");
    }
}

#[tokio::test]
async fn a_token_that_is_not_known_here_is_refused() {
    let door = Door::open().await;
    let forged = Token::from_parts(TokenKind::Agent, murmur_core::id::TokenId::from_bytes([7; 16]), [7; 32]);
    let person = Token::from_parts(TokenKind::User, murmur_core::id::TokenId::from_bytes([7; 16]), [7; 32]);
    let known: Token = door.token("alice").await.parse().unwrap();
    let other_secret = Token::from_parts(TokenKind::Agent, known.id(), [8; 32]);
    for token in [forged.expose().as_str(), person.expose().as_str(), other_secret.expose().as_str(), "nonsense"] {
        let mut client = door.with_token(token).await;
        assert_eq!(reason(client.sessions.register(named("")).await), Some(Reason::TokenInvalid));
    }
}

#[tokio::test]
async fn with_require_token_nobody_speaks_without_one() {
    let door = Door::with(true).await;
    let mut user = door.user().await;
    assert_eq!(reason(user.sessions.register(named("alice")).await), Some(Reason::AgentTokenRequired));
    assert!(user.host.get_status(v1::GetStatusRequest {}).await.is_ok(), "looking at the node needs no token");
    let mut alice = door.with_token(&door.token("alice").await).await;
    assert!(alice.sessions.register(named("alice")).await.is_ok());
}

#[tokio::test]
async fn a_new_name_needs_the_control_plane() {
    let door = Door::open().await;
    let mut user = door.user().await;
    assert_eq!(reason(user.sessions.register(named("carol")).await), Some(Reason::ControlPlaneDown));
    let send = v1::SendRequest { agent: "carol".to_owned(), to: "bob".to_owned(), ..Default::default() };
    assert_eq!(reason(user.messages.send(send).await), Some(Reason::ControlPlaneDown));
}

#[tokio::test]
async fn an_agent_has_one_session_and_takeover_is_told() {
    let door = Door::open().await;
    let mut user = door.user().await;
    let mut first = user.sessions.attach(attach("alice")).await.unwrap().into_inner();
    assert_eq!(attached(&mut first).await, "/w/acme/u/jdoe/alice");
    assert_eq!(reason(user.sessions.attach(attach("alice")).await), Some(Reason::SessionTaken));

    let takeover = v1::AttachRequest { takeover: true, client: "newer".to_owned(), ..attach("alice") };
    let mut second = user.sessions.attach(takeover).await.unwrap().into_inner();
    attached(&mut second).await;
    match first.message().await.unwrap().unwrap().item.unwrap() {
        Item::Replaced(replaced) => assert_eq!(replaced.by_client, "newer"),
        other => panic!("the first session must be told, got {other:?}"),
    }
    assert!(first.message().await.unwrap().is_none());
}

#[tokio::test]
async fn a_stream_that_is_dropped_detaches_and_one_that_stays_is_told_of_the_end() {
    let door = Door::open().await;
    let mut user = door.user().await;
    let alice = door.core.agents.by_slug(&slug("alice")).unwrap().agent_id;
    let mut changed = door.core.directory.changed();
    let mut session = user.sessions.attach(attach("alice")).await.unwrap().into_inner();
    attached(&mut session).await;
    assert!(door.core.sessions.has(alice));
    changed.borrow_and_update();
    drop(session);
    changed.changed().await.unwrap();
    assert!(!door.core.sessions.has(alice));

    let mut session = user.sessions.attach(attach("bob")).await.unwrap().into_inner();
    attached(&mut session).await;
    door.drain.cancel();
    assert!(matches!(session.message().await.unwrap().unwrap().item, Some(Item::Draining(_))));
}

#[tokio::test]
async fn a_session_is_told_that_its_agent_was_ended() {
    let door = Door::open().await;
    let mut user = door.user().await;
    let mut session = user.sessions.attach(attach("alice")).await.unwrap().into_inner();
    attached(&mut session).await;
    let alice = door.core.agents.by_slug(&slug("alice")).unwrap().agent_id;
    let batch = Batch { changes: vec![Change::Removed(alice)], ..Batch::default() };
    door.core.agents.reconcile(&batch, std::time::Instant::now()).await;
    assert!(matches!(session.message().await.unwrap().unwrap().item, Some(Item::Ended(_))));
    assert!(session.message().await.unwrap().is_none());
}

#[tokio::test]
async fn another_protocol_is_refused() {
    let door = Door::open().await;
    let channel = connect_socket(&door.home.path().join("node.sock")).await.unwrap();
    let mut host = v1::host_service_client::HostServiceClient::new(channel);
    let mut newer = Request::new(v1::GetVersionRequest {});
    newer.metadata_mut().insert("murmur-protocol", "99".parse().unwrap());
    assert_eq!(reason(host.get_version(newer).await), Some(Reason::VersionSkew));
    assert!(host.get_version(v1::GetVersionRequest {}).await.is_ok());
}

#[tokio::test]
async fn the_control_planes_services_answer_that_it_is_away() {
    let door = Door::open().await;
    let channel = connect_socket(&door.home.path().join("node.sock")).await.unwrap();
    let mut control = ControlClient::new(channel, Headers::new());
    let answer = control.auth.who_am_i(murmur_proto::v1::WhoAmIRequest {}).await;
    assert_eq!(reason(answer), Some(Reason::ControlPlaneDown));
}

fn pending(door: &Door) -> Arc<Pending> {
    Arc::new(Pending {
        node_id: Some(door.core.identity.node_id),
        name: "here".to_owned(),
        workspace: Some("acme".to_owned()),
        account: Some("jdoe".to_owned()),
        fingerprint: "ab12".to_owned(),
        control_plane_url: "http://127.0.0.1:1".to_owned(),
        why: "it waits for its owner".to_owned(),
    })
}

#[tokio::test]
async fn a_call_to_a_node_that_is_just_starting_waits_for_it() {
    let door = Door::open().await;
    door.stage.send_replace(Stage::Starting(pending(&door)));
    let mut user = door.user().await;
    let status = user.host.get_status(v1::GetStatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.fingerprint, "ab12", "how it stands is told at once");
    let mut asking = user.sessions.clone();
    let asked = tokio::spawn(async move { asking.register(named("alice")).await });
    assert!(!asked.is_finished());
    door.stage.send_replace(Stage::Ready(door.core.clone()));
    assert!(asked.await.unwrap().is_ok(), "and not refused as one of a node that waits for its owner");
}

#[tokio::test]
async fn a_node_that_waits_says_what_for() {
    let door = Door::open().await;
    door.stage.send_replace(Stage::Pending(pending(&door)));
    let mut user = door.user().await;
    assert_eq!(reason(user.sessions.register(named("alice")).await), Some(Reason::NodePending));
    let status = user.host.get_status(v1::GetStatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.fingerprint, "ab12");
    assert!(status.findings.iter().any(|finding| finding.remedy.contains("node approve ab12")));
}

#[tokio::test]
async fn a_wrong_field_is_named() {
    let door = Door::open().await;
    let mut user = door.user().await;
    let asked = v1::GetDeliveryRequest { agent: "alice".to_owned(), msg_id: "7".to_owned() };
    let error = RpcError::from(user.messages.get_delivery(asked).await.unwrap_err());
    assert_eq!(error.fields.first().map(|(field, _)| field.as_str()), Some("msg_id"));
    let inbox = v1::ListInboxRequest { agent: "alice".to_owned(), limit: 1001, ..Default::default() };
    assert_eq!(reason(user.messages.list_inbox(inbox).await), Some(Reason::FieldInvalid));
}

/// A stranger's control plane that writes down the headers of each call and answers nothing.
async fn listening() -> (String, tokio::sync::mpsc::UnboundedReceiver<http::HeaderMap>) {
    let (heard, calls) = tokio::sync::mpsc::unbounded_channel();
    let router = axum::Router::new().fallback(async move |request: axum::extract::Request| {
        let _ = heard.send(request.headers().clone());
        Status::unimplemented("only listening").into_http::<axum::body::Body>()
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (url, calls)
}

#[tokio::test]
async fn a_call_is_forwarded_for_whom_the_node_found_and_not_for_whom_the_caller_says() {
    let (url, mut calls) = listening().await;
    let door = Door::open().await;
    door.forward.set_channel(control::channel(&url, None).unwrap());
    door.forward.set_credential("node-token", murmur_core::id::Incarnation::from_bytes([1; 16]));
    let worker = door.token("worker").await;
    let person = Token::from_parts(TokenKind::User, murmur_core::id::TokenId::from_bytes([7; 16]), [7; 32]).expose();
    let channel = connect_socket(&door.home.path().join("node.sock")).await.unwrap();
    let mut who = async |authorization: Option<&str>, agent: Option<&'static str>| {
        let mut auth = murmur_proto::v1::auth_service_client::AuthServiceClient::new(channel.clone());
        let mut request = Request::new(murmur_proto::v1::WhoAmIRequest {});
        let metadata = request.metadata_mut();
        // What a caller says here is never believed.
        metadata.insert("murmur-as", format!("agent:{}", AgentId::from_bytes([2; 16])).parse().unwrap());
        if let Some(token) = authorization {
            metadata.insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        if let Some(agent) = agent {
            metadata.insert("murmur-agent", agent.parse().unwrap());
        }
        let refused = auth.who_am_i(request).await.unwrap_err();
        let text = |headers: &http::HeaderMap, name: &str| Some(headers.get(name)?.to_str().unwrap().to_owned());
        match calls.try_recv() {
            Ok(headers) => Ok((text(&headers, "murmur-as"), text(&headers, "authorization"))),
            Err(_) => Err(RpcError::from(refused).reason),
        }
    };
    let agent = |number| Some(format!("agent:{}", AgentId::from_bytes([number; 16])));
    let node = || Some("Bearer node-token".to_owned());
    assert_eq!(who(None, None).await, Ok((Some("user".to_owned()), node())));
    assert_eq!(who(None, Some("alice")).await, Ok((agent(1), node())));
    assert_eq!(who(None, Some("/u/jdoe/bob")).await, Ok((agent(2), node())));
    assert_eq!(who(Some(&worker), None).await, Ok((agent(3), node())));
    assert_eq!(who(Some(&worker), Some("worker")).await, Ok((agent(3), node())));
    assert_eq!(who(Some(&person), None).await, Ok((None, Some(format!("Bearer {}", person.as_str())))));

    assert_eq!(who(None, Some("worker")).await, Err(Some(Reason::AgentTokenRequired)));
    assert_eq!(who(Some(&worker), Some("alice")).await, Err(Some(Reason::NameMismatch)));
    assert_eq!(who(None, Some("/u/mallory/alice")).await, Err(Some(Reason::AgentNotFound)));
}

#[tokio::test]
async fn a_token_of_the_nodes_is_revoked_at_once() {
    let door = Door::open().await;
    let mut user = door.user().await;
    let request = v1::IssueAgentTokenRequest { agent: "alice".to_owned() };
    let issued = user.sessions.issue_agent_token(request).await.unwrap().into_inner();
    let mut alice = door.with_token(&issued.token).await;
    let mut session = alice.sessions.attach(attach("")).await.unwrap().into_inner();
    assert_eq!(attached(&mut session).await, "/w/acme/u/jdoe/alice");
    let mut tail = alice.messages.tail(v1::TailRequest::default()).await.unwrap().into_inner();

    let revoke = |token_id: &str| v1::RevokeAgentTokenRequest { token_id: token_id.to_owned() };
    let mut worker = door.with_token(&door.token("worker").await).await;
    assert_eq!(reason(worker.sessions.revoke_agent_token(revoke(&issued.token_id)).await), Some(Reason::TokenNotFound));
    let revoked = user.sessions.revoke_agent_token(revoke(&issued.token_id)).await.unwrap().into_inner();
    assert_eq!((revoked.slug.as_str(), revoked.revoked), ("/w/acme/u/jdoe/alice", true));
    assert_eq!(reason(session.message().await), Some(Reason::TokenRevoked), "what was attached with it ends");
    assert_eq!(reason(tail.message().await), Some(Reason::TokenRevoked), "and so does all that lasts");
    assert_eq!(reason(alice.sessions.register(named("")).await), Some(Reason::TokenInvalid));
    assert!(!user.sessions.revoke_agent_token(revoke(&issued.token_id)).await.unwrap().into_inner().revoked);
    let unknown = murmur_core::id::TokenId::from_bytes([9; 16]).to_string();
    assert_eq!(reason(user.sessions.revoke_agent_token(revoke(&unknown)).await), Some(Reason::TokenNotFound));
    assert_eq!(reason(user.sessions.revoke_agent_token(revoke("x")).await), Some(Reason::FieldInvalid));
}

#[tokio::test]
async fn who_reads_as_somebody_unknown_is_told_and_makes_nobody() {
    let door = Door::open().await;
    let mut user = door.user().await;
    let inbox = v1::ListInboxRequest { agent: "typo".to_owned(), ..Default::default() };
    assert_eq!(reason(user.messages.list_inbox(inbox).await), Some(Reason::AgentNotFound));
    let peers = v1::ListPeersRequest { agent: "typo".to_owned(), ..Default::default() };
    assert_eq!(reason(user.host.list_peers(peers).await), Some(Reason::AgentNotFound));
    let token = v1::IssueAgentTokenRequest { agent: "typo".to_owned() };
    assert_eq!(reason(user.sessions.issue_agent_token(token).await), Some(Reason::AgentNotFound));
}
