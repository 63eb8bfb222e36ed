//! A sender writes the headers of its messages; none of them decides anything (PROTOCOL §5.2, §7.1).

use async_nats::{HeaderMap, jetstream::message::PublishMessage};
use serde_json::Value;

use crate::harness::{Broker, Node, mail};

/// Publishes from node 1 to a node that takes nothing, and gives the broker's answer.
async fn answer(a: &Node, headers: &[(&str, String)]) -> Value {
    let map: HeaderMap = headers.iter().fold(HeaderMap::new(), |mut map, (name, value)| {
        map.insert(*name, value.as_str());
        map
    });
    let answer = a.client.request_with_headers(mail(1, 3), map, "x".into()).await.unwrap();
    serde_json::from_slice(&answer.payload).unwrap()
}

/// Publishes with headers that must make the broker refuse, and change nothing.
async fn refused(attacks: &[Vec<(&str, String)>]) {
    let broker = Broker::start().await;
    let (a, b) = (broker.node(1).await, broker.node(2).await);
    b.send(2, "b's own").await.unwrap();
    a.send(2, "a's own").await.unwrap();
    let before = broker.picture(9).await;
    for headers in attacks {
        let answer = answer(&a, headers).await;
        assert!(answer["error"]["err_code"].is_number(), "{headers:?}: {answer}");
        assert_eq!(broker.picture(9).await, before, "{headers:?}");
    }
    a.send(2, "and the lane is open").await.unwrap();
}

#[tokio::test]
async fn no_header_keeps_or_ends_a_message() {
    let ttl = |value: &str| vec![("Nats-TTL", value.to_owned())];
    refused(&[ttl("never"), ttl("1s"), ttl("1"), ttl("rubbish")]).await;
}

#[tokio::test]
async fn no_header_rolls_up_a_subject_or_the_stream() {
    refused(&[vec![("Nats-Rollup", "all".to_owned())], vec![("Nats-Rollup", "sub".to_owned())]]).await;
}

#[tokio::test]
async fn no_header_schedules_a_message_for_another_subject() {
    let schedule = |when: &str| {
        vec![
            ("Nats-Schedule", when.to_owned()),
            ("Nats-Schedule-Target", mail(2, 1)),
            ("Nats-Schedule-Source", mail(2, 2)),
            ("Nats-Schedule-TTL", "5m".to_owned()),
        ]
    };
    refused(&[
        schedule("@every 1s"),
        schedule("@at 2030-01-01T00:00:00Z"),
        schedule("@hourly"),
        schedule("*/1 * * * * *"),
    ])
    .await;
}

#[tokio::test]
async fn no_header_counts_or_batches() {
    refused(&[
        vec![("Nats-Incr", "+1".to_owned())],
        vec![("Nats-Batch-Id", "b".to_owned()), ("Nats-Batch-Sequence", "1".to_owned())],
        vec![
            ("Nats-Batch-Id", "b".to_owned()),
            ("Nats-Batch-Sequence", "1".to_owned()),
            ("Nats-Batch-Commit", "1".to_owned()),
        ],
    ])
    .await;
}

/// An expectation that does not hold refuses the sender's own message, and no more.
#[tokio::test]
async fn expectations_of_the_stream_hold_up_nobody_else() {
    let expected = |name: &'static str, value: &str| vec![(name, value.to_owned())];
    let of_another = vec![
        ("Nats-Expected-Last-Subject-Sequence", "77".to_owned()),
        ("Nats-Expected-Last-Subject-Sequence-Subject", mail(2, 2)),
    ];
    refused(&[
        expected("Nats-Stream-Source", "ANOTHER 1 > >"),
        expected("Nats-Expected-Stream", "ANOTHER"),
        expected("Nats-Expected-Last-Sequence", "77"),
        expected("Nats-Expected-Last-Subject-Sequence", "77"),
        expected("Nats-Expected-Last-Msg-Id", "guessed"),
        of_another,
    ])
    .await;
}

/// Headers that only the server writes mean nothing when a sender writes them.
#[tokio::test]
async fn headers_of_the_server_are_only_bytes() {
    let broker = Broker::start().await;
    let (a, b) = (broker.node(1).await, broker.node(2).await);
    b.send(2, "b's own").await.unwrap();
    let mut expected = broker.picture(9).await;
    for headers in [
        vec![("Nats-Subject", mail(2, 2)), ("Nats-Sequence", "1".to_owned()), ("Nats-Stream", "ANOTHER".to_owned())],
        vec![("Nats-Request-Info", r#"{"acc":"JS"}"#.to_owned()), ("Status", "404".to_owned())],
        vec![("Nats-Marker-Reason", "Purge".to_owned())],
        vec![("Nats-Msg-Size", "0".to_owned()), ("Nats-Num-Pending", "0".to_owned())],
    ] {
        let answer = answer(&a, &headers).await;
        assert!(answer["error"].is_null(), "{headers:?}: {answer}");
        *expected.subjects.entry(mail(1, 3)).or_default() += 1;
        assert_eq!(broker.picture(9).await, expected, "{headers:?} {answer}");
    }
}

/// A message id taken by somebody else makes the broker drop the honest copy and say so; the sender's outbox must not take
/// that for delivery (PROTOCOL §7.1). Random ids make it a guess of 128 bits.
#[tokio::test]
async fn a_message_id_used_before_is_answered_as_a_duplicate() {
    let broker = Broker::start().await;
    let (a, b) = (broker.node(1).await, broker.node(2).await);
    for (node, duplicate) in [(&a, false), (&b, true)] {
        let message = PublishMessage::build().payload("x".into()).message_id("guessed");
        let ack = node.js.send_publish(mail(node.n, 3), message).await.unwrap().await.unwrap();
        assert_eq!(ack.duplicate, duplicate);
    }
    assert_eq!(broker.stored().await, 1, "ids are the stream's, not the subject's: one id for two routes loses one");
}
