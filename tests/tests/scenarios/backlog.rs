//! More messages than anybody keeps in memory, for a recipient who is away.

use murmur_proto::node::v1::{ListInboxRequest, Message};
use murmur_tests::{network::Node, talk::until_empty};

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

/// Sends so many messages, several at a time.
async fn send_many(node: &Node, count: usize) {
    let mut writing = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let mut client = node.client().await;
        writing.spawn(async move {
            for number in (writer..count).step_by(WRITERS) {
                client.messages.send(draft(&number.to_string())).await.unwrap();
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
