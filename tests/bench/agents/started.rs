//! Agents with processes: from the call until it runs, and from its process's end until whoever waits knows.

use std::{fs, path::Path, time::Instant};

use murmur_proto::v1::{self, Phase};
use murmur_tests::{
    network::{Network, Node},
    spawned::Owner,
};
use nix::{sys::stat::Mode, unistd::mkfifo};

use super::{ACCOUNT, latencies};
use crate::{model::Table, samples::Samples};

const STARTS: usize = 200;
/// Unmeasured ones, while files and caches warm up.
const WARM_UP: usize = 10;

/// Spawns and ends one after the other, through a node's socket.
pub(super) async fn measure(network: &Network) -> Table {
    let mut node = network.host("starts", ACCOUNT).await;
    let owner = node.owner(ACCOUNT).await;
    let mut samples: [Vec<_>; 3] = Default::default();
    for number in 0..WARM_UP + STARTS {
        let times = one(&node, &owner, number).await;
        if number >= WARM_UP {
            samples.iter_mut().zip(times).for_each(|(samples, time)| samples.push(time));
        }
    }
    node.process.terminate().await;
    let mut table = latencies("an agent with a process");
    let names = [
        "spawn, until the call is answered",
        "spawn, until a waiter hears that it runs",
        "the process ends, until a waiter hears that it is done",
    ];
    for (name, samples) in names.into_iter().zip(samples) {
        let samples = Samples::new(samples);
        table.row(name, vec![samples.p50().into(), samples.p99().into()]);
    }
    table
}

/// Starts a shell that ends when it may.
async fn one(node: &Node, owner: &Owner, number: usize) -> [std::time::Duration; 3] {
    let pipe = node.dir.join(format!("end-{number}"));
    mkfifo(&pipe, Mode::S_IRWXU).unwrap();
    let path = format!("a{number}");
    let description = format!("read line < {}", pipe.display());
    let start = Instant::now();
    owner.spawn(&path, v1::AgentSpec { description, ..Default::default() }).await;
    let answered = start.elapsed();
    owner.is(&path, Phase::Running).await;
    let running = start.elapsed();
    let wait = v1::WaitAgentRequest { slug: owner.slug(&path), ..Default::default() };
    let mut answers = owner.client().agents.wait_agent(wait).await.unwrap().into_inner();
    // Opening it waits for the reader.
    let mut end = open(&pipe).await;
    let start = Instant::now();
    std::io::Write::write_all(&mut end, b"\n").unwrap();
    let answer = answers.message().await.unwrap().unwrap();
    assert!(answer.matched, "{answer:?}");
    let heard = start.elapsed();
    owner.is(&path, Phase::Completed).await;
    [answered, running, heard]
}

async fn open(pipe: &Path) -> fs::File {
    let pipe = pipe.to_owned();
    tokio::task::spawn_blocking(move || fs::OpenOptions::new().write(true).open(pipe).unwrap()).await.unwrap()
}
