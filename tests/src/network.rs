//! A whole Murmur network on this machine: broker, control plane, nodes, each a real process.

use std::{
    ffi::OsString,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use murmur_core::{
    id::{NodeId, WorkspaceId},
    limits,
};
use murmur_crypto::{
    cert::{Origin, RootCertificate},
    invite::{Invite, Purpose},
    issue::{self, Issuer, NodeSpec, RootSpec, Validity},
    keys::{IdentityKey, PublicKey},
    revocation::{Revocation, RevocationList, RevocationListSpec, Revoked},
};
use murmur_proto::{
    client::{ControlClient, Headers, NodeClient, connect_server, connect_socket},
    node::v1::{Finding, GetStatusRequest, GetStatusResponse, ListPeersRequest},
    v1,
};
use tempfile::TempDir;

use murmur_server::broker::{BrokerAddress, BrokerAdmin, BrokerKeys, BrokerLayout, StreamSettings};

use crate::{
    ports::PortLease,
    process::{Process, binary, nats_server},
    proxy::Proxy,
    shim::Shim,
    wait,
};

/// The workspace of every test network.
pub const WORKSPACE: &str = "acme";

/// Certificates hold from so long ago, so that a node whose clock is behind has one that holds, too.
const CERTIFIED_SINCE_MS: u64 = 5 * 24 * 3600 * 1000;

/// How a network starts.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The broker syncs every write to the disk.
    pub sync_always: bool,
    /// Variables for the control plane and every node.
    pub env: Vec<(String, String)>,
    /// Everybody reaches the broker through a [`Proxy`].
    pub proxy: bool,
}

/// A running network. Everything ends when it is dropped.
pub struct Network {
    /// The broker.
    pub broker: Process,
    /// The control plane.
    pub server: Process,
    /// The folder that holds everything: `broker/`, `server/`, `nodes/`, `logs/`.
    pub dir: TempDir,
    /// `http://127.0.0.1:…` of the control plane.
    pub server_url: String,
    /// `nats://127.0.0.1:…`.
    pub broker_url: String,
    /// Between everybody and the broker, if asked for.
    pub proxy: Option<Proxy>,
    options: Options,
    owner: Owner,
    _ports: Vec<PortLease>,
}

/// The workspace owner's key.
struct Owner {
    key: IdentityKey,
    root: RootCertificate,
}

/// A node of the network.
pub struct Node {
    /// Its process.
    pub process: Process,
    /// Its socket.
    pub socket: PathBuf,
    /// Its data directory.
    pub dir: PathBuf,
    /// The name it was enrolled under.
    pub name: String,
}

impl Network {
    /// Starts a broker and a control plane with one workspace.
    pub async fn start() -> Self {
        Self::start_with(Options::default()).await
    }

    /// Starts a broker and a control plane with one workspace.
    ///
    /// # Panics
    /// When a part does not come up.
    pub async fn start_with(options: Options) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("murmur-")
            // The node refuses a socket in a folder that others may enter.
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir()
            .unwrap();
        fs::create_dir(dir.path().join("logs")).unwrap();
        let ports = [PortLease::take(), PortLease::take()];
        let broker_url = format!("nats://127.0.0.1:{}", ports[0].port);
        let server_url = format!("http://127.0.0.1:{}", ports[1].port);
        let mut broker = start_broker(dir.path(), ports[0].port, &options);
        broker.start();
        let proxy = match options.proxy {
            true => Some(Proxy::start(([127, 0, 0, 1], ports[0].port).into()).await),
            false => None,
        };
        let used_url = proxy.as_ref().map(|proxy| format!("nats://{}", proxy.address));
        let mut server = describe_server(dir.path(), used_url.as_ref().unwrap_or(&broker_url), ports[1].port, &options);
        server.start();
        let owner = Owner::new();
        let network = Self { broker, server, dir, server_url, broker_url, proxy, options, owner, _ports: ports.into() };
        network.ready().await;
        network.create_workspace().await;
        network
    }

    /// Waits until the control plane is ready, broker included.
    pub async fn ready(&self) {
        wait::until("the control plane is ready", || async {
            let channel = connect_server(&self.server_url, None).await.ok()?;
            let mut health = tonic_health::pb::health_client::HealthClient::new(channel);
            let request = tonic_health::pb::HealthCheckRequest { service: String::new() };
            (health.check(request).await.ok()?.into_inner().status == 1).then_some(())
        })
        .await;
    }

    /// The administrator's client.
    ///
    /// # Panics
    /// When the control plane does not answer.
    pub async fn admin(&self) -> ControlClient {
        let token = fs::read_to_string(self.dir.path().join("server/admin.token")).unwrap();
        let channel = connect_server(&self.server_url, None).await.unwrap();
        ControlClient::new(channel, Headers::new().with_token(token.trim()).unwrap())
    }

    /// Enrols and starts a node for an account, and waits until it can deliver.
    ///
    /// # Panics
    /// When it never comes up.
    pub async fn node(&self, name: &str, account: &str) -> Node {
        let mut node = self.enrol(name, account).await;
        node.process.start();
        self.approve(name).await;
        node.ready().await;
        node
    }

    /// As [`Network::node`], with more variables.
    ///
    /// # Panics
    /// When it never comes up.
    pub async fn node_with(&self, name: &str, account: &str, env: &[(&str, String)]) -> Node {
        let mut node = self.enrol(name, account).await;
        for (key, value) in env {
            node.process = node.process.env(key, value);
        }
        node.process.start();
        self.approve(name).await;
        node.ready().await;
        node
    }

    /// A client with the control plane's rights over the broker's streams.
    ///
    /// # Panics
    /// When the broker is not there.
    pub async fn broker_admin(&self) -> async_nats::jetstream::Context {
        let keys = BrokerKeys::load(&BrokerLayout::new(&self.dir.path().join("broker")).keys).unwrap();
        let address = BrokerAddress { url: self.broker_url.clone(), ca: None };
        let admin = BrokerAdmin::connect(&address, &keys, StreamSettings::default(), now_ms() / 1000).await.unwrap();
        async_nats::jetstream::new(admin.client())
    }

    /// Waits until a node has acknowledged to the broker all that the broker has handed out to it.
    ///
    /// # Panics
    /// When the broker cannot be asked, or that never comes.
    pub async fn until_acknowledged(&self, node: &Node) {
        let broker = self.broker_admin().await;
        let consumer = node.consumer().await;
        wait::until("everything is acknowledged", || async {
            let found = broker.get_consumer_from_stream(&consumer, "MM_IN_00").await;
            let mut found: async_nats::jetstream::consumer::PullConsumer = found.unwrap();
            (found.info().await.unwrap().num_ack_pending == 0).then_some(())
        })
        .await;
    }

    /// Prepares a node with an invite in its directory, without starting it.
    ///
    /// # Panics
    /// When the control plane refuses the invite.
    pub async fn enrol(&self, name: &str, account: &str) -> Node {
        let dir = self.dir.path().join("nodes").join(name);
        let invite = self.invite(account).await;
        let socket = self.dir.path().join(format!("{name}.sock"));
        let process = self.describe_node(name, &dir, &socket, Some(invite));
        Node { process, socket, dir, name: name.to_owned() }
    }

    fn describe_node(&self, name: &str, dir: &Path, socket: &Path, invite: Option<String>) -> Process {
        let mut args: Vec<OsString> = vec!["run".into()];
        for (flag, value) in [
            ("--data-dir", dir.into()),
            ("--socket", socket.into()),
            ("--name", name.into()),
            ("--metrics-listen", "127.0.0.1:0".into()),
        ] {
            args.extend([OsString::from(flag), value]);
        }
        if let Some(invite) = invite {
            args.extend(["--join".into(), invite.into()]);
        }
        let log = self.dir.path().join(format!("logs/node-{name}.log"));
        let mut process = Process::new(&binary("murmur-node"), args, log);
        for (key, value) in &self.options.env {
            process = process.env(key, value.clone());
        }
        process
    }

    /// A copy of a node's data directory under another socket, as a restored backup or a cloned machine would be. The node must not
    /// run meanwhile, or the copy would be torn.
    ///
    /// # Panics
    /// When it cannot be copied.
    #[must_use]
    pub fn copy(&self, node: &Node, name: &str) -> Node {
        let dir = self.dir.path().join("nodes").join(name);
        copy_dir(&node.dir, &dir);
        let socket = self.dir.path().join(format!("{name}.sock"));
        let process = self.describe_node(name, &dir, &socket, None);
        Node { process, socket, dir, name: node.name.clone() }
    }

    /// An invite for one node of an account.
    ///
    /// # Panics
    /// When the control plane refuses it.
    pub async fn invite(&self, account: &str) -> String {
        let secret = Invite::new_secret().unwrap();
        let scope = vec![format!("/w/{WORKSPACE}/u/{account}/")];
        let mut invite = Invite {
            purpose: Purpose::Node,
            root: self.owner.root.clone(),
            inviter: None,
            cp_url: self.server_url.clone(),
            cp_spki_sha256: Vec::new(),
            secret,
            slug_scope: scope.clone(),
            max_uses: 1,
            expires_ms: 0,
        };
        let request = v1::CreateInviteRequest {
            secret_hash: invite.secret_hash().to_vec().into(),
            account: account.to_owned(),
            slug_scope: scope,
            workspace: WORKSPACE.to_owned(),
            ..Default::default()
        };
        let answer = self.admin().await.auth.create_invite(request).await.unwrap().into_inner();
        invite.expires_ms = u64::try_from(answer.expire_time.unwrap().seconds).unwrap() * 1000;
        invite.sign(&self.owner.key).unwrap()
    }

    /// Signs the pending node of this name, as its owner.
    ///
    /// # Panics
    /// When it never enrols, or its certificate is refused.
    pub async fn approve(&self, name: &str) {
        let node = self.entry(name).await;
        if node.state == v1::NodeState::Approved as i32 {
            return;
        }
        self.sign(node, 1, limits::NODE_CERT_LIFE_MS).await;
    }

    /// As [`Network::node`], with a certificate that ends so soon.
    ///
    /// # Panics
    /// When it never comes up.
    pub async fn node_certified(&self, name: &str, account: &str, life_ms: u64) -> Node {
        let mut node = self.enrol(name, account).await;
        node.process.start();
        let entry = self.entry(name).await;
        self.sign(entry, 1, life_ms).await;
        node.ready().await;
        node
    }

    /// Signs a node's certificate anew, as its owner.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn renew_certificate(&self, name: &str) {
        let entry = self.entry(name).await;
        self.sign(entry, 2, limits::NODE_CERT_LIFE_MS).await;
    }

    /// Revokes everything that the node of this name was given so far, as its owner; `version` is the list's.
    ///
    /// # Panics
    /// When the control plane refuses the list.
    pub async fn revoke(&self, name: &str, version: u64) -> v1::PublishRevocationListResponse {
        let entry = self.entry(name).await;
        let subject_id = *entry.node_id.parse::<NodeId>().unwrap().as_bytes();
        let what = Revoked::Subject { subject_id, serial_lt: u64::MAX };
        let now_ms = now_ms();
        let spec = RevocationListSpec {
            version,
            issued_ms: now_ms,
            next_update_ms: now_ms + limits::REVOCATION_LIST_LIFE_MS_MAX,
            entries: vec![Revocation { what, reason: "stolen".to_owned(), at_ms: now_ms }],
        };
        let list = RevocationList::issue(&self.owner.key, &self.owner.root, &spec).unwrap().encode();
        let request =
            v1::PublishRevocationListRequest { revocation_list: list.into(), workspace: WORKSPACE.to_owned() };
        self.admin().await.nodes.publish_revocation_list(request).await.unwrap().into_inner()
    }

    async fn entry(&self, name: &str) -> v1::Node {
        wait::until("the node has enrolled", || async {
            let nodes = self.admin().await.nodes.list_nodes(v1::ListNodesRequest::default()).await.ok()?;
            nodes.into_inner().nodes.into_iter().find(|node| node.name == name)
        })
        .await
    }

    async fn sign(&self, node: v1::Node, serial: u64, life_ms: u64) {
        let certificate = self.owner.certify(&node, serial, life_ms);
        let request = v1::ApproveNodeRequest { node_id: node.node_id, certificate: certificate.into() };
        wait::until("the node is approved", || async {
            match self.admin().await.nodes.approve_node(request.clone()).await {
                Ok(_) => Some(()),
                // Whatever a test did before may have used up the administrator's calls.
                Err(status) if status.code() == tonic::Code::ResourceExhausted => None,
                Err(status) => panic!("{status:?}"),
            }
        })
        .await;
    }

    /// Every file under the network's folder whose path contains `part`.
    #[must_use]
    pub fn files(&self, part: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        walk(self.dir.path(), &mut found);
        found.retain(|path| path.strip_prefix(self.dir.path()).is_ok_and(|p| p.to_string_lossy().contains(part)));
        found
    }

    async fn create_workspace(&self) {
        let request = v1::CreateWorkspaceRequest {
            name: WORKSPACE.to_owned(),
            mode: v1::WorkspaceMode::Owner.into(),
            root_certificate: self.owner.root.certificate().encode().into(),
        };
        self.admin().await.directory.create_workspace(request).await.unwrap();
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // Agents outlive their nodes.
        crate::spawned::end_all(&self.dir.path().join("nodes"));
    }
}

impl Owner {
    fn new() -> Self {
        let key = IdentityKey::generate().unwrap();
        let workspace_id = WorkspaceId::new_v7(now_ms(), *b"acme-tests");
        let root = issue::root(
            &key,
            RootSpec {
                workspace_id,
                serial: 1,
                validity: Validity::from_now(now_ms() - CERTIFIED_SINCE_MS, limits::ROOT_CERT_LIFE_MS),
                slug_scope: vec![format!("/w/{WORKSPACE}/")],
                origin: Origin::Owner,
            },
        )
        .unwrap();
        Self { key, root }
    }

    fn certify(&self, node: &v1::Node, serial: u64, life_ms: u64) -> Vec<u8> {
        let public_key: [u8; 32] = node.public_key.as_ref().try_into().unwrap();
        Issuer::new(&self.key, self.root.certificate())
            .unwrap()
            .node(NodeSpec {
                node_id: node.node_id.parse::<NodeId>().unwrap(),
                public_key: PublicKey::from_bytes(&public_key).unwrap(),
                serial,
                validity: Validity::from_now(now_ms() - CERTIFIED_SINCE_MS, life_ms),
                slug_scope: node.slug_scope.clone(),
            })
            .unwrap()
            .encode()
    }
}

impl Node {
    /// Waits until it knows the keys of a peer, so that a message to it can leave at once.
    ///
    /// # Panics
    /// When nobody listens on the socket.
    pub async fn knows(&self, slug: &str) {
        wait::until("the peer's keys are known", || async {
            let request = ListPeersRequest::default();
            let peers = self.client().await.host.list_peers(request).await.ok()?.into_inner().peers;
            peers.iter().any(|peer| peer.slug == slug && !peer.fingerprint.is_empty()).then_some(())
        })
        .await;
    }

    /// A client on its socket, speaking without a token.
    ///
    /// # Panics
    /// When nobody listens.
    pub async fn client(&self) -> NodeClient {
        NodeClient::new(connect_socket(&self.socket).await.unwrap(), Headers::new())
    }

    /// The name of its consumer at the broker.
    ///
    /// # Panics
    /// When it does not answer.
    pub async fn consumer(&self) -> String {
        format!("c_{}", self.status().await.unwrap().node_id.replace('-', ""))
    }

    /// Its status, or `None` while it does not answer.
    pub async fn status(&self) -> Option<GetStatusResponse> {
        let channel = connect_socket(&self.socket).await.ok()?;
        let mut client = NodeClient::new(channel, Headers::new());
        Some(client.host.get_status(GetStatusRequest {}).await.ok()?.into_inner())
    }

    /// Waits until one of its findings contains these words.
    pub async fn finds(&self, what: &str) -> Finding {
        wait::until("the node says what is wrong", || async {
            self.status().await?.findings.into_iter().find(|finding| finding.what.contains(what))
        })
        .await
    }

    /// Waits until it is connected to the control plane and to the broker.
    pub async fn ready(&self) {
        wait::until("the node is connected", || async {
            let status = self.status().await?;
            (status.control_plane_connected && status.broker_connected).then_some(())
        })
        .await;
    }

    /// Waits until it knows that the broker is away, so that nothing leaves any more.
    pub async fn cut_off(&self) {
        wait::until("the node knows that the broker is away", || async {
            (!self.status().await?.broker_connected).then_some(())
        })
        .await;
    }

    /// Waits until it has no session: whoever comes next finds every agent free.
    pub async fn unattended(&self) {
        wait::until("the node has no session", || async { (self.status().await?.sessions == 0).then_some(()) }).await;
    }

    /// Starts an MCP session as an agent of this node.
    pub async fn shim(&self, agent: &str) -> Shim {
        self.shim_with(agent, &[]).await
    }

    /// Starts an MCP session in a working directory.
    pub async fn shim_in(&self, agent: &str, dir: &Path, env: &[(&str, &str)]) -> Shim {
        let args: [OsString; 4] = ["--agent".into(), agent.into(), "--socket".into(), self.socket.clone().into()];
        Shim::start_in(Some(dir), args.to_vec(), env).await
    }

    /// Starts an MCP session that relays what its client asks, behind a client of its own.
    pub async fn relaying_shim(&self, agent: &str) -> Shim {
        let args: [OsString; 4] = ["--agent".into(), agent.into(), "--socket".into(), self.socket.clone().into()];
        Shim::start_behind(args.to_vec(), &[("MURMUR_RELAY_PERMISSIONS", "true")]).await
    }

    /// Starts an MCP session with more variables.
    pub async fn shim_with(&self, agent: &str, env: &[(&str, &str)]) -> Shim {
        let args: [OsString; 4] = ["--agent".into(), agent.into(), "--socket".into(), self.socket.clone().into()];
        Shim::start(args.to_vec(), env).await
    }
}

fn start_broker(dir: &Path, port: u16, options: &Options) -> Process {
    let broker_dir = dir.join("broker");
    let mut init = std::process::Command::new(binary("murmur-server"));
    init.args(["broker-init", "--listen", &format!("127.0.0.1:{port}")]).arg("--dir").arg(&broker_dir);
    if options.sync_always {
        init.arg("--sync-always");
    }
    let output = init.output().unwrap();
    assert!(output.status.success(), "broker-init: {}", String::from_utf8_lossy(&output.stderr));
    let config = broker_dir.join("nats-server.conf");
    // As `murmurctl up` starts it.
    Process::new(&nats_server(), vec!["-c".into(), config.into()], dir.join("logs/broker.log")).env("GOGC", "400")
}

fn describe_server(dir: &Path, broker_url: &str, port: u16, options: &Options) -> Process {
    let args: Vec<OsString> = vec![
        "run".into(),
        "--listen".into(),
        format!("127.0.0.1:{port}").into(),
        "--data-dir".into(),
        dir.join("server").into(),
        "--broker-dir".into(),
        dir.join("broker").into(),
        "--broker-url".into(),
        broker_url.into(),
    ];
    let mut process = Process::new(&binary("murmur-server"), args, dir.join("logs/server.log"));
    for (key, value) in &options.env {
        process = process.env(key, value.clone());
    }
    process
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    fs::set_permissions(to, fs::metadata(from).unwrap().permissions()).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let (kind, target) = (entry.file_type().unwrap(), to.join(entry.file_name()));
        if kind.is_dir() {
            copy_dir(&entry.path(), &target);
        } else if kind.is_file() {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&path, found);
        } else {
            found.push(path);
        }
    }
}

fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}
