//! A control plane in this process, on a real port with its own database, and the people and nodes who call it.

use std::path::PathBuf;

use murmur_core::{
    id::{AgentId, NodeId, WorkspaceId},
    limits::{AGENT_CERT_LIFE_MS, NODE_CERT_LIFE_MS, ROOT_CERT_LIFE_MS},
    reason::Reason,
};
use murmur_crypto::{
    cert::{Certificate, Origin, RootCertificate},
    chain::Chain,
    enroll,
    hash::sha256,
    issue::{self, AgentSpec, Issuer, NodeSpec, RootSpec, Validity},
    keys::{IdentityKey, PrekeySecret},
    prekey::{self, PrekeySpec},
    revocation::{Revocation, RevocationList, RevocationListSpec, Revoked},
};
use murmur_proto::{
    client::{ControlClient, Headers, server_channel},
    status::RpcError,
    v1,
};
use murmur_server::{app::App, clock::Clock, config::Config, lifecycle::Lifecycle};
use nkeys::KeyPair;
use tempfile::TempDir;
use tonic::{Response, Status, Streaming};

/// When every test begins.
const START_MS: u64 = 1_800_000_000_000;

/// What those who work with agents may do.
const AGENT_SCOPES: [v1::Scope; 10] = [
    v1::Scope::DirectoryRead,
    v1::Scope::AgentsRead,
    v1::Scope::AgentsSpawn,
    v1::Scope::AgentsKill,
    v1::Scope::AgentsMessage,
    v1::Scope::TasksRead,
    v1::Scope::TasksWrite,
    v1::Scope::EventsRead,
    v1::Scope::EventsPublish,
    v1::Scope::UploadsWrite,
];

pub(crate) struct World {
    pub(crate) app: App,
    pub(crate) clock: Clock,
    pub(crate) lifecycle: Lifecycle,
    dir: TempDir,
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// With limits that no test meets by accident, and what the test changes.
    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self::on(dir, Clock::manual(START_MS), change).await
    }

    async fn on(dir: TempDir, clock: Clock, change: impl FnOnce(&mut Config)) -> Self {
        let many = 10_000.try_into().unwrap();
        let mut config = Config { enroll_burst: many, calls_burst: many, ..Config::local(dir.path().to_owned()) };
        change(&mut config);
        let lifecycle = Lifecycle::new();
        let app = App::start(config, clock.clone(), lifecycle.clone()).await.unwrap();
        Self { app, clock, lifecycle, dir }
    }

    /// Stops the control plane and starts it on the same database.
    pub(crate) async fn restart(self) -> Self {
        let Self { app, clock, lifecycle: _, dir } = self;
        assert!(app.stop().await, "something had to be cut off");
        Self::on(dir, clock, |_| {}).await
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.app.address)
    }

    pub(crate) fn data(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn anonymous(&self) -> ControlClient {
        ControlClient::new(server_channel(&self.url(""), None).unwrap(), Headers::new())
    }

    pub(crate) fn client(&self, token: &str) -> ControlClient {
        let headers = Headers::new().with_token(token).unwrap();
        ControlClient::new(server_channel(&self.url(""), None).unwrap(), headers)
    }

    pub(crate) fn admin(&self) -> ControlClient {
        self.client(std::fs::read_to_string(self.data("admin.token")).unwrap().trim())
    }

    /// A workspace with its owner's root.
    pub(crate) async fn workspace(&self, name: &str) -> Owner {
        let owner = Owner::new(name, self.now_ms());
        self.admin().directory.create_workspace(owner.request()).await.unwrap();
        owner
    }

    /// A token of a workspace with some scopes.
    pub(crate) async fn token(&self, owner: &Owner, scopes: &[v1::Scope]) -> v1::IssueTokenResponse {
        let request = v1::IssueTokenRequest {
            kind: v1::TokenKind::User.into(),
            scopes: scopes.iter().map(|scope| i32::from(*scope)).collect(),
            workspace: owner.name.clone(),
            account: "jdoe".into(),
            ..v1::IssueTokenRequest::default()
        };
        self.admin().auth.issue_token(request).await.unwrap().into_inner()
    }

    /// Somebody who may read the directory and nothing else.
    pub(crate) async fn reader(&self, owner: &Owner) -> ControlClient {
        self.client(&self.token(owner, &[v1::Scope::DirectoryRead]).await.token)
    }

    /// A person of an account, with everything that concerns agents.
    pub(crate) async fn person(&self, owner: &Owner, account: &str) -> ControlClient {
        let request = v1::IssueTokenRequest {
            kind: v1::TokenKind::User.into(),
            scopes: AGENT_SCOPES.map(i32::from).to_vec(),
            workspace: owner.name.clone(),
            account: account.into(),
            ..v1::IssueTokenRequest::default()
        };
        self.client(&self.admin().auth.issue_token(request).await.unwrap().into_inner().token)
    }

    /// An agent as a caller, with everything that concerns agents.
    pub(crate) async fn speak_as(&self, owner: &Owner, agent_id: &str) -> ControlClient {
        let request = v1::IssueTokenRequest {
            kind: v1::TokenKind::Agent.into(),
            scopes: AGENT_SCOPES.map(i32::from).to_vec(),
            workspace: owner.name.clone(),
            agent_id: agent_id.into(),
            ..v1::IssueTokenRequest::default()
        };
        self.client(&self.admin().auth.issue_token(request).await.unwrap().into_inner().token)
    }

    /// A second door to the database, for what no call reaches.
    pub(crate) async fn db(&self) -> murmur_server::db::Db {
        murmur_server::db::Db::open(&self.data("server.db"), "not used").await.unwrap()
    }

    pub(crate) async fn invite(&self, owner: &Owner, account: &str, secret: [u8; 32]) -> Result<(), Status> {
        let request = v1::CreateInviteRequest {
            secret_hash: sha256(&secret).to_vec().into(),
            account: account.into(),
            workspace: owner.name.clone(),
            ..v1::CreateInviteRequest::default()
        };
        self.admin().auth.create_invite(request).await.map(|_| ())
    }

    /// An approved node of an account.
    pub(crate) async fn node(&self, owner: &Owner, account: &str, seed: u8) -> NodeKit {
        self.invite(owner, account, [seed; 32]).await.unwrap();
        let mut node = NodeKit::new(seed);
        node.enroll(self, [seed; 32]).await.unwrap();
        let certificate = owner.certify(&node, self.now_ms(), 1, &[&owner.account_scope(account)]);
        self.approve(&node, &certificate).await.unwrap();
        node.certificate = Some(certificate);
        node
    }

    pub(crate) async fn approve(&self, node: &NodeKit, certificate: &Certificate) -> Result<v1::Node, Status> {
        let request = v1::ApproveNodeRequest { node_id: node.id.to_string(), certificate: certificate.encode().into() };
        Ok(self.admin().nodes.approve_node(request).await?.into_inner().node.unwrap())
    }
}

/// Who owns a workspace.
pub(crate) struct Owner {
    pub(crate) name: String,
    pub(crate) key: IdentityKey,
    pub(crate) root: RootCertificate,
}

impl Owner {
    pub(crate) fn new(name: &str, now_ms: u64) -> Self {
        let key = IdentityKey::generate().unwrap();
        let workspace_id = WorkspaceId::from_bytes(key.public().as_bytes()[..16].try_into().unwrap());
        let spec = RootSpec {
            workspace_id,
            serial: 1,
            validity: Validity::from_now(now_ms, ROOT_CERT_LIFE_MS),
            slug_scope: vec![format!("/w/{name}/")],
            origin: Origin::Owner,
        };
        let root = issue::root(&key, spec).unwrap();
        Self { name: name.to_owned(), key, root }
    }

    pub(crate) fn request(&self) -> v1::CreateWorkspaceRequest {
        v1::CreateWorkspaceRequest {
            name: self.name.clone(),
            mode: v1::WorkspaceMode::Owner.into(),
            root_certificate: self.root.certificate().encode().into(),
        }
    }

    pub(crate) fn account_scope(&self, account: &str) -> String {
        format!("/w/{}/u/{account}/", self.name)
    }

    /// Signs the list number `version`, which revokes all that these nodes had.
    pub(crate) fn revoke(&self, now_ms: u64, version: u64, nodes: &[NodeId]) -> v1::PublishRevocationListRequest {
        let revoked = |node: &NodeId| Revocation {
            what: Revoked::Subject { subject_id: *node.as_bytes(), serial_lt: 2 },
            reason: "stolen".into(),
            at_ms: now_ms,
        };
        let entries = nodes.iter().map(revoked).collect();
        let spec = RevocationListSpec { version, issued_ms: now_ms, next_update_ms: now_ms + 1, entries };
        let list = RevocationList::issue(&self.key, &self.root, &spec).unwrap().encode();
        v1::PublishRevocationListRequest { revocation_list: list.into(), workspace: self.name.clone() }
    }

    pub(crate) fn certify(&self, node: &NodeKit, now_ms: u64, serial: u64, scope: &[&str]) -> Certificate {
        let spec = NodeSpec {
            node_id: node.id,
            public_key: node.key.public(),
            serial,
            validity: Validity::from_now(now_ms, NODE_CERT_LIFE_MS),
            slug_scope: scope.iter().map(|scope| (*scope).to_owned()).collect(),
        };
        Issuer::new(&self.key, self.root.certificate()).unwrap().node(spec).unwrap()
    }
}

/// A node, as far as the control plane can tell.
pub(crate) struct NodeKit {
    pub(crate) id: NodeId,
    pub(crate) key: IdentityKey,
    pub(crate) broker: KeyPair,
    pub(crate) token: String,
    pub(crate) certificate: Option<Certificate>,
}

impl NodeKit {
    pub(crate) fn new(seed: u8) -> Self {
        let key = IdentityKey::from_seed(&[seed; 32]);
        let id = NodeId::from_bytes([0; 16]);
        Self { id, key, broker: KeyPair::new_user(), token: String::new(), certificate: None }
    }

    pub(crate) fn enrolment(&self, secret: [u8; 32]) -> v1::EnrollNodeRequest {
        let broker_public_key = self.broker.public_key();
        v1::EnrollNodeRequest {
            invite_secret: secret.to_vec().into(),
            public_key: self.key.public().as_bytes().to_vec().into(),
            proof: enroll::prove(&self.key, &secret, &broker_public_key).to_vec().into(),
            broker_public_key,
            name: "host".into(),
            version: "0.1.0".into(),
        }
    }

    pub(crate) async fn enroll(&mut self, world: &World, secret: [u8; 32]) -> Result<v1::EnrollNodeResponse, Status> {
        let response = world.anonymous().nodes.enroll_node(self.enrolment(secret)).await?.into_inner();
        self.id = response.node.as_ref().unwrap().node_id.parse().unwrap();
        self.token.clone_from(&response.token);
        Ok(response)
    }

    pub(crate) fn client(&self, world: &World) -> ControlClient {
        world.client(&self.token)
    }

    pub(crate) async fn register(&self, world: &World, path: &str) -> Result<v1::RegisterAgentResponse, Status> {
        self.register_as(world, path, false).await
    }

    pub(crate) async fn register_as(
        &self,
        world: &World,
        path: &str,
        suffix_when_taken: bool,
    ) -> Result<v1::RegisterAgentResponse, Status> {
        let request = v1::RegisterAgentRequest {
            path: path.into(),
            kind: v1::AgentKind::Interactive.into(),
            suffix_when_taken,
            ..v1::RegisterAgentRequest::default()
        };
        self.client(world).directory.register_agent(request).await.map(Response::into_inner)
    }

    /// A live agent, registered now.
    pub(crate) async fn agent(&self, world: &World, path: &str) -> AgentKit {
        AgentKit::new(self.register(world, path).await.unwrap().agent.unwrap())
    }

    /// Publishes the keys of an agent of this node.
    pub(crate) async fn publish(
        &self,
        world: &World,
        agent: &AgentKit,
        (chain, prekey): (Vec<u8>, Vec<u8>),
    ) -> Result<v1::Agent, Status> {
        let keys = Some(v1::AgentKeys { chain: chain.into(), prekey: prekey.into() });
        let request = v1::PublishKeysRequest { agent_id: agent.id.to_string(), keys };
        Ok(self.client(world).directory.publish_keys(request).await?.into_inner().agent.unwrap())
    }

    /// An agent's certificate and a prekey under it.
    pub(crate) fn keys(&self, world: &World, agent: &AgentKit, serial: u64, seq: u64) -> (Vec<u8>, Vec<u8>) {
        let node = self.certificate.clone().unwrap();
        let spec = AgentSpec {
            agent_id: agent.id,
            public_key: agent.key.public(),
            serial,
            validity: Validity::from_now(START_MS, AGENT_CERT_LIFE_MS),
            slug: agent.slug.clone(),
        };
        let certificate = Issuer::new(&self.key, &node).unwrap().agent(spec).unwrap();
        let public = PrekeySecret::generate().unwrap().public();
        let prekey = PrekeySpec::new(agent.id, certificate.fp(), public, seq, world.now_ms());
        let (statement, _) = prekey::issue(&agent.key, &prekey);
        (Chain::new(certificate, vec![node]).unwrap().encode(), statement.encode())
    }
}

/// An agent whose node holds its key.
pub(crate) struct AgentKit {
    pub(crate) id: AgentId,
    pub(crate) slug: String,
    pub(crate) key: IdentityKey,
}

impl AgentKit {
    fn new(agent: v1::Agent) -> Self {
        let key = IdentityKey::generate().unwrap();
        Self { id: agent.agent_id.parse().unwrap(), slug: agent.slug, key }
    }
}

/// The reason of a refused call.
#[track_caller]
pub(crate) fn reason<T: std::fmt::Debug>(result: Result<T, Status>) -> Reason {
    let status = result.unwrap_err();
    RpcError::from(&status).reason.unwrap_or_else(|| panic!("no reason in {status:?}"))
}

/// The first field that a refused call names.
#[track_caller]
pub(crate) fn field<T: std::fmt::Debug>(result: Result<T, Status>) -> String {
    RpcError::from(&result.unwrap_err()).fields.remove(0).0
}

/// The next item of a stream that must have one.
pub(crate) async fn next<T>(stream: &mut Streaming<T>) -> T {
    stream.message().await.unwrap().unwrap()
}
