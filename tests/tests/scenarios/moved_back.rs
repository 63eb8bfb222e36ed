//! What an agent that moved gave back reaches it once, also when it comes back itself, or the broker loses who gave what back.

use murmur_proto::node::v1::{DeliveryState, RegisterRequest};
use murmur_tests::{network::Node, store, wait};

use crate::{
    pair::{Accepted, Pair, nothing_waits, read, texts},
    power::wipe,
};

/// Nobody read it at either place: the agent comes back to the node that gave it back before, and is shown it there.
#[tokio::test]
async fn what_nobody_read_follows_an_agent_that_moves_there_and_back() {
    let pair = Pair::start(&[]).await;
    let unread = delivered(&pair).await;
    let yonder = pair.network.node("yonder", "jdoe").await;
    move_bob(&yonder).await;
    until_unread(&yonder, unread.len()).await;
    move_bob(&pair.there).await;
    is_read_at(&pair, &pair.there, &unread).await;
}

/// The old node gave back what was unread, and the broker lost that before the sender heard of it.
#[tokio::test]
async fn what_was_given_back_to_a_broker_that_lost_its_store_follows_all_the_same() {
    let mut pair = Pair::start(&[]).await;
    let unread = delivered(&pair).await;
    pair.here.process.kill_9();
    let yonder = pair.network.node("yonder", "jdoe").await;
    move_bob(&yonder).await;
    wait::until("the old node has given it back", || async {
        let given = store::number(&pair.there, "SELECT count(*) FROM inbox WHERE given_back = 1");
        (given == unread.len() as u64).then_some(())
    })
    .await;
    nothing_waits(&pair.there).await;
    wipe(&mut pair.network);
    pair.network.broker.start();
    pair.here.process.start();
    pair.here.ready().await;
    is_read_at(&pair, &yonder, &unread).await;
}

/// Messages that are at bob's node, unread.
async fn delivered(pair: &Pair) -> Vec<Accepted> {
    let mut accepted = Vec::new();
    for number in 0..4 {
        accepted.push(pair.send(&format!("unread {number}")).await);
    }
    for message in &accepted {
        pair.until(message, DeliveryState::Delivered).await;
    }
    accepted
}

async fn move_bob(to: &Node) {
    let request = RegisterRequest { agent: "bob".into(), move_here: true, ..Default::default() };
    to.client().await.sessions.register(request).await.unwrap();
}

async fn until_unread(node: &Node, count: usize) {
    wait::until("everything is there and unread", || async {
        let unread = store::number(node, "SELECT count(*) FROM inbox WHERE cursor > 0 AND read_ms IS NULL");
        (unread == count as u64).then_some(())
    })
    .await;
}

/// Bob reads everything at this node, once, and alice comes to know. Not always in order: what comes before the node has heard that the
/// agent is back is refused once more, and what comes after that overtakes it.
async fn is_read_at(pair: &Pair, node: &Node, accepted: &[Accepted]) {
    until_unread(node, accepted.len()).await;
    let wanted: Vec<&str> = accepted.iter().map(|message| message.text.as_str()).collect();
    let shown = read(node, "bob").await;
    let mut shown = texts(&shown);
    shown.sort_unstable();
    assert_eq!(shown, wanted, "once each");
    for message in accepted {
        pair.until(message, DeliveryState::Read).await;
    }
    nothing_waits(&pair.here).await;
    for table in ["dead_letter", "quarantine"] {
        assert_eq!(store::rows(&pair.here, table), 0, "{table}");
    }
}
