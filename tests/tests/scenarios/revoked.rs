//! A node that its owner revokes is out: at the control plane, at the broker, and with every other node (PROTOCOL §3.6).

use std::{fs, process::Output};

use murmur_proto::{
    node::v1::{DeliveryState, GetDeliveryRequest, ListQuarantineRequest},
    v1::NodeState,
};
use murmur_tests::{
    home::Home,
    network::{Node, Options},
    process::{Process, binary},
    talk::{ALICE, BOB, alice_and_bob, send, texts, until_empty, until_texts},
    wait,
};

#[tokio::test]
async fn what_a_revoked_node_signed_is_taken_by_nobody() {
    let (network, mut here, there) = alice_and_bob(Options::default()).await;
    send(&there, "bob", ALICE, "honest").await;
    until_texts(&here, "alice", &["honest"]).await;
    until_empty(&there).await;
    here.process.terminate().await;
    send(&there, "bob", ALICE, "by a thief").await;
    stored(&there).await;

    let answer = network.revoke("there", 1).await;
    assert!(answer.broker_told);
    assert_eq!(answer.nodes.iter().map(|node| node.state()).collect::<Vec<_>>(), [NodeState::Revoked]);
    there.cut_off().await;
    there.finds("the control plane refuses this node").await;

    here.process.start();
    here.ready().await;
    wait::until("it is put aside", || async {
        let request = ListQuarantineRequest::default();
        let found = here.client().await.outbox.list_quarantine(request).await.ok()?.into_inner().arrivals;
        found.iter().any(|row| row.reason == "REVOKED").then_some(())
    })
    .await;
    assert_eq!(texts(&here, "alice").await.unwrap(), ["honest"], "what came before stays, and nothing comes after");
}

#[tokio::test]
async fn what_waits_for_a_revoked_node_is_deleted_and_its_sender_is_told() {
    let (network, here, mut there) = alice_and_bob(Options::default()).await;
    there.process.terminate().await;
    let msg_id = send(&here, "alice", BOB, "never read").await.msg_id;
    stored(&here).await;
    let answer = network.revoke("there", 1).await;
    assert!(answer.broker_told);
    let stream = network.broker_admin().await.get_stream("MM_IN_00").await.unwrap();
    wait::until("the broker has it no more", || async {
        (stream.get_info().await.ok()?.state.messages == 0).then_some(())
    })
    .await;
    wait::until("its sender is told", || async {
        let request = GetDeliveryRequest { agent: "alice".into(), msg_id: msg_id.clone() };
        let delivery = here.client().await.messages.get_delivery(request).await.ok()?.into_inner().deliveries.remove(0);
        (delivery.state() == DeliveryState::Dead).then_some(())
    })
    .await;
    there.process.start();
    there.finds("revoked").await;
}

#[tokio::test]
async fn a_broker_that_is_away_is_told_when_it_is_back() {
    let (mut network, here, there) = alice_and_bob(Options::default()).await;
    let consumer = there.consumer().await;
    network.broker.kill_9();
    here.cut_off().await;
    there.cut_off().await;
    assert!(!network.revoke("there", 1).await.broker_told);
    network.broker.start();
    here.ready().await;
    let broker = network.broker_admin().await;
    wait::until("the broker knows it no more", || async {
        let found = broker
            .get_consumer_from_stream::<async_nats::jetstream::consumer::pull::Config, _, _>(&consumer, "MM_IN_00");
        found.await.is_err().then_some(())
    })
    .await;
    there.cut_off().await;
}

async fn stored(node: &Node) {
    wait::until("the broker has it", || async { (node.status().await?.outbox["stored"] == 1).then_some(()) }).await;
}

#[tokio::test]
async fn the_owner_revokes_by_name_and_cannot_by_mistake() {
    let home = Home::new();
    home.ok(&["up"]);
    let invite = home.path().join("laptop.invite");
    fs::write(&invite, home.ok(&["node", "invite"]).trim()).unwrap();
    let args = ["run", "--name", "laptop", "--data-dir"].map(Into::into).into_iter();
    let (data, socket) = (home.path().join("laptop"), home.path().join("run/laptop.sock"));
    let places = [data.into(), "--socket".into(), socket.into(), "--join".into(), invite.into()];
    let mut laptop =
        Process::new(&binary("murmur-node"), args.chain(places).collect(), home.path().join("logs/laptop.log"));
    laptop.start();
    let entry = wait::until("the laptop has enrolled", || async { listed(&home, "laptop") }).await;
    home.ok(&["node", "approve", entry["fingerprint"].as_str().unwrap()]);
    wait::until("it is there", || async { (listed(&home, "laptop")?["online"] == true).then_some(()) }).await;
    let own =
        home.json(&["node", "ls"])["nodes"].as_array().unwrap().iter().find(|node| node["name"] != "laptop").cloned();
    let own = own.unwrap()["name"].as_str().unwrap().to_owned();

    refused(&home.run(&["node", "revoke", "nobody"]), 3, "no node `nobody`");
    refused(&home.run(&["node", "revoke", &own]), 2, "this host's own node");
    refused(&home.run(&["node", "revoke", "laptop", "--reason", &"x".repeat(201)]), 2, "--reason");
    assert_eq!(listed(&home, "laptop").unwrap()["state"], "approved");

    let revoked = home.json(&["node", "revoke", "laptop", "--reason", "stolen"]);
    assert_eq!((&revoked["node"]["state"], &revoked["broker_told"]), (&"revoked".into(), &true.into()), "{revoked}");
    assert_eq!(listed(&home, "laptop").unwrap()["state"], "revoked");
    let again = home.ok(&["node", "revoke", "laptop"]);
    assert!(again.contains("was revoked before"), "{again}");
    refused(&home.run(&["node", "approve", entry["fingerprint"].as_str().unwrap()]), 4, "was revoked");
    wait::until("it is gone", || async { (listed(&home, "laptop")?["online"] == false).then_some(()) }).await;
    // The network goes on, and its owner's list with it.
    home.ok(&["up"]);
    home.ok(&["register", "--agent", "bob"]);
    home.ok(&["send", "bob", "hello", "--agent", "alice", "--wait", "delivered"]);
    laptop.terminate().await;
}

/// What `node ls` shows of a node.
fn listed(home: &Home, name: &str) -> Option<serde_json::Value> {
    home.json(&["node", "ls"])["nodes"].as_array()?.iter().find(|node| node["name"] == name).cloned()
}

fn refused(output: &Output, code: i32, text: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(code) && said.contains(text), "{:?}: {said}", output.status);
}
