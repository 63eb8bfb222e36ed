//! Keys that were lost, and recipients that were away for days.

use std::fs;

use murmur_proto::node::v1::{DeliveryState, RequestRequest, request_response::Item};
use tokio_stream::StreamExt as _;

use crate::{
    crash::lose_prekeys,
    pair::{Accepted, Pair, draft, send_surely},
};

const CLOCK: &str = "MURMUR_CLOCK_OFFSET_MS";
const DAY_MS: i64 = 24 * 3600 * 1000;

#[tokio::test]
async fn a_message_to_a_lost_prekey_is_sealed_again_and_arrives() {
    let mut pair = Pair::start(&[]).await;
    pair.there.process.kill_9();
    let message = pair.send("to a lost prekey").await;
    pair.until(&message, DeliveryState::Stored).await;
    lose_prekeys(&pair.there);
    pair.there.process.start();
    sealed_again(&pair, message).await;
}

#[tokio::test]
async fn a_message_to_an_agent_that_lost_all_its_keys_is_sealed_again_and_arrives() {
    let mut pair = Pair::start(&[]).await;
    pair.there.process.kill_9();
    let message = pair.send("to lost keys").await;
    pair.until(&message, DeliveryState::Stored).await;
    fs::remove_dir_all(pair.there.dir.join("keys/agents")).unwrap();
    pair.there.process.start();
    sealed_again(&pair, message).await;
}

async fn sealed_again(pair: &Pair, message: Accepted) {
    let delivery = pair.until(&message, DeliveryState::Delivered).await;
    assert_eq!(delivery.code, "KEY_UNKNOWN", "what the recipient answered to the first copy");
    assert!(delivery.publish_tries >= 2);
    pair.settled(&[message]).await;
}

#[tokio::test]
async fn mail_for_an_agent_that_was_away_for_days_says_so_and_arrives() {
    let three_days_ago = (-3 * DAY_MS).to_string();
    let mut pair = Pair::start(&[(CLOCK, &three_days_ago)]).await;
    let fresh = pair.send("fresh").await;
    assert!(!pair.until(&fresh, DeliveryState::Delivered).await.stale_prekey);
    pair.there.process.terminate().await;
    pair.here.process.terminate().await;

    // Today. The other one is still away, and the newest key that it left is past its time.
    pair.here.process.set_env(CLOCK, None);
    pair.here.process.start();
    pair.here.ready().await;
    let stale = pair.send("stale").await;
    assert!(pair.until(&stale, DeliveryState::Stored).await.stale_prekey);
    pair.there.process.set_env(CLOCK, None);
    pair.there.process.start();
    assert!(pair.until(&stale, DeliveryState::Delivered).await.stale_prekey);
    pair.settled(&[fresh, stale]).await;
}

#[tokio::test]
async fn a_request_past_its_time_ends_with_the_reason() {
    let mut pair = Pair::start(&[]).await;
    pair.there.process.kill_9();
    let request = RequestRequest {
        agent: "alice".into(),
        to: "bob".into(),
        body: "anybody?".into(),
        timeout_ms: 1_000,
        ..Default::default()
    };
    let mut answers = pair.here.client().await.messages.request(request).await.unwrap().into_inner();
    let Some(Item::Accepted(accepted)) = answers.next().await.unwrap().unwrap().item else {
        panic!("the first answer is that it was accepted")
    };
    // Its life is no longer than its sender waits, unless that asks for more.
    let Some(Item::Outcome(outcome)) = answers.next().await.unwrap().unwrap().item else {
        panic!("the second answer is the last")
    };
    assert!(outcome.reply.is_none());
    assert!(outcome.timed_out || outcome.failure == "EXPIRED", "{outcome:?}");
    assert!(!accepted.msg_id.is_empty());

    let mut brief = draft("brief");
    brief.ttl_seconds = 1;
    let sent = send_surely(&pair.here.socket, brief, "brief").await;
    let message = Accepted { msg_id: sent.msg_id, text: "brief".to_owned() };
    pair.until(&message, DeliveryState::Expired).await;
    // What the broker still holds of it is refused when the recipient is back, and its sender is not told otherwise.
    pair.there.process.start();
    pair.there.ready().await;
    let after = pair.send("after").await;
    pair.until(&after, DeliveryState::Delivered).await;
    assert_eq!(pair.delivery(&message).await.unwrap().state(), DeliveryState::Expired);
}
