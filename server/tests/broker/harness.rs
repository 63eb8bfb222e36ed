//! A real nats-server in a temporary directory, and nodes that connect to it the way a node does.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead, BufReader},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_nats::{
    Auth, AuthError, Client, ConnectOptions, Event,
    jetstream::{self, consumer::PullConsumer, context::PublishErrorKind},
};
use data_encoding::BASE64URL_NOPAD;
use murmur_core::{
    id::{AgentId, NodeId, WorkspaceId},
    subject::{Destination, Route, Shard, consumer_name, inbox_prefix, stream_name},
};
use murmur_server::broker::{
    BrokerAddress, BrokerAdmin, BrokerKeys, InitOptions, NODE_API_PREFIX, NODE_JWT_LIFE_S, Revoker, StreamSettings,
    TlsFiles, init,
};
use nkeys::KeyPair;
use serde_json::{Value, json};
use tokio::sync::{Mutex, mpsc};

pub(crate) const WORKSPACE: WorkspaceId = WorkspaceId::from_bytes([0xaa; 16]);
pub(crate) const STREAM: &str = "MM_IN_00";
/// Only a test that is going to fail waits this long.
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for something that must happen.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what} did not happen"))
}

pub(crate) fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// The time just after a second has begun: tokens end with whole seconds, and of a short one made later a part is gone already.
pub(crate) async fn second_begun() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    tokio::time::sleep(Duration::from_secs(1) - Duration::from_nanos(now.subsec_nanos().into())).await;
    now_s()
}

pub(crate) fn node_id(n: u8) -> NodeId {
    NodeId::from_bytes([n; 16])
}

pub(crate) fn route(n: u8) -> Route {
    Route { site: "local".parse().unwrap(), shard: Shard::ZERO, workspace: WORKSPACE, node: node_id(n) }
}

/// The subject of a message from node `from` to an agent on node `to`.
pub(crate) fn mail(from: u8, to: u8) -> String {
    route(to).subject(Destination::Agent(AgentId::from_bytes([0xee; 16])), node_id(from))
}

/// How the server writes acknowledgement subjects: `$JS.ACK.<stream>.…`, or with domain and account before the stream.
#[derive(Debug, Clone, Copy)]
pub(crate) enum AckLayout {
    First,
    Second,
}

impl AckLayout {
    pub(crate) const BOTH: [Self; 2] = [Self::First, Self::Second];
}

/// A nats-server process; dropping it kills it.
struct Process {
    child: Child,
    address: String,
}

impl Process {
    fn start(config: &Path) -> Self {
        let mut child = Command::new(binary()).arg("-c").arg(config).stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let (mut address, mut line) = (String::new(), String::new());
        while !line.contains("Server is ready") {
            line.clear();
            assert_ne!(log.read_line(&mut line).unwrap(), 0, "nats-server ended; is its configuration right?");
            if let Some((_, listen)) = line.split_once("Listening for client connections on ") {
                address = listen.trim().to_owned();
            }
        }
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Self { child, address }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port below those that the kernel hands out, ours until dropped, even while nobody listens on it. `murmurctl up` takes those from 10000
/// on, scenarios those from 20000 on, and the nodes' tests those from 32000 on.
struct Port {
    number: u16,
    _lock: File,
}

impl Port {
    const FIRST: u16 = 30_000;
    const COUNT: u16 = 2_000;

    fn take() -> Self {
        let folder = std::env::temp_dir().join("murmur-broker-test-ports");
        std::fs::create_dir_all(&folder).unwrap();
        let start = u16::try_from(std::process::id() * 37 % u32::from(Self::COUNT)).unwrap();
        (0..Self::COUNT)
            .map(|step| Self::FIRST + (start + step) % Self::COUNT)
            .find_map(|number| {
                let lock = File::create(folder.join(number.to_string())).unwrap();
                lock.try_lock().ok()?;
                TcpListener::bind(("127.0.0.1", number)).ok()?;
                Some(Self { number, _lock: lock })
            })
            .expect("a free port between 30000 and 31999")
    }
}

fn binary() -> PathBuf {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/fetch-nats-server.sh");
    let output = Command::new("sh").arg(script).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "no nats-server");
    String::from_utf8(output.stdout).unwrap().lines().last().unwrap().into()
}

/// A broker with its keys and the control plane's connections.
pub(crate) struct Broker {
    pub(crate) admin: BrokerAdmin,
    pub(crate) keys: BrokerKeys,
    pub(crate) address: BrokerAddress,
    /// A connection with the control plane's rights, to look at what an attack left behind.
    pub(crate) js: jetstream::Context,
    process: Option<Process>,
    /// Of one that restarts.
    port: Option<Port>,
    dir: tempfile::TempDir,
}

impl Broker {
    pub(crate) async fn start() -> Self {
        Self::start_with(StreamSettings::default(), |_| {}).await
    }

    /// Starts on a port that stays its own while it is away: one of the kernel's choice may be somebody else's by the time it is back.
    pub(crate) async fn start_lasting() -> Self {
        let port = Port::take();
        let options = options(&format!("127.0.0.1:{}", port.number), None);
        let broker = Box::pin(Self::start_from(options, StreamSettings::default(), |_| {})).await;
        Self { port: Some(port), ..broker }
    }

    /// Starts with other stream settings and a changed server configuration.
    pub(crate) async fn start_with(settings: StreamSettings, change: impl FnOnce(&mut Value)) -> Self {
        Box::pin(Self::start_from(options("127.0.0.1:0", None), settings, change)).await
    }

    /// Starts with this layout of acknowledgements.
    pub(crate) async fn start_in(layout: AckLayout) -> Self {
        let second = matches!(layout, AckLayout::Second);
        Self::start_with(StreamSettings::default(), |config| {
            if second {
                config["feature_flags"] = json!({"js_ack_fc_v2": true});
            }
        })
        .await
    }

    /// Starts on every interface, with the certificate that this takes.
    pub(crate) async fn start_tls(tls: TlsFiles) -> Self {
        Box::pin(Self::start_from(options("0.0.0.0:0", Some(tls)), StreamSettings::default(), |_| {})).await
    }

    async fn start_from(options: InitOptions, settings: StreamSettings, change: impl FnOnce(&mut Value)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let layout = init(&dir.path().join("broker"), &options, now_s()).unwrap();
        let mut config: Value = serde_json::from_slice(&std::fs::read(&layout.config).unwrap()).unwrap();
        change(&mut config);
        std::fs::write(&layout.config, config.to_string()).unwrap();

        let process = Process::start(&layout.config);
        let keys = BrokerKeys::load(&layout.keys).unwrap();
        let url = process.address.replace("0.0.0.0", "127.0.0.1");
        let address = BrokerAddress { url, ca: options.tls.map(|tls| tls.cert) };
        let admin = BrokerAdmin::connect(&address, &keys, settings, now_s()).await.unwrap();
        admin.ensure_stream(&route(0).site, Shard::ZERO).await.unwrap();
        let js = jetstream::new(admin.client());
        Self { admin, keys, address, js, process: Some(process), port: None, dir }
    }

    /// Stops the server, prepares its directory again as the control plane does at each start, and starts it on the same port.
    pub(crate) fn restart(&mut self) {
        self.stop();
        let layout = init(&self.dir.path().join("broker"), &options(&self.address.url, None), now_s()).unwrap();
        self.process = Some(Process::start(&layout.config));
    }

    /// Stops the server and starts it with claims of the servers' account that `change` changed, as another version had left them.
    pub(crate) fn restart_with_sys(&mut self, change: impl FnOnce(&mut Value)) {
        self.stop();
        let mut claims = self.sys_claims();
        claims["iat"] = json!(claims["iat"].as_u64().unwrap() + 1);
        change(&mut claims["nats"]);
        let encode = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
        let signed = format!("{}.{}", encode(&json!({"typ": "JWT", "alg": "ed25519-nkey"})), encode(&claims));
        let signature = self.stolen_key("operator").sign(signed.as_bytes()).unwrap();
        std::fs::write(self.sys_file(), format!("{signed}.{}", BASE64URL_NOPAD.encode(&signature))).unwrap();
        self.process = Some(Process::start(&self.dir.path().join("broker/nats-server.conf")));
    }

    fn stop(&mut self) {
        assert!(self.port.is_some(), "a broker that restarts is started by `start_lasting`");
        self.process = None;
    }

    /// The claims of the servers' account that the server holds.
    pub(crate) fn sys_claims(&self) -> Value {
        let token = std::fs::read_to_string(self.sys_file()).unwrap();
        serde_json::from_slice(&BASE64URL_NOPAD.decode(token.split('.').nth(1).unwrap().as_bytes()).unwrap()).unwrap()
    }

    fn sys_file(&self) -> PathBuf {
        self.dir.path().join(format!("broker/accounts/{}.jwt", self.stolen_key("sys").public_key()))
    }

    pub(crate) async fn revoker(&self) -> Revoker {
        Revoker::connect(&self.address, &self.keys, now_s()).await.unwrap()
    }

    /// Connects node `n` and makes its consumer.
    pub(crate) async fn node(&self, n: u8) -> Node {
        self.admin.ensure_consumer(&route(n)).await.unwrap();
        Node::connect(self, n, KeyPair::new_user(), now_s()).await.unwrap()
    }

    /// Messages in the stream.
    pub(crate) async fn stored(&self) -> u64 {
        self.js.get_stream(STREAM).await.unwrap().get_info().await.unwrap().state.messages
    }

    /// What an attack by node `attacker` must leave as it was. What that node may change, its own consumer, is left out.
    pub(crate) async fn picture(&self, attacker: u8) -> Picture {
        let own = consumer_name(node_id(attacker));
        let (config, subjects, consumers) = self.settled(|name| name != own).await;
        Picture { config, subjects, consumers: consumers.iter().map(standing).collect() }
    }

    /// The stream's configuration, its messages by subject, and the consumers that count, once each of these knows of all that is stored
    /// for it: a consumer hears of a message a moment after its sender.
    async fn settled(&self, counts: impl Fn(&str) -> bool) -> (Value, BTreeMap<String, u64>, Vec<Value>) {
        let ask = async |verb: &str, body: &'static str| -> Value {
            let answer = self.admin.client().request(format!("$JS.API.{verb}.{STREAM}"), body.into()).await.unwrap();
            serde_json::from_slice(&answer.payload).unwrap()
        };
        soon("consumers that know what is stored for them", async {
            loop {
                let stream = ask("STREAM.INFO", r#"{"subjects_filter":">"}"#).await;
                let subjects = serde_json::from_value(stream["state"]["subjects"].clone()).unwrap_or_default();
                let list = ask("CONSUMER.LIST", "").await;
                let mut consumers = list["consumers"].as_array().unwrap().clone();
                consumers.retain(|consumer| counts(consumer["name"].as_str().unwrap()));
                if consumers.iter().all(|consumer| knows_all(consumer, &subjects)) {
                    return (stream["config"].clone(), subjects, consumers);
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
    }

    /// The seed of one of the broker's keys, as its file holds it.
    pub(crate) fn stolen_key(&self, name: &str) -> KeyPair {
        let seed = std::fs::read_to_string(self.dir.path().join(format!("broker/keys/{name}.seed"))).unwrap();
        KeyPair::from_seed(seed.trim()).unwrap()
    }

    /// What the broker has done for node `n` so far.
    pub(crate) async fn progress(&self, n: u8) -> Progress {
        let name = consumer_name(node_id(n));
        let (_, _, consumers) = self.settled(|of| of == name).await;
        let [consumer] = &consumers[..] else { panic!("node {n} has one consumer: {consumers:?}") };
        let count = |value: &Value| value.as_u64().unwrap();
        Progress {
            delivered: count(&consumer["delivered"]["consumer_seq"]),
            unacknowledged: count(&consumer["num_ack_pending"]),
            waiting: count(&consumer["num_pending"]),
        }
    }
}

/// Whether a consumer knows of all that is stored for it. What is acknowledged is stored no longer.
fn knows_all(consumer: &Value, subjects: &BTreeMap<String, u64>) -> bool {
    let prefix = consumer["config"]["filter_subject"].as_str().unwrap().trim_end_matches('>');
    let stored = subjects.iter().filter(|(subject, _)| subject.starts_with(prefix)).map(|(_, count)| count);
    let known = ["num_pending", "num_ack_pending"].map(|field| consumer[field].as_u64().unwrap());
    known.iter().sum::<u64>() == stored.sum::<u64>()
}

/// The state of the broker, but for times.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Picture {
    config: Value,
    /// Messages by subject.
    pub(crate) subjects: BTreeMap<String, u64>,
    consumers: BTreeMap<String, Value>,
}

/// A consumer's name, and everything about it that somebody else could have changed.
fn standing(consumer: &Value) -> (String, Value) {
    let count = |part: &str| consumer[part]["consumer_seq"].clone();
    let fields = ["config", "num_ack_pending", "num_pending", "num_redelivered", "paused"];
    let mut standing: Value = fields.into_iter().map(|field| (field.to_owned(), consumer[field].clone())).collect();
    standing["delivered"] = count("delivered");
    standing["acknowledged"] = count("ack_floor");
    (consumer["name"].as_str().unwrap().to_owned(), standing)
}

/// How far a consumer has come.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) delivered: u64,
    pub(crate) unacknowledged: u64,
    pub(crate) waiting: u64,
}

fn options(listen: &str, tls: Option<TlsFiles>) -> InitOptions {
    InitOptions { tls, ..InitOptions::new(listen.parse().unwrap(), "local".parse().unwrap()) }
}

/// A node's broker credentials, as the control plane hands them out.
pub(crate) fn token(broker: &Broker, n: u8, nkey: &KeyPair, issued_s: u64, life_s: u64) -> String {
    broker.keys.node_user_jwt(node_id(n), &[WORKSPACE], &nkey.public_key(), issued_s, life_s).unwrap()
}

/// A connection with a node's rights and a node's settings.
pub(crate) struct Node {
    pub(crate) n: u8,
    pub(crate) client: Client,
    pub(crate) js: jetstream::Context,
    pub(crate) inbox: String,
    pub(crate) nkey: String,
    events: Mutex<mpsc::UnboundedReceiver<Event>>,
}

impl Node {
    pub(crate) async fn connect(
        broker: &Broker,
        n: u8,
        nkey: KeyPair,
        issued_s: u64,
    ) -> Result<Self, async_nats::ConnectError> {
        let token = token(broker, n, &nkey, issued_s, NODE_JWT_LIFE_S);
        Self::connect_with(broker, n, nkey, move || token.clone()).await
    }

    /// Connects with whatever `token` yields at each attempt.
    pub(crate) async fn connect_with(
        broker: &Broker,
        n: u8,
        nkey: KeyPair,
        token: impl Fn() -> String + Send + Sync + 'static,
    ) -> Result<Self, async_nats::ConnectError> {
        let public = nkey.public_key();
        let (seen, events) = mpsc::unbounded_channel();
        let inbox = inbox_prefix(node_id(n), [n; 16]);
        let client = ConnectOptions::with_auth_callback(move |nonce| {
            let mut auth = Auth::new();
            auth.jwt = Some(token());
            let auth = nkey.sign(&nonce).map_err(AuthError::new).map(|signature| {
                auth.signature = Some(signature);
                auth
            });
            async move { auth }
        })
        .custom_inbox_prefix(&inbox)
        .event_callback(move |event| {
            let _ = seen.send(event);
            async {}
        })
        .connect(&broker.address.url)
        .await?;
        let js = jetstream::with_prefix(client.clone(), NODE_API_PREFIX);
        Ok(Self { n, client, js, inbox, nkey: public, events: Mutex::new(events) })
    }

    /// Returns once the broker has read everything that was published before.
    pub(crate) async fn flushed(&self) {
        soon("a flush", self.client.flush()).await.unwrap();
    }

    /// Publishes as a node does, and waits for the broker's word.
    pub(crate) async fn send(&self, to: u8, body: &str) -> Result<u64, PublishErrorKind> {
        let ack = self.js.publish(mail(self.n, to), body.to_owned().into()).await.unwrap();
        ack.await.map(|ack| ack.sequence).map_err(|error| error.kind())
    }

    pub(crate) async fn consumer(&self) -> PullConsumer {
        self.js.get_consumer_from_stream(consumer_name(node_id(self.n)), stream_name(Shard::ZERO)).await.unwrap()
    }

    /// Publishes something forbidden and waits until the broker says so.
    pub(crate) async fn publish_denied(&self, subject: &str, body: &'static str) {
        self.client.publish_with_reply(subject.to_owned(), format!("{}.x", self.inbox), body.into()).await.unwrap();
        self.violation(&format!("Publish to \"{subject}\"")).await;
    }

    /// Subscribes to something forbidden and waits until the broker says so.
    pub(crate) async fn subscribe_denied(&self, subject: &str) {
        let _subscription = self.client.subscribe(subject.to_owned()).await.unwrap();
        self.violation(&format!("Subscription to \"{subject}\"")).await;
    }

    /// Waits until the broker says that something was forbidden.
    pub(crate) async fn violation(&self, text: &str) {
        let text = format!("permissions violation for {text}").to_lowercase();
        self.event(&text, |event| event.to_string().to_lowercase().contains(&text)).await;
    }

    /// Waits for a connection event.
    pub(crate) async fn event(&self, what: &str, wanted: impl Fn(&Event) -> bool) {
        let mut events = self.events.lock().await;
        soon(what, async {
            while let Some(event) = events.recv().await {
                if wanted(&event) {
                    return;
                }
            }
            panic!("the connection is gone before: {what}");
        })
        .await;
    }
}
