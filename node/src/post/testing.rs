//! A workspace of nodes for tests. In place of the broker there is a channel: what a node publishes comes out at its end, and
//! the test decides when, how often and to whom it is delivered.

use std::{sync::Arc, time::Duration};

use murmur_core::{
    id::{AgentId, NodeId, WorkspaceId},
    limits::{NODE_CERT_LIFE_MS, ROOT_CERT_LIFE_MS},
    slug::Slug,
    subject::{Route, Shard, parse_subject},
};
use murmur_crypto::{
    cert::{Origin, RootCertificate},
    issue::{Issuer, NodeSpec, RootSpec, Validity, root},
    keys::IdentityKey,
};
use tokio::{
    runtime::{Builder, Runtime},
    sync::{Mutex, mpsc},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::{Frame, LocalAgent, Post, PostConfig};
use crate::{
    bus::{Bus, BusConfig, Outgoing, Verdict},
    clock::Clock,
    directory::{AgentKind, Batch, Change, Directory, Peer, PeerKeys},
    identity::{NodeIdentity, NodeRecord},
    keys::Keys,
    store::{Store, StoreOptions, agents, agents::AgentRow},
};

pub(crate) const WORKSPACE: WorkspaceId = WorkspaceId::from_bytes([0xaa; 16]);

pub(crate) fn slug(name: &str) -> Slug {
    format!("/w/acme/u/jdoe/{name}").parse().unwrap()
}

pub(crate) fn node_id(n: u8) -> NodeId {
    NodeId::from_bytes([n; 16])
}

pub(crate) fn route(n: u8) -> Route {
    Route { site: "local".parse().unwrap(), shard: Shard::ZERO, workspace: WORKSPACE, node: node_id(n) }
}

/// A node of a workspace of its own.
pub(crate) fn node_identity(n: u8, now_ms: u64) -> Arc<NodeIdentity> {
    Owner::new(now_ms).identity(n)
}

struct Owner {
    key: IdentityKey,
    root: RootCertificate,
    now_ms: u64,
}

impl Owner {
    fn new(now_ms: u64) -> Self {
        let key = IdentityKey::generate().unwrap();
        let spec = RootSpec {
            workspace_id: WORKSPACE,
            serial: 1,
            validity: Validity::from_now(now_ms - 9 * 24 * 3600 * 1000, ROOT_CERT_LIFE_MS),
            slug_scope: vec!["/w/acme/".to_owned()],
            origin: Origin::Owner,
        };
        let root = root(&key, spec).unwrap();
        Self { key, root, now_ms }
    }

    fn identity(&self, n: u8) -> Arc<NodeIdentity> {
        let key = IdentityKey::generate().unwrap();
        let spec = NodeSpec {
            node_id: node_id(n),
            public_key: key.public(),
            serial: 1,
            validity: Validity::from_now(self.now_ms - 9 * 24 * 3600 * 1000, NODE_CERT_LIFE_MS),
            slug_scope: vec!["/w/acme/u/jdoe/".to_owned()],
        };
        let certificate = Issuer::new(&self.key, self.root.certificate()).unwrap().node(spec).unwrap();
        let record = NodeRecord {
            node_id: node_id(n),
            workspace_id: WORKSPACE,
            workspace: "acme".parse().unwrap(),
            account: "jdoe".parse().unwrap(),
            name: format!("host-{n}"),
            control_plane_url: "http://127.0.0.1:1".to_owned(),
            root_certificate: self.root.certificate().encode(),
            node_certificate: Some(certificate.encode()),
            slug_scope: vec![],
        };
        Arc::new(NodeIdentity::new(&record, key, self.now_ms).unwrap())
    }
}

/// Nodes under one root.
pub(crate) struct World {
    owner: Owner,
}

/// A node, with the test as its broker.
pub(crate) struct TestNode {
    home: Arc<tempfile::TempDir>,
    pub(crate) post: Arc<Post>,
    pub(crate) n: u8,
    agents: Vec<LocalAgent>,
    published: Mutex<mpsc::UnboundedReceiver<Outgoing>>,
    token: CancellationToken,
    /// Of a node that can be killed: everything of it runs here.
    runtime: Option<Runtime>,
}

/// The store of the node that has a post.
pub(crate) fn store_of(post: &Post) -> Store {
    post.store.clone()
}

impl World {
    pub(crate) fn new() -> Self {
        Self { owner: Owner::new(Clock::system().now_ms()) }
    }

    /// A running node with agents of these names.
    pub(crate) async fn node(&self, n: u8, names: &[&str]) -> TestNode {
        self.node_with(n, names, PostConfig::default(), Clock::system()).await
    }

    pub(crate) async fn node_with(&self, n: u8, names: &[&str], config: PostConfig, clock: Clock) -> TestNode {
        let home = Arc::new(tempfile::tempdir().unwrap());
        TestNode::open(home, self.owner.identity(n), n, names, config, clock, None).await
    }

    /// A running node that can be killed.
    pub(crate) async fn mortal(&self, n: u8, names: &[&str], config: PostConfig, clock: Clock) -> TestNode {
        let home = Arc::new(tempfile::tempdir().unwrap());
        TestNode::open(home, self.owner.identity(n), n, names, config, clock, Some(own_runtime())).await
    }

    /// Two nodes with one agent each, known to each other: `alice` on the first, `bob` on the second.
    pub(crate) async fn pair(&self) -> (TestNode, TestNode) {
        let (a, b) = (self.node(1, &["alice"]).await, self.node(2, &["bob"]).await);
        introduce(&[&a, &b]);
        (a, b)
    }
}

fn own_runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// Tells every node about every agent.
pub(crate) fn introduce(nodes: &[&TestNode]) {
    let peers: Vec<Arc<Peer>> = nodes.iter().flat_map(|node| node.peers()).collect();
    for node in nodes {
        let changes = peers.iter().cloned().map(Change::Agent).collect();
        let batch = Batch { changes, whole: true, resume_token: None };
        node.post.directory.apply(batch, node.post.clock.now_ms());
    }
}

impl TestNode {
    async fn open(
        home: Arc<tempfile::TempDir>,
        identity: Arc<NodeIdentity>,
        n: u8,
        names: &[&str],
        mut config: PostConfig,
        clock: Clock,
        runtime: Option<Runtime>,
    ) -> Self {
        config.streams.dir = home.path().join("files");
        home.path().clone_into(&mut config.streams.data_dir);
        let options = StoreOptions { readers: 1, pages_max: None, now_ms: clock.now_ms() };
        let store = Store::open(&home.path().join("node.db"), &options).unwrap();
        let keys = Arc::new(Keys::open(home.path(), Arc::clone(&identity)).unwrap());
        let directory = Directory::load(Arc::clone(&identity), store.clone()).await.unwrap();
        let (bus, published) = Bus::to_test(BusConfig::new(node_id(n)), route(n));
        let mut agents = Vec::new();
        for (index, name) in names.iter().enumerate() {
            let index = u8::try_from(index).unwrap();
            let agent = LocalAgent { agent_id: AgentId::from_bytes([n * 16 + index; 16]), slug: slug(name) };
            keys.ensure_agent(agent.agent_id, &agent.slug, clock.now_ms()).unwrap();
            let row = AgentRow {
                agent_id: agent.agent_id,
                slug: agent.slug.clone(),
                kind: 1,
                description: String::new(),
                group: String::new(),
                created_ms: clock.now_ms(),
                deregistered_ms: None,
            };
            store.write(move |tx| agents::save(tx, &row)).await.unwrap();
            agents.push(agent);
        }
        let post = Post::new(store, keys, directory, identity, bus, clock, config);
        let token = CancellationToken::new();
        let (running, ends) = (Arc::clone(&post), token.clone());
        let run = async move { running.run(ends).await.unwrap() };
        match &runtime {
            Some(runtime) => drop(runtime.spawn(run)),
            None => drop(tokio::spawn(run)),
        }
        // As in a node, nothing comes in before what is in the store is taken up.
        while !post.gate.is_open() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Self { home, post, n, agents, published: Mutex::new(published), token, runtime }
    }

    /// Does something on the runtime of a node that can be killed.
    pub(crate) fn spawn<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.runtime.as_ref().unwrap().spawn(work)
    }

    /// Kills the node wherever it is, and opens it again from disk. Every task stops where it waits; of the store, what was
    /// queued is committed, as if the kill had come right after.
    pub(crate) async fn killed_and_back(self) -> Self {
        let clock = self.post.clock;
        self.killed_and_back_at(clock).await
    }

    /// The same, to come back at another time.
    pub(crate) async fn killed_and_back_at(mut self, clock: Clock) -> Self {
        let (home, identity, n) = (Arc::clone(&self.home), Arc::clone(&self.post.identity), self.n);
        let names: Vec<String> = self.agents.iter().map(|agent| agent.slug.name().to_owned()).collect();
        let config = self.post.config.clone();
        let runtime = self.runtime.take().unwrap();
        // Blocks until every task is gone, and with it every hold on the store.
        tokio::task::spawn_blocking(move || runtime.shutdown_timeout(Duration::from_secs(60))).await.unwrap();
        assert_eq!(Arc::strong_count(&self.post), 1, "something of the node survived it");
        drop(self);
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        Self::open(home, identity, n, &names, config, clock, Some(own_runtime())).await
    }

    pub(crate) fn agent(&self, index: usize) -> LocalAgent {
        self.agents[index].clone()
    }

    /// Loses the keys of its first agent and makes new ones, which the directory does not tell of.
    pub(crate) fn lose_keys(&self, at_ms: u64) {
        let agent = self.agent(0);
        self.post.keys.forget(agent.agent_id).unwrap();
        self.post.keys.ensure_agent(agent.agent_id, &agent.slug, at_ms).unwrap();
    }

    /// The node's agents as the control plane would describe them.
    pub(crate) fn peers(&self) -> Vec<Arc<Peer>> {
        let peer = |agent: &LocalAgent| {
            let keys = self.post.keys.publishable(agent.agent_id).unwrap();
            Arc::new(Peer {
                agent_id: agent.agent_id,
                slug: agent.slug.clone(),
                node_id: node_id(self.n),
                kind: AgentKind::Interactive,
                description: String::new(),
                group: String::new(),
                host: format!("host-{}", self.n),
                attached: true,
                route: Some(route(self.n)),
                keys: Some(PeerKeys { chain: keys.chain, prekey: keys.prekey }),
                revision: 1,
                created_ms: 1,
                former: None,
            })
        };
        self.agents.iter().map(peer).collect()
    }

    /// The next thing that the node publishes.
    pub(crate) async fn published(&self) -> Frame {
        let outgoing = self.published.lock().await.recv().await.unwrap();
        Frame { subject: outgoing.subject, bytes: outgoing.bytes, deliveries: 1, stream_seq: 1 }
    }

    /// Whether nothing was published that was not taken.
    pub(crate) async fn is_quiet(&self) -> bool {
        self.published.lock().await.is_empty()
    }

    /// Delivers a frame and expects it to be taken.
    pub(crate) async fn take(&self, frame: &Frame) {
        assert_eq!(self.post.receive(frame).await, Verdict::Ack, "{}", frame.subject);
    }
}

impl Drop for TestNode {
    fn drop(&mut self) {
        self.token.cancel();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Carries frames between nodes until `done` is.
pub(crate) async fn carry<T>(nodes: &[&TestNode], done: impl Future<Output = T>) -> T {
    tokio::pin!(done);
    loop {
        let posts: Vec<_> = nodes.iter().map(|node| Arc::clone(&node.post)).collect();
        let next = futures::future::select_all(nodes.iter().map(|node| Box::pin(node.published())));
        let frame = tokio::select! {
            result = &mut done => return result,
            (frame, ..) = next => frame,
        };
        let to = parse_subject(&frame.subject).unwrap().route.node;
        let post = posts.iter().find(|post| post.identity.node_id == to).unwrap();
        post.receive(&frame).await;
    }
}
