//! Credentials that end and clocks that are wrong, while everything goes on.

use std::fs;

use murmur_tests::{
    network::{Network, Node, Options},
    talk::{ALICE, BOB, introduce, register, send, until_empty, until_texts},
    wait,
};

const HOUR_MS: i64 = 3_600_000;

#[tokio::test]
async fn a_broker_credential_is_renewed_before_it_ends() {
    let network = Network::start_with(short_lived("9000")).await;
    let (here, there) = pair(&network, &[]).await;
    let first = expires(&here).await;
    let mut sent = Vec::new();
    for number in 0..2 {
        // Each round waits for a credential of its own.
        let before = expires(&here).await;
        wait::until("the credential is renewed", || async { (expires(&here).await > before).then_some(()) }).await;
        sent.push(format!("{number}"));
        send(&here, "alice", BOB, sent.last().unwrap()).await;
        let wanted: Vec<&str> = sent.iter().map(String::as_str).collect();
        until_texts(&there, "bob", &wanted).await;
    }
    assert!(expires(&here).await > first);
    until_empty(&here).await;
    let log = here.process.output();
    assert!(!log.to_lowercase().contains("expired"), "it ended before it was renewed: {log}");
}

#[tokio::test]
async fn a_credential_that_ended_while_nobody_could_renew_it_is_renewed_afterwards() {
    let mut network = Network::start_with(short_lived("2000")).await;
    let (here, there) = pair(&network, &[]).await;
    network.server.kill_9();
    wait::until("the broker has thrown both out", || async {
        let (here, there) = (here.status().await?, there.status().await?);
        (!here.broker_connected && !there.broker_connected).then_some(())
    })
    .await;
    send(&here, "alice", BOB, "accepted all the same").await;
    network.server.start();
    until_texts(&there, "bob", &["accepted all the same"]).await;
    until_empty(&here).await;
}

/// Each session is opened with a newer token, and what goes on meanwhile does not notice.
#[tokio::test]
async fn a_nodes_token_is_renewed_before_it_ends() {
    let env = vec![("MURMUR_SERVER_NODE_TOKEN_LIFE_MS".to_owned(), "9000".to_owned())];
    let network = Network::start_with(Options { env, ..Options::default() }).await;
    let (here, there) = pair(&network, &[]).await;
    let token = |node: &Node| fs::read_to_string(node.dir.join("identity/node.token")).unwrap();
    let mut sent = Vec::new();
    for round in 0..2 {
        let before = [token(&here), token(&there)];
        wait::until("both tokens are renewed", || async {
            (token(&here) != before[0] && token(&there) != before[1]).then_some(())
        })
        .await;
        sent.push(format!("{round}"));
        send(&here, "alice", BOB, sent.last().unwrap()).await;
        let wanted: Vec<&str> = sent.iter().map(String::as_str).collect();
        until_texts(&there, "bob", &wanted).await;
        // This needs the control plane, and so a token that holds.
        here.ready().await;
        register(&here, &format!("agent-{round}")).await;
    }
    for node in [&here, &there] {
        let log = node.process.output();
        assert!(!log.contains("TOKEN_") && !log.contains("the token"), "it ended before it was renewed: {log}");
    }
    // A restart goes on with what is on the disk.
    let mut here = here;
    here.process.kill_9();
    here.process.start();
    here.ready().await;
}

/// The owner signs anew while the node runs: it says beforehand that it has to be, takes it up without a restart, and everybody believes the
/// keys under it.
#[tokio::test]
async fn a_nodes_certificate_is_renewed_while_it_runs() {
    const DAY_MS: u64 = 24 * 3600 * 1000;
    let network = Network::start().await;
    let here = network.node_certified("here", "jdoe", 20 * DAY_MS).await;
    let there = network.node("there", "jdoe").await;
    introduce(&here, &there).await;
    let finding = here.finds("certificate ends in").await;
    assert!(finding.remedy.contains("murmurctl node approve"), "{finding:?}");
    send(&here, "alice", BOB, "under the old one").await;
    until_texts(&there, "bob", &["under the old one"]).await;
    let before = fingerprint(&there, ALICE).await;
    network.renew_certificate("here").await;
    wait::until("the other node has the new keys", || async {
        (fingerprint(&there, ALICE).await != before).then_some(())
    })
    .await;
    wait::until("nothing is to be done any more", || async {
        let findings = here.status().await?.findings;
        (!findings.iter().any(|finding| finding.what.contains("certificate"))).then_some(())
    })
    .await;
    send(&here, "alice", BOB, "under the new one").await;
    until_texts(&there, "bob", &["under the old one", "under the new one"]).await;
    send(&there, "bob", ALICE, "and back").await;
    until_texts(&here, "alice", &["and back"]).await;
    until_empty(&here).await;
    until_empty(&there).await;
}

async fn fingerprint(node: &Node, slug: &str) -> String {
    let request = murmur_proto::node::v1::ListPeersRequest::default();
    let peers = node.client().await.host.list_peers(request).await.unwrap().into_inner().peers;
    peers.into_iter().find(|peer| peer.slug == slug).map(|peer| peer.fingerprint).unwrap_or_default()
}

#[tokio::test]
async fn clocks_that_are_an_hour_off_either_way_do_no_harm() {
    let network = Network::start().await;
    let (here, there) = pair(&network, &[HOUR_MS, -HOUR_MS]).await;
    send(&here, "alice", BOB, "from the future").await;
    until_texts(&there, "bob", &["from the future"]).await;
    send(&there, "bob", ALICE, "from the past").await;
    until_texts(&here, "alice", &["from the past"]).await;
    until_empty(&here).await;
    until_empty(&there).await;
    for (node, word) in [(&here, "ahead of"), (&there, "behind")] {
        let finding = node.finds("clock").await;
        // A busy machine measures a second or two wrongly.
        let seconds: Option<u64> = finding.what.split(' ').find_map(|word| word.parse().ok());
        let is_an_hour = seconds.is_some_and(|seconds| (3590..=3610).contains(&seconds));
        assert!(finding.what.contains(word) && is_an_hour, "{finding:?}");
    }
}

#[tokio::test]
async fn a_clock_that_steps_expires_nothing_and_steals_no_lease() {
    let env = [("MURMUR_SERVER_HEARTBEAT_MS", "200"), ("MURMUR_SERVER_LEASE_MS", "2000")];
    let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let network = Network::start_with(Options { env, ..Options::default() }).await;
    let (here, mut there) = pair(&network, &[0, 0]).await;
    let mut sent: Vec<String> = Vec::new();
    for (round, step_ms) in [HOUR_MS, -HOUR_MS, 0].into_iter().enumerate() {
        there.process.kill_9();
        let text = format!("round {round}");
        send_for_ten_minutes(&here, "alice", BOB, &text).await;
        fs::write(clock_file(&network, "here"), step_ms.to_string()).unwrap();
        wait::until("the step is seen", || async {
            let skew_ms = here.status().await?.clock_skew_ms;
            ((skew_ms + step_ms).abs() < 60_000).then_some(())
        })
        .await;
        there.process.start();
        sent.push(text);
        let wanted: Vec<&str> = sent.iter().map(String::as_str).collect();
        until_texts(&there, "bob", &wanted).await;
        until_empty(&here).await;
    }
    assert!(!here.process.output().contains("another process"), "its lease was taken");
}

/// A process that starts anew has only the host's clock to go by, and nobody who says how wrong it is.
#[tokio::test]
async fn a_node_that_starts_without_the_control_plane_goes_on_by_the_time_it_was_told() {
    let mut network = Network::start().await;
    let (mut here, mut there) = pair(&network, &[HOUR_MS, -HOUR_MS]).await;
    for node in [&here, &there] {
        let remembered = node.dir.join("identity/clock");
        wait::until("the time is remembered", || async { remembered.exists().then_some(()) }).await;
    }
    network.server.kill_9();
    for node in [&mut here, &mut there] {
        node.process.terminate().await;
        node.process.start();
    }
    for (from, agent, slug, to, text) in
        [(&here, "alice", BOB, (&there, "bob"), "there"), (&there, "bob", ALICE, (&here, "alice"), "and back")]
    {
        wait::until("the broker is reached", || async { from.status().await?.broker_connected.then_some(()) }).await;
        send_for_ten_minutes(from, agent, slug, text).await;
        until_texts(to.0, to.1, &[text]).await;
    }
    until_empty(&here).await;
    until_empty(&there).await;
}

/// What an hour's error would end.
async fn send_for_ten_minutes(node: &Node, agent: &str, to: &str, text: &str) {
    let request = murmur_proto::node::v1::SendRequest {
        agent: agent.into(),
        to: to.into(),
        body: text.as_bytes().to_vec().into(),
        ttl_seconds: 600,
        ..Default::default()
    };
    node.client().await.messages.send(request).await.unwrap();
}

fn short_lived(life_ms: &str) -> Options {
    let env = vec![("MURMUR_SERVER_BROKER_TOKEN_LIFE_MS".to_owned(), life_ms.to_owned())];
    Options { env, ..Options::default() }
}

/// Alice's node and bob's, with clocks that are off by so much.
async fn pair(network: &Network, offsets_ms: &[i64]) -> (Node, Node) {
    let mut nodes = Vec::new();
    for (index, name) in ["here", "there"].into_iter().enumerate() {
        let mut env = Vec::new();
        if let Some(offset_ms) = offsets_ms.get(index) {
            let file = clock_file(network, name);
            fs::write(&file, offset_ms.to_string()).unwrap();
            env.push(("MURMUR_CLOCK_OFFSET_FILE", file.to_str().unwrap().to_owned()));
        }
        nodes.push(network.node_with(name, "jdoe", &env).await);
    }
    let (there, here) = (nodes.pop().unwrap(), nodes.pop().unwrap());
    introduce(&here, &there).await;
    (here, there)
}

fn clock_file(network: &Network, name: &str) -> std::path::PathBuf {
    network.dir.path().join(format!("{name}.clock"))
}

/// When the node's broker credential ends, Unix seconds.
async fn expires(node: &Node) -> i64 {
    wait::until("the node has a credential", || async {
        Some(node.status().await?.broker_credential_expire_time?.seconds)
    })
    .await
}
