//! More messages than anybody keeps in memory, for a recipient who is away.

use murmur_proto::node::v1::{ListInboxRequest, Message, SendRequest};
use murmur_tests::{network::Node, store, talk::until_empty, wait};

use crate::pair::{Pair, draft};

const RATE: [(&str, &str); 3] = [
    ("MURMUR_NODE_PAIR_RATE_PER_MINUTE", "1000000"),
    ("MURMUR_NODE_PAIR_BURST", "1000000"),
    // The recipient's order is that of the sender, and no gap is given up.
    ("MURMUR_NODE_GAP_WAIT_MS", "600000"),
];
/// More than the broker is given and the node holds in memory, together, and several pages of the store.
const COUNT: usize = 3_400;
const WRITERS: usize = 32;

#[tokio::test]
async fn a_backlog_beyond_every_bound_survives_restarts_and_arrives_in_order() {
    let mut pair = Pair::start(&RATE).await;
    pair.there.process.kill_9();
    send_many(&pair.here, COUNT - 200).await;
    let open: u64 = pair.here.status().await.unwrap().outbox.values().sum();
    assert_eq!(open, (COUNT - 200) as u64);
    // What was known of the lane is gone with the process, and is read again in pages; what comes meanwhile goes behind it.
    pair.here.process.kill_9();
    pair.here.process.start();
    pair.here.ready().await;
    send_many(&pair.here, 200).await;
    pair.there.process.start();
    pair.there.ready().await;
    let mut read = Vec::new();
    until_empty(&pair.here).await;
    loop {
        let page = next_page(&pair.there).await;
        if page.is_empty() {
            break;
        }
        read.extend(page.iter().map(|message| message.sequence));
    }
    assert_eq!(read, (1..=COUNT as u64).collect::<Vec<_>>(), "each once, in the order in which they were accepted");
}

/// Most of them are known to the store alone, and end all the same when their time is over.
#[tokio::test]
async fn what_only_the_store_knows_expires_in_time_and_says_so() {
    const COUNT: usize = 2_600;
    let mut pair = Pair::start(&RATE).await;
    pair.network.broker.kill_9();
    send_many_with(&pair.here, COUNT, SendRequest { ttl_seconds: 15, ..draft("") }).await;
    wait::until("all have expired", || async {
        let status = pair.here.status().await?;
        let open: u64 = status.outbox.values().sum();
        (open == 0 && status.dead_letters == COUNT as u64).then_some(())
    })
    .await;
    assert_eq!(store::number(&pair.here, "SELECT count(*) FROM delivery WHERE state = 'EXPIRED'"), COUNT as u64);
}

/// Sends so many messages, several at a time.
async fn send_many(node: &Node, count: usize) {
    send_many_with(node, count, draft("")).await;
}

async fn send_many_with(node: &Node, count: usize, like: SendRequest) {
    let mut writing = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let (mut client, like) = (node.client().await, like.clone());
        writing.spawn(async move {
            for number in (writer..count).step_by(WRITERS) {
                let request = SendRequest { body: number.to_string().into(), ..like.clone() };
                client.messages.send(request).await.unwrap();
            }
        });
    }
    while let Some(ended) = writing.join_next().await {
        ended.unwrap();
    }
}

async fn next_page(node: &Node) -> Vec<Message> {
    let request = ListInboxRequest { agent: "bob".into(), limit: 500, ..Default::default() };
    node.client().await.messages.list_inbox(request).await.unwrap().into_inner().messages
}
