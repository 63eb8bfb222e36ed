//! Disks that are full, damaged or gone: an explicit error, nothing lost that was promised, and recovery when there is room.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::FileExt as _,
};

use murmur_core::reason::Reason;
use murmur_proto::{node::v1::DeliveryState, status::RpcError};
use murmur_tests::{network::Node, store, talk::inbox, wait};

use crate::pair::{Accepted, Pair, RATE, draft, nothing_waits, texts};

const PAGES_MAX: &str = "MURMUR_NODE_STORE_PAGES_MAX";
/// Sixteen of these fill what a test leaves free.
const BODY_BYTES: usize = 20_000;

#[tokio::test]
async fn a_full_node_refuses_by_name_loses_nothing_and_goes_on_with_more_room() {
    let mut pair = Pair::start(&RATE).await;
    pair.network.broker.kill_9();
    let pages = store::number(&pair.here, "PRAGMA page_count") + 80;
    restart_with_pages(&mut pair.here, Some(pages)).await;

    let mut accepted = Vec::new();
    let refused = loop {
        let text = long_text(accepted.len());
        match pair.here.client().await.messages.send(draft(&text)).await {
            Ok(sent) => accepted.push(Accepted { msg_id: sent.into_inner().msg_id, text }),
            Err(refused) => break refused,
        }
        assert!(accepted.len() < 100, "the limit of {pages} pages is not kept");
    };
    assert!(accepted.len() > 2, "it took some: {refused}");
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted, "{refused}");
    assert_eq!(RpcError::from(&refused).reason, Some(Reason::StorageFull), "{refused}");

    pair.network.broker.start();
    restart_with_pages(&mut pair.here, None).await;
    pair.settled(&accepted).await;
}

#[tokio::test]
async fn what_arrives_at_a_full_node_waits_for_room() {
    let mut pair = Pair::start(&[RATE[0], RATE[1], ("MURMUR_SERVER_STREAM_ACK_WAIT_MS", "1000")]).await;
    let pages = store::number(&pair.there, "PRAGMA page_count") + 60;
    restart_with_pages(&mut pair.there, Some(pages)).await;
    let mut accepted = Vec::new();
    for number in 0..20 {
        accepted.push(pair.send(&long_text(number)).await);
    }
    // Each that is put off is put off several times before there is room.
    wait::until("the node has put off arrivals again and again", || async {
        let waiting = accepted.len() - inbox(&pair.there, "bob").await?.len();
        assert!(waiting > 0, "there is room for all of them");
        let put_off = pair.there.process.output().matches("an arrival could not be stored").count();
        (put_off > 3 * waiting).then_some(())
    })
    .await;
    // To be put off is no crash, even where no count of crashes can be taken back for want of room.
    assert!(!pair.there.process.output().contains("was quarantined"), "{}", pair.there.process.output());
    restart_with_pages(&mut pair.there, None).await;
    pair.settled(&accepted).await;
}

#[tokio::test]
async fn what_a_full_broker_refuses_waits_at_the_sender_with_the_reason() {
    let env = [RATE[0], RATE[1], ("MURMUR_SERVER_STREAM_MAX_BYTES", "300000"), ("MURMUR_NODE_NACK_MS", "[100, 500]")];
    let mut pair = Pair::start(&env).await;
    pair.there.process.kill_9();
    let mut accepted = Vec::new();
    for number in 0..30 {
        accepted.push(pair.send(&long_text(number)).await);
    }
    pair.until(&accepted[0], DeliveryState::Stored).await;
    // Those behind the first that is refused wait for it, so that order holds.
    wait::until("the sender sees why one waits", || async {
        for message in &accepted {
            let delivery = pair.delivery(message).await?;
            if delivery.code == "BROKER_FULL" && delivery.state() != DeliveryState::Stored {
                return Some(());
            }
        }
        None
    })
    .await;

    pair.there.process.start();
    pair.there.ready().await;
    let delivered = pair.settled(&accepted).await;
    assert_eq!(texts(&delivered).len(), accepted.len());
}

#[tokio::test]
async fn a_damaged_page_of_the_outbox_stops_the_node_with_a_clear_word() {
    let mut pair = Pair::start(&[]).await;
    let page = store::number(&pair.here, "SELECT rootpage FROM sqlite_schema WHERE name = 'outbox'");
    let message = pair.send("on the page").await;
    pair.settled(&[message]).await;
    pair.here.process.terminate().await;
    store::fold_journal(&pair.here);
    let path = pair.here.dir.join("store.db");
    let whole = fs::read(&path).unwrap();

    // A bit of the page's own head: what kind of page it is.
    let at = (page - 1) * 4096;
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&[whole[usize::try_from(at).unwrap()] ^ 0b100], at).unwrap();
    refuses_to_start(&mut pair.here).await;

    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    refuses_to_start(&mut pair.here).await;

    fs::write(&path, [b"this is no database".as_slice(); 500].concat()).unwrap();
    refuses_to_start(&mut pair.here).await;

    fs::write(&path, &whole).unwrap();
    pair.here.process.start();
    pair.here.ready().await;
    nothing_waits(&pair.here).await;
}

async fn refuses_to_start(node: &mut Node) {
    node.process.start();
    let status = node.process.exited().await;
    let words = node.process.output_of_latest();
    assert_eq!(status.code(), Some(1), "{words}");
    assert!(words.contains("store.db is damaged"), "{words}");
}

async fn restart_with_pages(node: &mut Node, pages: Option<u64>) {
    node.process.terminate().await;
    node.process.set_env(PAGES_MAX, pages.map(|pages| pages.to_string()).as_deref());
    node.process.start();
    wait::until("the node serves its agents again", || async {
        node.status().await.filter(|status| status.agents > 0)
    })
    .await;
}

fn long_text(number: usize) -> String {
    format!("{number} {}", "x".repeat(BODY_BYTES))
}
