//! Two agents talk both ways while every part is killed with -9 at random: nothing is lost, nothing is doubled, order holds.
//!
//! The chaos follows from a seed, which is printed; `MURMUR_SEED` repeats it. `MURMUR_SOAK_MESSAGES` (each way) and
//! `MURMUR_SOAK_PAUSE_MS` (longest life of a part) make it longer: `make soak`.

use std::{
    collections::HashSet,
    path::PathBuf,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use murmur_proto::node::v1::SendRequest;
use murmur_tests::{
    network::{Network, Node, Options},
    store,
    talk::{inbox, introduce},
    wait,
};

use crate::pair::{nothing_waits, send_surely};

#[tokio::test]
async fn random_kills_lose_nothing_double_nothing_and_keep_the_order() {
    let seed =
        from_env("MURMUR_SEED").unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs());
    let count = from_env("MURMUR_SOAK_MESSAGES").unwrap_or(150);
    let pause_ms = from_env("MURMUR_SOAK_PAUSE_MS").unwrap_or(400).max(1);
    println!("seed {seed}: repeat with MURMUR_SEED={seed}");
    let env = ["MURMUR_NODE_PAIR_RATE_PER_MINUTE", "MURMUR_NODE_PAIR_BURST", "MURMUR_NODE_INBOX_UNREAD_MAX"];
    let env = env.map(|name| (name.to_owned(), "1000000".to_owned())).into();
    let mut network = Network::start_with(Options { env, ..Options::default() }).await;
    let mut here = network.node("here", "jdoe").await;
    let mut there = network.node("there", "jdoe").await;
    introduce(&here, &there).await;

    let began = Instant::now();
    let sending = [(here.socket.clone(), "alice", "bob"), (there.socket.clone(), "bob", "alice")]
        .map(|(socket, from, to)| tokio::spawn(send_all(socket, from, to, count)));
    let (mut random, mut kills) = (Random(seed), [0; 4]);
    while !sending.iter().all(tokio::task::JoinHandle::is_finished) {
        tokio::time::sleep(Duration::from_millis(random.below(pause_ms))).await;
        let chosen = usize::try_from(random.below(4)).unwrap();
        let victim = match chosen {
            0 => &mut here.process,
            1 => &mut there.process,
            2 => &mut network.broker,
            _ => &mut network.server,
        };
        victim.kill_9();
        kills[chosen] += 1;
        tokio::time::sleep(Duration::from_millis(random.below(100))).await;
        victim.start();
    }
    for task in sending {
        task.await.unwrap();
    }
    println!(
        "accepted after {:?}; killed: nodes {} and {}, broker {}, control plane {}",
        began.elapsed(),
        kills[0],
        kills[1],
        kills[2],
        kills[3]
    );
    check_inbox(&there, "bob", "alice", count, seed).await;
    check_inbox(&here, "alice", "bob", count, seed).await;
    for node in [&here, &there] {
        nothing_waits(node).await;
        assert_eq!(store::rows(node, "quarantine"), 0, "{} has quarantined something (seed {seed})", node.name);
        assert_eq!(store::rows(node, "dead_letter"), 0, "{} has given something up (seed {seed})", node.name);
    }
    println!("settled after {:?}", began.elapsed());
}

/// Sends as a careful program does: the same key again until it hears that the message was accepted.
async fn send_all(socket: PathBuf, from: &'static str, to: &'static str, count: u64) {
    for number in 0..count {
        let draft =
            SendRequest { agent: from.into(), to: to.into(), body: number.to_string().into(), ..Default::default() };
        send_surely(&socket, draft, &format!("{from}-{number}")).await;
    }
}

async fn check_inbox(node: &Node, agent: &str, from: &str, count: u64, seed: u64) {
    // As long as something arrives, the rest may follow.
    let mut before = 0;
    while before < count {
        before = wait::until(&format!("more of {from}'s messages than {before} of {count} (seed {seed})"), || async {
            rows(node).await.filter(|now| *now > before)
        })
        .await;
    }
    let received = wait::until("the inbox can be read", || inbox(node, agent)).await;
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

/// Rows in the one inbox of a node, once it serves.
async fn rows(node: &Node) -> Option<u64> {
    node.status().await?;
    Some(store::rows(node, "inbox"))
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
