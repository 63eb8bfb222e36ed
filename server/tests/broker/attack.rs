//! Attacks that use only what a node is allowed: reply subjects, headers, message ids.

use async_nats::{HeaderMap, jetstream::message::PublishMessage};
use futures::StreamExt;

use crate::harness::{Broker, Node, Progress, STREAM, mail, node_id, soon};

/// Node 1 attacks, node 2 has one message delivered and unacknowledged and one waiting.
async fn scene() -> (Broker, Node, Node) {
    let broker = Broker::start().await;
    let (a, b) = (broker.node(1).await, broker.node(2).await);
    b.send(2, "first").await.unwrap();
    b.send(2, "second").await.unwrap();
    let mut batch = b.consumer().await.fetch().max_messages(1).messages().await.unwrap();
    soon("delivery", batch.next()).await.unwrap().unwrap();
    assert_eq!(broker.progress(2).await, UNTOUCHED);
    (broker, a, b)
}

/// What the scene leaves node 2 with, and what it must still have after an attack.
const UNTOUCHED: Progress = Progress { delivered: 1, unacknowledged: 1, waiting: 1 };

/// The subjects that an attacker would like the broker to write to.
fn targets() -> Vec<String> {
    let victim = format!("{STREAM}.c_{}", node_id(2).hex());
    let api = |prefix: &str| {
        let verbs = ["CONSUMER.DELETE", "CONSUMER.MSG.NEXT"].map(|verb| format!("{prefix}.{verb}.{victim}"));
        let stream = ["STREAM.PURGE", "STREAM.DELETE"].map(|verb| format!("{prefix}.{verb}.{STREAM}"));
        [verbs, stream].concat()
    };
    let others = [mail(2, 1), mail(2, 2), format!("$JS.ACK.{victim}.1.1.1.1.0")];
    [api("$JS.API"), api("mmjs.API"), others.to_vec()].concat()
}

fn pull_subject(prefix: &str, n: u8) -> String {
    format!("{prefix}.CONSUMER.MSG.NEXT.{STREAM}.c_{}", node_id(n).hex())
}

/// Asks for one message of the own consumer, with the answer going to `reply`.
async fn pull_with_reply(a: &Node, body: &'static str, reply: String) {
    a.client.publish_with_reply(pull_subject("mmjs.API", 1), reply, body.into()).await.unwrap();
}

/// Returns once the broker has worked through everything this node asked for before, its later expiries included.
async fn settled(a: &Node) {
    let reply = a.client.new_inbox();
    let mut answers = a.client.subscribe(reply.clone()).await.unwrap();
    pull_with_reply(a, r#"{"batch":100,"expires":20000000}"#, reply).await;
    // Data may come first, when the attack left some; the expiry comes last.
    while soon("the end of a pull", answers.next()).await.unwrap().status.is_none() {}
    a.send(9, "the broker stores in order").await.unwrap();
}

#[tokio::test]
async fn the_broker_is_no_deputy_for_a_status_reply() {
    let (broker, a, _b) = scene().await;
    for target in targets() {
        for body in [r#"{"batch":1,"no_wait":true}"#, r#"{"batch":1,"expires":1000000}"#, "malformed"] {
            let before = broker.stored().await;
            pull_with_reply(&a, body, target.clone()).await;
            settled(&a).await;
            assert_eq!((broker.progress(2).await, broker.stored().await), (UNTOUCHED, before + 1), "{target} {body}");
        }
    }
}

#[tokio::test]
async fn the_broker_is_no_deputy_for_pulled_data() {
    let (broker, a, b) = scene().await;
    for target in targets() {
        let before = broker.stored().await;
        b.send(1, "{}").await.unwrap();
        pull_with_reply(&a, r#"{"batch":1,"no_wait":true}"#, target.clone()).await;
        settled(&a).await;
        // The bait is delivered and unacknowledged, and so still stored.
        assert_eq!((broker.progress(2).await, broker.stored().await), (UNTOUCHED, before + 2), "{target}");
    }
}

#[tokio::test]
async fn the_broker_is_no_deputy_for_a_publish_acknowledgement() {
    let (broker, a, _b) = scene().await;
    for target in targets() {
        let before = broker.stored().await;
        a.client.publish_with_reply(mail(1, 3), target.clone(), "bait".into()).await.unwrap();
        settled(&a).await;
        // The broker does not even store a message whose reply is an acknowledgement's subject.
        let bait = u64::from(!target.starts_with("$JS.ACK"));
        assert_eq!((broker.progress(2).await, broker.stored().await), (UNTOUCHED, before + bait + 1), "{target}");
    }
}

#[tokio::test]
async fn the_broker_is_no_deputy_for_consumer_info_or_an_acknowledgement() {
    let (broker, a, _b) = scene().await;
    let own = format!("c_{}", node_id(1).hex());
    for target in targets() {
        let before = broker.stored().await;
        for subject in [format!("mmjs.API.CONSUMER.INFO.{STREAM}.{own}"), format!("$JS.ACK.{STREAM}.{own}.1.1.1.1.0")] {
            a.client.publish_with_reply(subject, target.clone(), "".into()).await.unwrap();
        }
        settled(&a).await;
        assert_eq!((broker.progress(2).await, broker.stored().await), (UNTOUCHED, before + 1), "{target}");
    }
}

/// Shows that the attacks above are real: in the account of the streams itself, the same pull deletes the stream. If this
/// fails, the broker has changed and the tests above prove less than they say.
#[tokio::test]
async fn in_one_account_the_same_pull_would_delete_the_stream() {
    let broker = Broker::start().await;
    let _a = broker.node(1).await;
    let client = broker.admin.client();
    let mut deleted = client.subscribe(format!("$JS.EVENT.ADVISORY.STREAM.DELETED.{STREAM}")).await.unwrap();
    let (pull, reply) = (pull_subject("$JS.API", 1), format!("$JS.API.STREAM.DELETE.{STREAM}"));
    client.publish_with_reply(pull, reply, r#"{"batch":1,"no_wait":true}"#.into()).await.unwrap();
    soon("deletion of the stream", deleted.next()).await.unwrap();
    assert!(broker.js.get_stream(STREAM).await.is_err());
}

#[tokio::test]
async fn headers_decide_nothing() {
    let broker = Broker::start().await;
    let (a, b) = (broker.node(1).await, broker.node(2).await);
    b.send(2, "b's own").await.unwrap();
    a.send(2, "a's own").await.unwrap();
    let refused = [
        vec![("Nats-TTL", "never".to_owned())],
        vec![("Nats-TTL", "1s".to_owned())],
        vec![("Nats-Rollup", "all".to_owned())],
        vec![("Nats-Rollup", "sub".to_owned())],
        vec![("Nats-Incr", "+1".to_owned())],
        vec![("Nats-Batch-Id", "b".to_owned()), ("Nats-Batch-Sequence", "1".to_owned())],
        vec![("Nats-Schedule", "@every 1s".to_owned()), ("Nats-Schedule-Target", mail(2, 1))],
        vec![("Nats-Schedule", "@at 2030-01-01T00:00:00Z".to_owned()), ("Nats-Schedule-Target", mail(2, 1))],
    ];
    for headers in refused {
        let map: HeaderMap = headers.iter().fold(HeaderMap::new(), |mut map, (name, value)| {
            map.insert(*name, value.as_str());
            map
        });
        let answer = a.client.request_with_headers(mail(1, 2), map, "x".into()).await.unwrap();
        let answer: serde_json::Value = serde_json::from_slice(&answer.payload).unwrap();
        assert!(answer["error"]["err_code"].is_number(), "{headers:?}: {answer}");
        assert_eq!(broker.stored().await, 2, "{headers:?}");
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
}
