//! Credentials for a real nats-server.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use async_nats::{AuthError, Client, ConnectOptions};
use murmur_core::reason::Reason;
use murmur_proto::{status::RpcError, v1};
use murmur_server::config::Config;

use crate::{
    binary,
    world::{NodeKit, World},
};

/// A nats-server process; dropping it kills it.
struct Nats {
    child: Child,
    url: String,
}

impl Nats {
    fn start(config: &str) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/fetch-nats-server.sh");
        let found = Command::new("sh").arg(script).stderr(Stdio::inherit()).output().unwrap();
        assert!(found.status.success(), "no nats-server");
        let binary = PathBuf::from(String::from_utf8(found.stdout).unwrap().lines().last().unwrap());
        let mut child = Command::new(binary).args(["-c", config]).stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut url = String::new();
        loop {
            let line = log.next().unwrap().unwrap();
            if let Some((_, listen)) = line.split_once("Listening for client connections on ") {
                url = format!("nats://{}", listen.trim());
            }
            if line.contains("Server is ready") {
                break;
            }
        }
        std::thread::spawn(move || log.count());
        Self { child, url }
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn init(dir: &Path) -> String {
    let done = binary::output(&["broker-init", "--dir", dir.to_str().unwrap(), "--listen", "127.0.0.1:0"]);
    let layout: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    layout["config"].as_str().unwrap().to_owned()
}

/// A control plane with this broker, which is of a folder of `dir`.
async fn beside(nats: &Nats, dir: &Path, change: impl FnOnce(&mut Config)) -> World {
    World::with(|config| {
        config.broker_dir = Some(dir.join("broker"));
        config.broker_url = nats.url.clone();
        // Whoever waits for the broker asks again and again.
        config.calls_per_second = 100_000.try_into().unwrap();
        change(config);
    })
    .await
}

/// The node's credentials, once the control plane has found the broker.
async fn credentials(world: &World, node: &NodeKit) -> v1::GetBrokerCredentialsResponse {
    let request = v1::GetBrokerCredentialsRequest { broker_public_key: node.broker.public_key(), redeliver: false };
    loop {
        match node.client(world).nodes.get_broker_credentials(request.clone()).await {
            Ok(credentials) => return credentials.into_inner(),
            Err(status) => assert_eq!(RpcError::from(&status).reason, Some(Reason::BrokerDown), "{status:?}"),
        }
    }
}

async fn connect(node: &NodeKit, given: &v1::GetBrokerCredentialsResponse) -> Client {
    let key = node.broker.clone();
    let options = ConnectOptions::with_jwt(given.jwt.clone(), move |nonce| {
        let signed = key.sign(&nonce).map_err(AuthError::new);
        async move { signed }
    });
    options.custom_inbox_prefix(format!("_INBOX_{}", node.id.hex())).connect(&given.urls[0]).await.unwrap()
}

/// Publishes, and returns the broker's answer.
async fn publish(client: &Client, subject: String, size: usize) -> serde_json::Value {
    let answer = client.request(subject, vec![b'x'; size].into()).await.unwrap();
    serde_json::from_slice(&answer.payload).unwrap()
}

#[tokio::test]
async fn mail_to_nodes_that_do_not_exist_does_not_fill_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let nats = Nats::start(&init(&dir.path().join("broker")));
    let world = beside(&nats, dir.path(), |config| config.stream_max_bytes = 1 << 20).await;
    let owner = world.workspace("acme").await;
    let (thief, honest) = (world.node(&owner, "jdoe", 1).await, world.node(&owner, "sam", 2).await);
    let (its, theirs) = (credentials(&world, &thief).await, credentials(&world, &honest).await);
    let client = connect(&thief, &its).await;
    let waits = format!("{}._ack.{}", theirs.route, thief.id.hex());
    assert_eq!(publish(&client, waits.clone(), 10).await["stream"], "MM_IN_00");
    // Nodes that could be, and addresses that no node could have.
    let workspace = owner.root.workspace_id().hex();
    let mut sent = 0;
    loop {
        let node = match sent {
            // In a filter these would be the mail of everybody.
            0 => "*".to_owned(),
            1 => ">".to_owned(),
            sent if sent % 2 == 0 => format!("{sent:032x}"),
            sent => format!("no-node-{sent}"),
        };
        let subject = format!("mm.in.local.00.{workspace}.{node}._ack.{}", thief.id.hex());
        if publish(&client, subject, 10_000).await.get("error").is_some() {
            break;
        }
        sent += 1;
    }
    assert!(sent > 50, "the store was full after {sent}");
    let freed = async {
        while publish(&client, waits.clone(), 10_000).await.get("error").is_some() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), freed).await.expect("the store stays full");
    // What somebody takes is still there: the first one, and the one that found room.
    let consumer = format!("mmjs.API.CONSUMER.INFO.MM_IN_00.{}", theirs.consumer);
    let client = connect(&honest, &theirs).await;
    let answer = client.request(consumer, "".into()).await.unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&answer.payload).unwrap();
    assert_eq!(answer["num_pending"], 2, "{answer}");
}

#[tokio::test]
async fn a_node_reaches_the_broker_with_what_it_was_given() {
    let dir = tempfile::tempdir().unwrap();
    let nats = Nats::start(&init(&dir.path().join("broker")));
    let world = beside(&nats, dir.path(), |_| ()).await;
    let owner = world.workspace("acme").await;
    let node = world.node(&owner, "jdoe", 1).await;
    let before = node.register(&world, "alice").await.unwrap().agent.unwrap();
    assert_eq!(before.route, "");
    let given = credentials(&world, &node).await;
    let workspace = owner.root.workspace_id().hex();
    assert_eq!(given.route, format!("mm.in.local.00.{workspace}.{}", node.id.hex()));
    assert_eq!((given.stream.as_str(), given.consumer.clone()), ("MM_IN_00", format!("c_{}", node.id.hex())));
    let after = node.register(&world, "alice").await.unwrap().agent.unwrap();
    assert!(after.route == given.route && after.revision > before.revision);

    let client = connect(&node, &given).await;
    // A publish into its own lane is stored, which the answer of the stream proves.
    let answer = client.request(format!("{}._ack.{}", given.route, node.id.hex()), "hello".into()).await.unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&answer.payload).unwrap();
    assert_eq!(answer["stream"], "MM_IN_00", "{answer}");

    assert!(crate::pages::page(&world, "/readyz").await.starts_with("HTTP/1.1 200"));
    drop(nats);
    let lost = async { while !crate::pages::page(&world, "/readyz").await.starts_with("HTTP/1.1 503") {} };
    tokio::time::timeout(Duration::from_secs(20), lost).await.expect("the loss of the broker does not show");
}
