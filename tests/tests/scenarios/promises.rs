//! Promises around a message that its way alone does not show: who is woken and how often, what a burst costs, who is believed.

use std::{collections::BTreeSet, os::unix::fs::PermissionsExt as _, time::Duration};

use murmur_core::reason::Reason;
use murmur_proto::{
    client::NodeClient,
    node::v1::{AttachRequest, AttachResponse, Message, SendRequest, attach_response::Item},
    status::RpcError,
};
use murmur_tests::{
    network::{Network, Node},
    store,
    talk::{ALICE, BOB, inbox, register},
    wait,
};
use tokio_stream::StreamExt as _;

use crate::{
    metrics::counted,
    pair::{Pair, RATE, draft, nothing_waits, send_all, send_surely, texts},
};

/// An attached program.
struct Session(tonic::Streaming<AttachResponse>);

impl Session {
    async fn attach(node: &Node, agent: &str) -> Self {
        let request = AttachRequest { agent: agent.into(), ..Default::default() };
        Self(node.client().await.sessions.attach(request).await.unwrap().into_inner())
    }

    /// The next message that it is shown.
    async fn shown(&mut self) -> Message {
        let next = async {
            loop {
                if let Some(Item::Message(message)) = self.0.next().await.unwrap().unwrap().item {
                    return message;
                }
            }
        };
        tokio::time::timeout(wait::PATIENCE, next).await.expect("the session is shown a message")
    }
}

#[tokio::test]
async fn only_the_addressee_is_woken_and_once_for_each_message() {
    let pair = Pair::start(&RATE).await;
    let mut sessions = Vec::new();
    for agent in ["bob", "carol", "dave"] {
        register(&pair.there, agent).await;
        pair.here.knows(&format!("/w/acme/u/jdoe/{agent}")).await;
        sessions.push(Session::attach(&pair.there, agent).await);
    }
    // Whoever was woken for another's message, or twice for one, would be shown something else first.
    for round in 0..5 {
        for (agent, session) in ["bob", "carol", "dave"].into_iter().zip(&mut sessions) {
            let text = format!("{round} for {agent}");
            let request = SendRequest { to: agent.into(), ..draft(&text) };
            pair.here.client().await.messages.send(request).await.unwrap();
            let shown = session.shown().await;
            assert_eq!(String::from_utf8_lossy(&shown.body), text);
            assert!(!shown.redelivered);
        }
    }
}

/// The first receipt never takes effect, so the message comes a second time; whoever handles it does so once.
#[tokio::test]
async fn a_message_whose_first_receipt_was_lost_is_handled_once() {
    let mut pair = Pair::start(&[("MURMUR_NODE_REPUBLISH_MS", "[300, 86400000]")]).await;
    let mut bob = Session::attach(&pair.there, "bob").await;
    pair.here.process.terminate().await;
    pair.here.process.start_to_die_at("S6");
    pair.here.ready().await;
    // The node may die before it has answered the one who sends.
    let sending = tokio::spawn(send_all(pair.here.socket.clone(), 1));
    let shown = bob.shown().await;
    pair.here.process.died_at("S6").await;
    pair.here.process.start();
    pair.here.ready().await;
    let mut accepted = sending.await.unwrap();
    assert_eq!(shown.msg_id, accepted[0].msg_id);
    wait::until("the second copy has arrived and was known", || async {
        (counted(&pair.there, "murmur_node_duplicates_total").await? > 0).then_some(())
    })
    .await;
    accepted.push(pair.send("then another").await);
    assert_eq!(bob.shown().await.msg_id, accepted[1].msg_id, "nothing was shown in between");
    pair.settled(&accepted).await;
}

#[tokio::test]
async fn a_burst_of_local_writers_loses_nothing() {
    const WRITERS: usize = 25;
    const EACH: usize = 8;
    let pair = Pair::start(&RATE).await;
    let mut writing = Vec::new();
    for writer in 0..WRITERS {
        let mut client: NodeClient = pair.here.client().await;
        writing.push(tokio::spawn(async move {
            for number in 0..EACH {
                client.messages.send(draft(&format!("{writer}-{number}"))).await.unwrap();
            }
        }));
    }
    for task in writing {
        task.await.unwrap();
    }
    let mut received = wait::until("every message has arrived", || async {
        inbox(&pair.there, "bob").await.filter(|messages| messages.len() >= WRITERS * EACH)
    })
    .await;
    received.sort_by_key(|message| message.sequence);
    let distinct: BTreeSet<_> = texts(&received).into_iter().collect();
    assert_eq!((received.len(), distinct.len()), (WRITERS * EACH, WRITERS * EACH));
    let sequences: Vec<u64> = received.iter().map(|message| message.sequence).collect();
    assert!(sequences.iter().copied().eq(1..=(WRITERS * EACH) as u64), "each has a place of its own: {sequences:?}");
    for writer in 0..WRITERS {
        let own: Vec<_> = texts(&received).into_iter().filter(|text| text.starts_with(&format!("{writer}-"))).collect();
        assert!(own.iter().copied().eq((0..EACH).map(|number| format!("{writer}-{number}"))), "each in its own order");
    }
    nothing_waits(&pair.here).await;
}

#[tokio::test]
async fn the_loop_breaker_trips_says_when_and_clears() {
    let pair = Pair::start(&[("MURMUR_NODE_PAIR_RATE_PER_MINUTE", "300"), ("MURMUR_NODE_PAIR_BURST", "3")]).await;
    let refused = loop {
        if let Err(refused) = pair.here.client().await.messages.send(draft("round and round")).await {
            break refused;
        }
    };
    let error = RpcError::from(&refused);
    assert_eq!(error.reason, Some(Reason::RateLimited), "{refused}");
    let retry_after_ms = error.retry_after_ms.expect("it says when to try again");
    assert!(retry_after_ms <= 200, "one is free again each 200 ms, not {retry_after_ms}");
    send_surely(&pair.here.socket, draft("clear again"), "clear").await;
    // Another pair never felt it.
    register(&pair.there, "carol").await;
    pair.here.knows("/w/acme/u/jdoe/carol").await;
    let request = SendRequest { to: "carol".into(), ..draft("free") };
    pair.here.client().await.messages.send(request).await.unwrap();
}

/// The recipient's copy of the directory is older than the sender, and nobody can bring it up to date.
#[tokio::test]
async fn a_message_from_an_agent_that_the_directory_does_not_know_yet_is_believed_by_its_chain() {
    let mut network = Network::start().await;
    let here = network.node("here", "jdoe").await;
    let mut there = network.node("there", "jdoe").await;
    register(&there, "bob").await;
    here.knows(BOB).await;
    there.process.terminate().await;
    register(&here, "alice").await;
    network.server.kill_9();
    there.process.start();
    wait::until("the node serves from what it remembers", || async {
        there.status().await.filter(|status| status.broker_connected)
    })
    .await;
    here.client().await.messages.send(draft("believe me")).await.unwrap();
    let received =
        wait::until("it has arrived", || async { inbox(&there, "bob").await.filter(|rows| !rows.is_empty()) }).await;
    assert_eq!((received[0].from.as_str(), received[0].tier.as_str()), (ALICE, "verified"));
    assert_eq!(store::rows(&there, "directory_peer WHERE slug LIKE '%/alice'"), 0, "the directory does not know it");
}

/// What a stopped node finds in its socket when it goes on was delivered several times meanwhile: no reason to call it poison.
#[tokio::test]
async fn a_recipient_that_stood_still_takes_every_message_once_and_puts_none_aside() {
    use nix::sys::signal::Signal::{SIGCONT, SIGSTOP};
    let patient = [("MURMUR_SERVER_STREAM_ACK_WAIT_MS", "500"), ("MURMUR_NODE_BROKER_HEARTBEAT_MS", "5000")];
    let pair = Pair::start(&[&RATE[..], &patient[..]].concat()).await;
    pair.there.process.signal(SIGSTOP);
    let accepted = [pair.send("while it stood still").await];
    // This is the fault itself, not a wait for something: eight times what the broker waits for an acknowledgement.
    tokio::time::sleep(Duration::from_secs(4)).await;
    pair.there.process.signal(SIGCONT);
    pair.settled(&accepted).await;
    wait::until("the broker delivered again: the fault was there", || async {
        (counted(&pair.there, "murmur_node_duplicates_total").await? > 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_control_plane_killed_amid_registrations_leaves_no_half_agent() {
    let mut pair = Pair::start(&[]).await;
    let mut names = Vec::new();
    for number in 0..16 {
        let name = format!("agent-{number}");
        let client = pair.here.client().await;
        let request = murmur_proto::node::v1::RegisterRequest { agent: name.clone(), ..Default::default() };
        let registering = tokio::spawn(async move {
            let mut client = client;
            client.sessions.register(request).await
        });
        if number % 2 == 0 {
            pair.network.server.kill_9();
            pair.network.server.start();
        }
        let _ = registering.await.unwrap();
        // A caller that was not answered asks again.
        wait::until(&format!("{name} is registered"), || async {
            let request = murmur_proto::node::v1::RegisterRequest { agent: name.clone(), ..Default::default() };
            pair.here.client().await.sessions.register(request).await.ok()
        })
        .await;
        names.push(name);
    }
    let mut ids = BTreeSet::new();
    for name in &names {
        let slug = format!("/w/acme/u/jdoe/{name}");
        pair.there.knows(&slug).await;
        let request = SendRequest { agent: "bob".into(), to: name.clone(), ..draft("hello") };
        let sent = pair.there.client().await.messages.send(request).await.unwrap().into_inner();
        ids.insert(sent.msg_id);
        wait::until(&format!("{name} has its message"), || async {
            inbox(&pair.here, name).await.filter(|rows| rows.len() == 1)
        })
        .await;
    }
    assert_eq!(ids.len(), names.len());
}

#[tokio::test]
async fn what_a_node_writes_is_for_its_user_alone_and_a_linked_key_is_refused() {
    let mut pair = Pair::start(&[]).await;
    let message = pair.send("hello").await;
    pair.settled(&[message]).await;
    for part in ["nodes/", "server/", "broker/keys"] {
        let files = pair.network.files(part);
        assert!(!files.is_empty());
        for path in files {
            // Files of the node and of the broker come and go beside the test, and so do folders.
            let folder = path.parent().unwrap();
            let (Ok(file), Ok(around)) = (path.metadata(), folder.metadata()) else { continue };
            let [file, around] = [file, around].map(|meta| meta.permissions().mode() & 0o777);
            assert_eq!(file & 0o077, 0, "{} has mode {file:o}", path.display());
            assert_eq!(around, 0o700, "{}", folder.display());
        }
    }
    pair.here.process.terminate().await;
    let key = pair.network.files("nodes/here/").into_iter().find(|path| path.ends_with("agent.key")).unwrap();
    let elsewhere = pair.network.dir.path().join("elsewhere");
    std::fs::rename(&key, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &key).unwrap();
    pair.here.process.start();
    let status = pair.here.process.exited().await;
    let words = pair.here.process.output_of_latest();
    assert_eq!(status.code(), Some(1), "{words}");
    assert!(words.contains("agent.key") && words.contains("symbolic link"), "{words}");
}
