//! Two agents talk both ways while every part is killed with -9 at random: nothing is lost, nothing is doubled, order holds.
//!
//! The chaos follows from a seed, which a failure prints; `MURMUR_SEED` repeats it and `MURMUR_SOAK_MESSAGES` makes it longer.

use std::{
    collections::HashSet,
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use murmur_proto::{
    client::{Headers, NodeClient, connect_socket},
    node::v1::{ListInboxRequest, Message, RegisterRequest, SendRequest},
};
use murmur_tests::{
    network::{Network, Node, Options},
    wait,
};

#[tokio::test]
async fn random_kills_lose_nothing_double_nothing_and_keep_the_order() {
    let seed =
        from_env("MURMUR_SEED").unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs());
    let count = from_env("MURMUR_SOAK_MESSAGES").unwrap_or(150);
    println!("seed {seed}: repeat with MURMUR_SEED={seed}");
    let env = ["MURMUR_NODE_PAIR_RATE_PER_MINUTE", "MURMUR_NODE_PAIR_BURST"];
    let env = env.map(|name| (name.to_owned(), "1000000".to_owned())).into();
    let mut network = Network::start_with(Options { env, ..Options::default() }).await;
    let mut here = network.node("here", "jdoe").await;
    let mut there = network.node("there", "jdoe").await;
    register(&here, "alice").await;
    register(&there, "bob").await;
    here.knows("/w/acme/u/jdoe/bob").await;
    there.knows("/w/acme/u/jdoe/alice").await;

    let sending = [(here.socket.clone(), "alice", "bob"), (there.socket.clone(), "bob", "alice")]
        .map(|(socket, from, to)| tokio::spawn(send_all(socket, from, to, count)));
    let mut random = Random(seed);
    while !sending.iter().all(tokio::task::JoinHandle::is_finished) {
        tokio::time::sleep(Duration::from_millis(random.below(400))).await;
        let victim = match random.below(4) {
            0 => &mut here.process,
            1 => &mut there.process,
            2 => &mut network.broker,
            _ => &mut network.server,
        };
        victim.kill_9();
        tokio::time::sleep(Duration::from_millis(random.below(100))).await;
        victim.start();
    }
    for task in sending {
        task.await.unwrap();
    }
    check_inbox(&there, "bob", "alice", count, seed).await;
    check_inbox(&here, "alice", "bob", count, seed).await;
    for node in [&here, &there] {
        wait::until("the outbox is empty", || async {
            node.status().await?.outbox.values().all(|open| *open == 0).then_some(())
        })
        .await;
    }
}

/// Sends as a careful program does: the same key again until it hears that the message was accepted.
async fn send_all(socket: PathBuf, from: &'static str, to: &'static str, count: u64) {
    for number in 0..count {
        wait::until("the node accepts the message", || async {
            let channel = connect_socket(&socket).await.ok()?;
            let request = SendRequest {
                agent: from.into(),
                to: to.into(),
                body: number.to_string().into(),
                idempotency_key: format!("{from}-{number}"),
                ..Default::default()
            };
            NodeClient::new(channel, Headers::new()).messages.send(request).await.ok()
        })
        .await;
    }
}

async fn check_inbox(node: &Node, agent: &str, from: &str, count: u64, seed: u64) {
    let received = wait::until("every message has arrived", || async {
        let received = inbox(node, agent).await?;
        (received.len() as u64 >= count).then_some(received)
    })
    .await;
    let bodies: Vec<u64> =
        received.iter().map(|message| String::from_utf8_lossy(&message.body).parse().unwrap()).collect();
    let distinct: HashSet<_> = bodies.iter().collect();
    assert_eq!(bodies.len() as u64, count, "{agent} has doubles from {from} (seed {seed}): {bodies:?}");
    assert_eq!(distinct.len() as u64, count, "{agent} misses messages from {from} (seed {seed}): {bodies:?}");
    let mut by_sequence = received;
    by_sequence.sort_by_key(|message| message.sequence);
    let in_order = by_sequence.iter().map(|message| String::from_utf8_lossy(&message.body).parse::<u64>().unwrap());
    assert!(in_order.eq(0..count), "sequence numbers do not follow the order of sending (seed {seed})");
}

/// Everything in an agent's inbox, read or not.
async fn inbox(node: &Node, agent: &str) -> Option<Vec<Message>> {
    let channel = connect_socket(&node.socket).await.ok()?;
    let mut client = NodeClient::new(channel, Headers::new());
    let (mut messages, mut after) = (Vec::new(), 0);
    loop {
        let request =
            ListInboxRequest { agent: agent.into(), after, limit: 1000, peek: true, all: true, ..Default::default() };
        let page = client.messages.list_inbox(request).await.ok()?.into_inner();
        messages.extend(page.messages);
        if page.next_after == 0 {
            return Some(messages);
        }
        after = page.next_after;
    }
}

async fn register(node: &Node, agent: &str) {
    let request = RegisterRequest { agent: agent.into(), ..Default::default() };
    node.client().await.sessions.register(request).await.unwrap();
}

fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} must be a number")))
}

/// SplitMix64: enough to choose victims, and the same on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}
