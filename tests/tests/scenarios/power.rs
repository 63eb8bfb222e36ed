//! Power that fails, brokers that are killed under load or lose their disk, and repeats that the broker no longer knows.

use std::fs;

use murmur_proto::node::v1::{DeliveryState, SendRequest};
use murmur_tests::{
    network::{Network, Node, Options},
    store,
    talk::{inbox, register},
    wait,
};

use crate::{
    metrics::counted,
    pair::{Accepted, Pair, nothing_waits, read, send_all, texts},
};

/// Agents on each of the two nodes; each writes to its namesake on the other one.
const PUBLISHERS: usize = 8;
/// Messages of each.
const MESSAGES: usize = 40;

/// A power failure leaves what was synced and some of what was not. The node promises a message when the commit is synced, so an image
/// of database and journal of that moment, with a torn piece of what came later, is what a failure may leave.
#[tokio::test]
async fn power_lost_after_the_promise_costs_nothing_that_was_promised() {
    let mut pair = Pair::start(&[]).await;
    pair.network.broker.kill_9();
    let mut accepted = Vec::new();
    for number in 0..10 {
        accepted.push(pair.send(&format!("promised {number}")).await);
    }
    let (database, journal) = image(&pair.here);
    for number in 0..10 {
        pair.send(&format!("after the image {number}")).await;
    }
    let (_, later) = image(&pair.here);
    pair.here.process.kill_9();

    assert!(later.len() > journal.len() && later.starts_with(&journal), "the journal went on where the image ends");
    let torn = journal.len() + (later.len() - journal.len()) / 3 + 7;
    fs::write(pair.here.dir.join("store.db"), database).unwrap();
    fs::write(pair.here.dir.join("store.db-wal"), &later[..torn]).unwrap();
    let _ = fs::remove_file(pair.here.dir.join("store.db-shm"));
    pair.network.broker.start();
    pair.here.process.start();
    pair.here.ready().await;

    for message in &accepted {
        pair.until(message, DeliveryState::Delivered).await;
    }
    nothing_waits(&pair.here).await;
    let rows = inbox(&pair.there, "bob").await.unwrap();
    let arrived = texts(&rows);
    assert!(arrived.starts_with(&accepted.iter().map(|message| message.text.as_str()).collect::<Vec<_>>()));
    assert!(arrived[accepted.len()..].iter().all(|text| text.starts_with("after the image")));
}

/// Without anything new to send, and long before a receipt is overdue.
#[tokio::test]
async fn a_broker_that_lost_its_disk_is_filled_again_from_the_outboxes() {
    let mut pair = Pair::start(&[]).await;
    let accepted = stored(&mut pair).await;
    wipe(&mut pair.network);
    pair.network.broker.start();
    pair.there.process.start();
    pair.settled(&accepted).await;
}

#[tokio::test]
async fn a_broker_that_lost_its_disk_while_the_control_plane_was_away_is_filled_again() {
    let mut pair = Pair::start(&[]).await;
    let accepted = stored(&mut pair).await;
    pair.network.server.kill_9();
    wipe(&mut pair.network);
    pair.network.broker.start();
    pair.there.process.start();
    wait::until("the node serves again", || pair.there.status()).await;
    pair.network.server.start();
    pair.settled(&accepted).await;
}

/// The sender learns at its start that the receipts which waited for it are gone.
#[tokio::test]
async fn receipts_that_a_broker_lost_are_asked_for_again() {
    let mut pair = Pair::start(&[]).await;
    let accepted = stored(&mut pair).await;
    pair.here.process.kill_9();
    pair.there.process.start();
    wait::until("bob has everything", || async {
        (inbox(&pair.there, "bob").await?.len() == accepted.len()).then_some(())
    })
    .await;
    nothing_waits(&pair.there).await;
    wipe(&mut pair.network);
    pair.network.broker.start();
    pair.there.ready().await;
    pair.here.process.start();
    pair.settled(&accepted).await;
}

/// The sender knows that everything was delivered, and asks nobody: what it misses is only the word that it was read.
#[tokio::test]
async fn receipts_of_reading_that_a_broker_lost_are_said_again() {
    let mut pair = Pair::start(&[]).await;
    let accepted = read_while_the_sender_is_away(&mut pair).await;
    wipe(&mut pair.network);
    pair.network.broker.start();
    pair.there.ready().await;
    known_as_read(&mut pair, &accepted).await;
}

/// The reader was away, too, when the broker lost its store, and hears of it at its start.
#[tokio::test]
async fn receipts_of_reading_that_a_broker_lost_are_said_again_by_a_reader_that_was_away() {
    let mut pair = Pair::start(&[]).await;
    let accepted = read_while_the_sender_is_away(&mut pair).await;
    pair.there.process.kill_9();
    wipe(&mut pair.network);
    pair.network.broker.start();
    pair.there.process.start();
    known_as_read(&mut pair, &accepted).await;
}

/// Bob reads while alice is away: his receipts are with the broker, and nowhere else.
async fn read_while_the_sender_is_away(pair: &mut Pair) -> Vec<Accepted> {
    let mut accepted = Vec::new();
    for number in 0..5 {
        accepted.push(pair.send(&format!("read {number}")).await);
    }
    for message in &accepted {
        pair.until(message, DeliveryState::Delivered).await;
    }
    pair.here.process.kill_9();
    assert_eq!(read(&pair.there, "bob").await.len(), accepted.len());
    nothing_waits(&pair.there).await;
    accepted
}

async fn known_as_read(pair: &mut Pair, accepted: &[Accepted]) {
    pair.here.process.start();
    pair.here.ready().await;
    for message in accepted {
        pair.until(message, DeliveryState::Read).await;
    }
    pair.settled(accepted).await;
    wait::until("nothing is to be said again", || async {
        (store::rows(&pair.there, "meta WHERE key = 'acks_owed_ms'") == 0).then_some(())
    })
    .await;
}

/// Messages that the broker holds for a node that is away.
async fn stored(pair: &mut Pair) -> Vec<Accepted> {
    pair.there.process.kill_9();
    let mut accepted = Vec::new();
    for number in 0..10 {
        accepted.push(pair.send(&format!("stored {number}")).await);
    }
    for message in &accepted {
        pair.until(message, DeliveryState::Stored).await;
    }
    accepted
}

pub(crate) fn wipe(network: &mut Network) {
    network.broker.kill_9();
    let folder = network.dir.path().join("broker/store");
    assert!(fs::read_dir(&folder).unwrap().next().is_some(), "there is something to lose");
    fs::remove_dir_all(folder).unwrap();
}

/// The sender dies over the receipt, which the broker holds back for a while then; meanwhile it publishes again, under an id that
/// the broker does not know.
#[tokio::test]
async fn a_repeat_that_the_broker_does_not_know_is_known_to_the_recipient() {
    let mut pair = Pair::start(&[("MURMUR_NODE_REPUBLISH_MS", "[300, 86400000]")]).await;
    pair.here.process.terminate().await;
    pair.here.process.start_to_die_at("S6");
    pair.here.ready().await;
    // The node may die before it has answered the one who sends.
    let sending = tokio::spawn(send_all(pair.here.socket.clone(), 1));
    pair.here.process.died_at("S6").await;
    pair.here.process.start();
    let accepted = sending.await.unwrap();
    wait::until("the second copy has arrived and was known", || async {
        (counted(&pair.there, "murmur_node_duplicates_total").await? > 0).then_some(())
    })
    .await;
    pair.settled(&accepted).await;
}

#[tokio::test]
async fn a_broker_killed_again_and_again_under_sixteen_publishers_loses_and_doubles_nothing() {
    let env = [("MURMUR_NODE_PAIR_RATE_PER_MINUTE", "1000000"), ("MURMUR_NODE_PAIR_BURST", "1000000")];
    let env = env.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let mut network = Network::start_with(Options { env, ..Options::default() }).await;
    let nodes = [network.node("here", "jdoe").await, network.node("there", "jdoe").await];
    for number in 0..PUBLISHERS {
        register(&nodes[0], &format!("h{number}")).await;
        register(&nodes[1], &format!("t{number}")).await;
    }
    for number in 0..PUBLISHERS {
        nodes[0].knows(&format!("/w/acme/u/jdoe/t{number}")).await;
        nodes[1].knows(&format!("/w/acme/u/jdoe/h{number}")).await;
    }
    let mut publishing = Vec::new();
    for number in 0..PUBLISHERS {
        for (node, from, to) in [(&nodes[0], 'h', 't'), (&nodes[1], 't', 'h')] {
            let client = node.client().await;
            publishing.push(tokio::spawn(publish(client, format!("{from}{number}"), format!("{to}{number}"))));
        }
    }
    let mut kills = 0;
    while kills < 8 || !publishing.iter().all(tokio::task::JoinHandle::is_finished) {
        network.broker.kill_9();
        network.broker.start();
        kills += 1;
        // The broker is back and works before it dies again.
        wait::until("both nodes are connected", || async {
            let (one, other) = (nodes[0].status().await?, nodes[1].status().await?);
            (one.broker_connected && other.broker_connected).then_some(())
        })
        .await;
    }
    for task in publishing {
        task.await.unwrap();
    }
    let wanted: Vec<_> = (0..MESSAGES).map(|number| number.to_string()).collect();
    for number in 0..PUBLISHERS {
        for (node, agent) in [(&nodes[1], format!("t{number}")), (&nodes[0], format!("h{number}"))] {
            let mut rows = wait::until("every message has arrived", || async {
                inbox(node, &agent).await.filter(|rows| rows.len() >= MESSAGES)
            })
            .await;
            // What the broker took while it died comes behind what it took before; the sequence tells the order of sending.
            rows.sort_by_key(|message| message.sequence);
            assert_eq!(texts(&rows), wanted, "{agent}: once each, in the order of sending");
        }
    }
    for node in &nodes {
        nothing_waits(node).await;
        assert_eq!(store::rows(node, "quarantine"), 0);
        assert_eq!(store::rows(node, "dead_letter"), 0);
    }
}

async fn publish(mut client: murmur_proto::client::NodeClient, from: String, to: String) {
    for number in 0..MESSAGES {
        let body = number.to_string().into();
        let request = SendRequest { agent: from.clone(), to: to.clone(), body, ..Default::default() };
        client.messages.send(request).await.unwrap();
    }
}

/// What is on the disk of a node at one moment: database and journal.
fn image(node: &Node) -> (Vec<u8>, Vec<u8>) {
    use nix::sys::signal::Signal::{SIGCONT, SIGSTOP};
    node.process.signal(SIGSTOP);
    let read = |name: &str| fs::read(node.dir.join(name)).unwrap();
    let (database, mut journal) = (read("store.db"), read("store.db-wal"));
    node.process.signal(SIGCONT);
    // The journal has its size from the start: what was not written yet is zeros.
    journal.truncate(journal.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
    (database, journal)
}
