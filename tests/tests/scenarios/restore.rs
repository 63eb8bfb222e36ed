//! A node that starts on an old copy of its data directory (PROTOCOL §2.6, §3.7).

use std::fs;

use murmur_tests::{
    network::{Network, Node, Options},
    talk::{ALICE, BOB, introduce, send, texts, until_empty},
    wait,
};

#[tokio::test]
async fn a_restored_node_says_so_and_nothing_new_is_taken_for_a_duplicate() {
    // What the old copy has never seen is waited for a moment only.
    let env = vec![("MURMUR_NODE_GAP_WAIT_MS".to_owned(), "300".to_owned())];
    let network = Network::start_with(Options { env, ..Options::default() }).await;
    let (here, mut there) = (network.node("here", "jdoe").await, network.node("there", "jdoe").await);
    introduce(&here, &there).await;
    exchange(&here, &there, "before").await;
    there.process.terminate().await;
    let old = network.copy(&there, "old");
    there.process.start();
    there.ready().await;
    let fingerprint = keys_of(&here, BOB).await;
    exchange(&here, &there, "between").await;
    assert!(there.status().await.unwrap().findings.iter().all(|finding| !finding.what.contains("restored")));

    there.process.terminate().await;
    fs::remove_dir_all(&there.dir).unwrap();
    fs::rename(&old.dir, &there.dir).unwrap();
    there.process.start();
    there.ready().await;
    let told = there.finds("restored from an older copy").await;
    assert!(told.remedy.contains("senders"), "{told:?}");
    wait::until("its agent has other keys", || async { (keys_of(&here, BOB).await != fingerprint).then_some(()) })
        .await;
    exchange(&here, &there, "after").await;
    until_empty(&here).await;
    until_empty(&there).await;
    assert_eq!(sorted(&here, "alice").await, rounds(&["after", "before", "between"]));
    assert_eq!(sorted(&there, "bob").await, rounds(&["after", "before"]), "what came between is gone with the disk");

    // It is told once; the next start is an ordinary one.
    there.process.terminate().await;
    there.process.start();
    there.ready().await;
    assert!(there.status().await.unwrap().findings.iter().all(|finding| !finding.what.contains("restored")));
}

fn rounds(names: &[&str]) -> Vec<String> {
    names.iter().flat_map(|name| (0..3).map(move |number| format!("{name} {number}"))).collect()
}

/// Three messages each way, and both sides know that they have arrived: a copy of the disk that knew less would ask again in its own time.
async fn exchange(here: &Node, there: &Node, name: &str) {
    for number in 0..3 {
        send(here, "alice", BOB, &format!("{name} {number}")).await;
        send(there, "bob", ALICE, &format!("{name} {number}")).await;
    }
    for (node, agent) in [(here, "alice"), (there, "bob")] {
        wait::until("the round has arrived", || async {
            let found = texts(node, agent).await?;
            (0..3).all(|number| found.contains(&format!("{name} {number}"))).then_some(())
        })
        .await;
        until_empty(node).await;
    }
}

async fn sorted(node: &Node, agent: &str) -> Vec<String> {
    let mut found = texts(node, agent).await.unwrap();
    found.sort();
    found
}

/// The fingerprint of an agent's certificate, as another node sees it.
async fn keys_of(node: &Node, slug: &str) -> String {
    let request = murmur_proto::node::v1::ListPeersRequest::default();
    let peers = node.client().await.host.list_peers(request).await.unwrap().into_inner().peers;
    peers.into_iter().find(|peer| peer.slug == slug).unwrap().fingerprint
}
