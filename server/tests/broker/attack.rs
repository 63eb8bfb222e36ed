//! Attacks that use only what a node is allowed, with the broker as the deputy: it writes answers to any subject that it is
//! given. Each is tried in both layouts of acknowledgements (PROTOCOL §5.3).

use async_nats::jetstream::Message;
use futures::StreamExt;

use crate::harness::{AckLayout, Broker, Node, Picture, STREAM, mail, node_id, soon};

/// What a pull may ask for: answered by data, 404, 408, heartbeats and then 408, 409, 400.
const PULLS: [&str; 6] = [
    r#"{"batch":1,"no_wait":true}"#,
    r#"{"batch":1,"expires":1000000}"#,
    r#"{"batch":1,"expires":3000000,"idle_heartbeat":1000000}"#,
    r#"{"batch":1,"no_wait":true,"max_bytes":1}"#,
    r#"{"batch":1,"group":"g","id":"x","priority":3}"#,
    "malformed",
];

/// Node 1 attacks, node 2 has one message delivered and unacknowledged and one waiting.
pub(crate) struct Scene {
    pub(crate) broker: Broker,
    pub(crate) a: Node,
    pub(crate) b: Node,
    delivered: Message,
}

impl Scene {
    pub(crate) async fn new(layout: AckLayout) -> Self {
        let broker = Broker::start_in(layout).await;
        let (a, b) = (broker.node(1).await, broker.node(2).await);
        b.send(2, "first").await.unwrap();
        b.send(2, "second").await.unwrap();
        let delivered = take_one(&b).await;
        Self { broker, a, b, delivered }
    }

    /// The subject by which node 2 acknowledges what it holds.
    pub(crate) fn foreign_ack(&self) -> String {
        self.delivered.reply.as_ref().unwrap().to_string()
    }

    /// The subjects that an attacker would like the broker to write to.
    pub(crate) fn targets(&self) -> Vec<String> {
        let victim = format!("{STREAM}.c_{}", node_id(2).hex());
        let api = |prefix: &str| {
            let verbs = ["CONSUMER.DELETE", "CONSUMER.MSG.NEXT"].map(|verb| format!("{prefix}.{verb}.{victim}"));
            let stream = ["STREAM.PURGE", "STREAM.DELETE"].map(|verb| format!("{prefix}.{verb}.{STREAM}"));
            [verbs, stream].concat()
        };
        [api("$JS.API"), api("mmjs.API"), vec![mail(2, 1), mail(2, 2), self.foreign_ack()]].concat()
    }

    /// What must not change, once the broker has worked through everything that node 1 asked for.
    async fn settled(&self) -> Picture {
        settle(&self.a).await;
        self.picture().await
    }

    async fn picture(&self) -> Picture {
        let mut picture = self.broker.picture(1).await;
        picture.subjects.retain(|subject, _| *subject != mail(1, 9));
        picture
    }

    /// Node 2 goes on as if nothing had been: what it holds is still its own to acknowledge, what waits still comes.
    pub(crate) async fn goes_on(self) {
        soon("the confirmed acknowledgement", self.delivered.double_ack()).await.unwrap();
        assert_eq!(take_one(&self.b).await.payload.as_ref(), b"second");
    }
}

async fn take_one(node: &Node) -> Message {
    // One that waits: what was stored may not have reached the consumer yet.
    let mut batch = node.consumer().await.batch().max_messages(1).messages().await.unwrap();
    soon("a delivery", batch.next()).await.unwrap().unwrap()
}

fn pull_subject(prefix: &str, n: u8) -> String {
    format!("{prefix}.CONSUMER.MSG.NEXT.{STREAM}.c_{}", node_id(n).hex())
}

/// Asks for one message of the own consumer, with the answer going to `reply`.
async fn pull_with_reply(a: &Node, body: &'static str, reply: String) {
    a.client.publish_with_reply(pull_subject("mmjs.API", 1), reply, body.into()).await.unwrap();
}

/// Returns once the broker has worked through everything this node asked for before, its later expiries included.
async fn settle(a: &Node) {
    let reply = a.client.new_inbox();
    let mut answers = a.client.subscribe(reply.clone()).await.unwrap();
    pull_with_reply(a, r#"{"batch":100,"expires":20000000}"#, reply).await;
    // Data may come first, when the attack left some; the expiry comes last.
    while soon("the end of a pull", answers.next()).await.unwrap().status.is_none() {}
    a.send(9, "the broker stores in order").await.unwrap();
}

#[tokio::test]
async fn the_broker_is_no_deputy_for_a_status_reply() {
    for layout in AckLayout::BOTH {
        let scene = Scene::new(layout).await;
        let before = scene.picture().await;
        for target in scene.targets() {
            for body in PULLS {
                pull_with_reply(&scene.a, body, target.clone()).await;
            }
            assert_eq!(scene.settled().await, before, "{layout:?} {target}");
        }
        scene.goes_on().await;
    }
}

#[tokio::test]
async fn the_broker_is_no_deputy_for_pulled_data() {
    for layout in AckLayout::BOTH {
        let scene = Scene::new(layout).await;
        for target in scene.targets() {
            scene.b.send(1, "{}").await.unwrap();
            let before = scene.picture().await;
            pull_with_reply(&scene.a, PULLS[0], target.clone()).await;
            // The bait is delivered and unacknowledged, and so still stored.
            assert_eq!(scene.settled().await, before, "{layout:?} {target}");
        }
        scene.goes_on().await;
    }
}

/// An acknowledgement that asks for the next message is a pull by another name.
#[tokio::test]
async fn the_broker_is_no_deputy_for_an_acknowledgement_that_pulls() {
    for layout in AckLayout::BOTH {
        let scene = Scene::new(layout).await;
        for target in scene.targets() {
            for body in ["+NXT", r#"+NXT {"batch":1,"no_wait":true}"#, r#"+NXT {"batch":9,"expires":1000000}"#, "+ACK"]
            {
                scene.b.send(1, "to be acknowledged").await.unwrap();
                scene.b.send(1, "{}").await.unwrap();
                let own_ack = take_one(&scene.a).await.reply.clone().unwrap();
                // What is acknowledged goes; only the attacker's own mail may.
                let mut before = scene.picture().await;
                before.subjects.remove(&mail(2, 1));
                scene.a.client.publish_with_reply(own_ack, target.clone(), body.into()).await.unwrap();
                let mut after = scene.settled().await;
                after.subjects.remove(&mail(2, 1));
                assert_eq!(after, before, "{layout:?} {target} {body}");
            }
        }
        scene.goes_on().await;
    }
}

#[tokio::test]
async fn the_broker_is_no_deputy_for_a_publish_acknowledgement() {
    for layout in AckLayout::BOTH {
        let scene = Scene::new(layout).await;
        for target in scene.targets() {
            let mut before = scene.picture().await;
            before.subjects.remove(&mail(1, 3));
            scene.a.client.publish_with_reply(mail(1, 3), target.clone(), "bait".into()).await.unwrap();
            let mut after = scene.settled().await;
            after.subjects.remove(&mail(1, 3));
            assert_eq!(after, before, "{layout:?} {target}");
        }
        scene.goes_on().await;
    }
}

#[tokio::test]
async fn the_broker_is_no_deputy_for_consumer_information() {
    for layout in AckLayout::BOTH {
        let scene = Scene::new(layout).await;
        let before = scene.picture().await;
        let own = format!("c_{}", node_id(1).hex());
        for target in scene.targets() {
            for subject in
                [format!("mmjs.API.CONSUMER.INFO.{STREAM}.{own}"), format!("$JS.ACK.{STREAM}.{own}.1.1.1.1.0")]
            {
                scene.a.client.publish_with_reply(subject, target.clone(), "".into()).await.unwrap();
            }
            assert_eq!(scene.settled().await, before, "{layout:?} {target}");
        }
        scene.goes_on().await;
    }
}

/// A traced message makes the server report to a subject of the sender's choice.
#[tokio::test]
async fn the_broker_is_no_deputy_for_a_trace() {
    for layout in AckLayout::BOTH {
        let scene = Scene::new(layout).await;
        for target in scene.targets() {
            for only in ["true", "false"] {
                let mut headers = async_nats::HeaderMap::new();
                headers.insert("Nats-Trace-Dest", target.as_str());
                headers.insert("Nats-Trace-Only", only);
                let mut before = scene.picture().await;
                before.subjects.remove(&mail(1, 3));
                scene.a.client.publish_with_headers(mail(1, 3), headers, "traced".into()).await.unwrap();
                let mut after = scene.settled().await;
                after.subjects.remove(&mail(1, 3));
                assert_eq!(after, before, "{layout:?} {target} {only}");
            }
        }
        scene.goes_on().await;
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
