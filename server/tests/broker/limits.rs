//! How much one node can take from the others: nothing beyond its own lanes, subscriptions and connection.

use murmur_core::limits::BROKER_MESSAGE_BYTES_MAX;
use murmur_server::broker::{NODE_PAYLOAD_BYTES_MAX, NODE_SUBSCRIPTIONS_MAX, StreamSettings};

use crate::{
    harness::{Broker, mail, node_id, route},
    raw::Raw,
};

#[tokio::test]
async fn a_thousand_messages_fill_a_lane_and_no_other() {
    let broker = Broker::start().await;
    let (a, b, c) = (broker.node(1).await, broker.node(2).await, broker.node(3).await);
    let lane = StreamSettings::default().lane_messages_max;
    assert_eq!(lane, 1000, "PROTOCOL §8");
    for _ in 0..lane {
        a.client.publish(mail(1, 3), "fits".into()).await.unwrap();
    }
    a.flushed().await;
    let answer = a.client.request(mail(1, 3), "one too many".into()).await.unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&answer.payload).unwrap();
    assert_eq!(answer["error"]["err_code"], 10077, "{answer}");
    assert_eq!(broker.picture(9).await.subjects[&mail(1, 3)], 1000);
    b.send(3, "another sender").await.unwrap();
    a.send(2, "another recipient").await.unwrap();
    c.send(1, "the other way").await.unwrap();
}

#[tokio::test]
async fn a_node_has_so_many_subscriptions_and_not_one_more() {
    let broker = Broker::start().await;
    broker.node(1).await;
    let mut raw = Raw::node(&broker, 1).await;
    let inbox = format!("_INBOX_{}", node_id(1).hex());
    for sid in 1..=NODE_SUBSCRIPTIONS_MAX {
        raw.write(format!("SUB {inbox}.{sid} {sid}\r\n").as_bytes()).await;
    }
    assert!(raw.errors().await.is_empty());
    raw.write(format!("SUB {inbox}.one.more {}\r\n", NODE_SUBSCRIPTIONS_MAX + 1).as_bytes()).await;
    let errors = raw.errors().await.join("\n").to_lowercase();
    assert!(errors.contains("maximum subscriptions exceeded"), "{errors}");
}

#[tokio::test]
async fn a_message_beyond_the_nodes_size_ends_its_connection_and_stores_nothing() {
    let broker = Broker::start().await;
    let b = broker.node(2).await;
    let before = broker.picture(9).await;
    let mut raw = Raw::node(&broker, 1).await;
    let size = usize::try_from(NODE_PAYLOAD_BYTES_MAX).unwrap() + 1;
    raw.publish(&mail(1, 2), &vec![b'x'; size]).await;
    let errors = raw.errors().await.join("\n").to_lowercase();
    assert!(errors.contains("maximum payload violation"), "{errors}");
    assert_eq!(broker.picture(9).await, before);
    b.send(2, "the others stay").await.unwrap();
}

#[tokio::test]
async fn a_message_beyond_the_streams_size_is_refused_whole() {
    let broker = Broker::start().await;
    let a = broker.node(1).await;
    broker.node(2).await;
    let before = broker.picture(9).await;
    for size in [BROKER_MESSAGE_BYTES_MAX + 1, usize::try_from(NODE_PAYLOAD_BYTES_MAX).unwrap()] {
        let answer = a.client.request(mail(1, 2), vec![0; size].into()).await.unwrap();
        let answer: serde_json::Value = serde_json::from_slice(&answer.payload).unwrap();
        assert_eq!(answer["error"]["err_code"], 10054, "{answer}");
    }
    assert_eq!(broker.picture(9).await, before);
}

/// What is no subject to publish to: a server takes some of it from a client that does not ask first.
#[tokio::test]
async fn wildcards_and_malformed_subjects_reach_nobody() {
    let broker = Broker::start().await;
    broker.node(2).await;
    let (workspace, own) = (route(2).workspace.hex(), node_id(1).hex());
    let victim = node_id(2).hex();
    let before = broker.picture(9).await;
    for subject in [
        format!("mm.in.local.00.{workspace}.*._ack.{own}"),
        format!("mm.in.*.*.{workspace}.{victim}.*.{own}"),
        format!("mm.in.local.00.{workspace}.{victim}._ack.*"),
        format!("mm.in.local.00.{workspace}.{victim}._ack.>"),
        format!("mm.in.local.00.*.{victim}._ack.{own}"),
        "mm.in.>".to_owned(),
        format!("mm.in.local.00.{workspace}.{victim}..{own}"),
        format!(".mm.in.local.00.{workspace}.{victim}._ack.{own}"),
        format!("$JS.ACK.*.c_*.1.1.1.1.{own}"),
        "mmjs.API.CONSUMER.MSG.NEXT.*.*".to_owned(),
    ] {
        let mut raw = Raw::node(&broker, 1).await;
        raw.publish(&subject, b"x").await;
        raw.errors().await;
        let mut after = broker.picture(9).await;
        // A literal `*` in the place of a name is stored like any name that nobody bears, until it ages out.
        after.subjects.retain(|subject, _| !subject.contains('*'));
        assert_eq!(after, before, "{subject}");
    }
}
