//! What a node may do: publish into its workspace, pull its own consumer, acknowledge.

use std::time::Duration;

use async_nats::jetstream::{consumer::pull, context::PublishErrorKind};
use futures::StreamExt;
use murmur_core::limits::BROKER_MESSAGE_BYTES_MAX;
use murmur_server::broker::StreamSettings;
use serde_json::json;

use crate::harness::{Broker, Node, mail, soon};

async fn next(messages: &mut pull::Stream) -> async_nats::jetstream::Message {
    soon("delivery", messages.next()).await.unwrap().unwrap()
}

async fn messages(node: &Node) -> pull::Stream {
    node.consumer().await.stream().heartbeat(Duration::from_secs(5)).messages().await.unwrap()
}

/// Publishes two messages, takes and confirms them, and sees the stream empty.
async fn round_trip(broker: &Broker) {
    let (a, b) = (broker.node(1).await, broker.node(2).await);
    let mut inbox = messages(&b).await;
    for body in ["one", "two"] {
        a.send(2, body).await.unwrap();
        let message = next(&mut inbox).await;
        assert_eq!((message.payload.as_ref(), message.subject.as_str()), (body.as_bytes(), mail(1, 2).as_str()));
        assert_eq!(message.info().unwrap().delivered, 1);
        soon("confirmed acknowledgement", message.double_ack()).await.unwrap();
    }
    let mut consumer = b.consumer().await;
    let info = soon("consumer info", consumer.info()).await.unwrap();
    assert_eq!((info.num_ack_pending, info.num_pending, info.ack_floor.consumer_sequence), (0, 0, 2));
    assert_eq!(broker.stored().await, 0, "confirmed messages leave the stream");
}

#[tokio::test]
async fn a_message_goes_from_node_to_node() {
    round_trip(&Broker::start().await).await;
}

#[tokio::test]
async fn a_message_goes_through_with_the_second_acknowledgement_layout() {
    let broker = Broker::start_with(StreamSettings::default(), |config| {
        config["feature_flags"] = json!({"js_ack_fc_v2": true});
    })
    .await;
    round_trip(&broker).await;
}

#[tokio::test]
async fn a_message_goes_through_in_a_domain() {
    let broker = Broker::start_with(StreamSettings::default(), |config| {
        config["jetstream"]["domain"] = json!("local");
        config["feature_flags"] = json!({"js_ack_fc_v2": true});
    })
    .await;
    round_trip(&broker).await;
}

#[tokio::test]
async fn a_full_lane_refuses_its_sender_and_nobody_else() {
    let broker = Broker::start_with(StreamSettings { lane_messages_max: 3, ..StreamSettings::default() }, |_| {}).await;
    let (a, b, c) = (broker.node(1).await, broker.node(2).await, broker.node(3).await);
    for _ in 0..3 {
        a.send(3, "fits").await.unwrap();
    }
    let answer = a.client.request(mail(1, 3), "one too many".into()).await.unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&answer.payload).unwrap();
    assert_eq!(answer["error"]["err_code"], 10077, "{answer}");

    b.send(3, "another sender").await.unwrap();
    a.send(2, "another recipient").await.unwrap();
    let mut inbox = messages(&c).await;
    next(&mut inbox).await.double_ack().await.unwrap();
    a.send(3, "fits again").await.unwrap();
}

#[tokio::test]
async fn the_largest_message_fits_and_a_larger_one_is_refused() {
    let broker = Broker::start().await;
    let a = broker.node(1).await;
    // The subject and the stream's own bookkeeping count towards the stream's limit, so leave room for them.
    a.send(2, &"x".repeat(BROKER_MESSAGE_BYTES_MAX - 1024)).await.unwrap();
    let error = a.send(2, &"x".repeat(BROKER_MESSAGE_BYTES_MAX + 1)).await.unwrap_err();
    assert_eq!(error, PublishErrorKind::Other);
}
