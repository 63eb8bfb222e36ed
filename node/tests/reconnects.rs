//! A broker that goes away takes all its nodes along, and they must not come back in step: that would be the next outage.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

use std::{
    net::TcpListener as Probe,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use murmur_core::{
    id::{NodeId, WorkspaceId},
    subject::{Route, Shard},
};
use murmur_node::bus::{BrokerCredentials, Bus, BusConfig};
use nkeys::KeyPair;
use tokio::{net::TcpListener, time::timeout};

const NODES: u8 = 50;
/// Tries of each node before the broker is back: by then the waits between two are far longer than any hiccup of this machine.
const TRIES: usize = 6;
/// What counts as at once.
const AT_ONCE: Duration = Duration::from_millis(50);
/// How often the door looks whether it was kept from looking.
const GLANCE: Duration = Duration::from_millis(20);
/// Longer than this between two glances, and this process itself stood still: all that came due meanwhile knocks together.
const HICCUP: Duration = Duration::from_millis(150);
/// Only a test that is going to fail waits this long.
const PATIENCE: Duration = Duration::from_secs(300);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_nodes_that_lose_their_broker_all_come_back_and_not_in_step() {
    let (port, dir) = (free_port(), tempfile::tempdir().unwrap());
    let broker = Broker::start(port, dir.path());
    let mut nodes = Vec::new();
    for number in 1..=NODES {
        let node = NodeId::from_bytes([number; 16]);
        let bus = Bus::new(BusConfig::new(node));
        bus.set_credentials(credentials(node, port)).await.unwrap();
        nodes.push(bus);
    }
    until(&nodes, true).await;
    drop(broker);
    until(&nodes, false).await;

    // In the broker's place a door that is shut again at once, and counts who knocks.
    let door = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let late = timeout(PATIENCE, late_knocks(&door)).await.expect("nodes that try, and three rounds without a hiccup");
    drop(door);
    let _broker = Broker::start(port, dir.path());
    until(&nodes, true).await;

    let busiest =
        late.iter().map(|from| late.iter().filter(|at| **at >= *from && **at - *from < AT_ONCE).count()).max();
    assert!(busiest.unwrap() < usize::from(NODES) / 2, "{busiest:?} of {NODES} nodes knocked at once");
}

/// The last two rounds of knocks, once the nodes have tried often enough. After a hiccup a round is let go by: each node comes out of that
/// with a wait of its own.
async fn late_knocks(door: &TcpListener) -> Vec<Instant> {
    let round = usize::from(NODES);
    let (mut count, mut knocks, mut before) = (0, Vec::new(), Instant::now());
    while count < TRIES * round || knocks.len() < 3 * round {
        let knocked = timeout(GLANCE, door.accept()).await;
        let now = Instant::now();
        if now - before > HICCUP {
            knocks.clear();
        }
        before = now;
        if let Ok(accepted) = knocked {
            drop(accepted.unwrap());
            knocks.push(now);
            count += 1;
        }
    }
    knocks.split_off(knocks.len() - 2 * round)
}

async fn until(nodes: &[Arc<Bus>], is_connected: bool) {
    for bus in nodes {
        bus.connected().wait_for(|connected| *connected == is_connected).await.unwrap();
    }
}

/// A broker that asks for none takes any.
fn credentials(node: NodeId, port: u16) -> BrokerCredentials {
    let workspace = WorkspaceId::from_bytes([9; 16]);
    BrokerCredentials {
        jwt: "none".to_owned(),
        key: Arc::new(KeyPair::new_user()),
        urls: vec![format!("nats://127.0.0.1:{port}")],
        route: Route { site: "local".parse().unwrap(), shard: Shard::ZERO, workspace, node },
        stream: "MM_IN_00".to_owned(),
        consumer: format!("c_{}", node.hex()),
        ca_pem: None,
        expire_ms: u64::MAX,
    }
}

struct Broker(Child);

impl Broker {
    fn start(port: u16, dir: &Path) -> Self {
        let mut command = Command::new(nats_server());
        command.args(["-a", "127.0.0.1", "-p", &port.to_string()]).current_dir(dir);
        Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn nats_server() -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/fetch-nats-server.sh");
    let output = Command::new("sh").arg(script).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "no nats-server: see the message above");
    PathBuf::from(String::from_utf8(output.stdout).unwrap().lines().last().expect("a path"))
}

/// Below the range from which the kernel picks, and beside those of the scenarios.
fn free_port() -> u16 {
    (32_000..32_768)
        .find(|port| Probe::bind(("127.0.0.1", *port)).is_ok())
        .expect("a free port between 32000 and 32767")
}
