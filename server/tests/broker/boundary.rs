//! What a node may not do: everything that names another node, another workspace, or the broker's own API.

use murmur_core::{
    id::{AgentId, WorkspaceId},
    subject::{Destination, Route},
};
use nkeys::KeyPair;

use crate::{
    attack::Scene,
    harness::{AckLayout, Broker, Node, STREAM, WORKSPACE, mail, node_id, now_s, route},
};

#[tokio::test]
async fn the_brokers_own_api_is_out_of_reach() {
    let broker = Broker::start().await;
    let (a, b) = (broker.node(1).await, broker.node(2).await);
    let own = format!("{STREAM}.c_{}", node_id(1).hex());
    b.send(2, "b's own").await.unwrap();
    let before = broker.picture(9).await;
    for prefix in ["$JS.API", "mmjs.API", "$JS.local.API"] {
        for verb in [
            format!("STREAM.CREATE.{STREAM}"),
            format!("STREAM.UPDATE.{STREAM}"),
            format!("STREAM.DELETE.{STREAM}"),
            format!("STREAM.PURGE.{STREAM}"),
            format!("STREAM.INFO.{STREAM}"),
            format!("STREAM.MSG.GET.{STREAM}"),
            format!("STREAM.MSG.DELETE.{STREAM}"),
            format!("DIRECT.GET.{STREAM}"),
            format!("CONSUMER.CREATE.{STREAM}"),
            format!("CONSUMER.DURABLE.CREATE.{own}"),
            format!("CONSUMER.DELETE.{own}"),
            format!("CONSUMER.PAUSE.{own}"),
            format!("CONSUMER.RESET.{own}"),
            format!("CONSUMER.LIST.{STREAM}"),
            format!("CONSUMER.NAMES.{STREAM}"),
            format!("STREAM.SNAPSHOT.{STREAM}"),
            format!("STREAM.RESTORE.{STREAM}"),
            format!("STREAM.LEADER.STEPDOWN.{STREAM}"),
            format!("STREAM.PEER.REMOVE.{STREAM}"),
            "STREAM.LIST".to_owned(),
            "STREAM.NAMES".to_owned(),
            "INFO".to_owned(),
        ] {
            a.publish_denied(&format!("{prefix}.{verb}"), "").await;
        }
    }
    for subject in [format!("$JS.API.CONSUMER.INFO.{own}"), "$SYS.REQ.CLAIMS.UPDATE".to_owned(), "any".to_owned()] {
        a.publish_denied(&subject, "").await;
    }
    assert_eq!(broker.picture(9).await, before);
}

#[tokio::test]
async fn another_nodes_consumer_is_out_of_reach() {
    let broker = Broker::start().await;
    let (a, b) = (broker.node(1).await, broker.node(2).await);
    b.send(2, "b's own").await.unwrap();
    let before = broker.picture(1).await;
    let foreign = format!("c_{}", node_id(2).hex());
    for prefix in ["$JS.API", "mmjs.API"] {
        for verb in ["MSG.NEXT", "INFO", "DELETE", "UNPIN", "PAUSE", "RESET", "LEADER.STEPDOWN", "DURABLE.CREATE"] {
            a.publish_denied(&format!("{prefix}.CONSUMER.{verb}.{STREAM}.{foreign}"), "").await;
        }
        a.publish_denied(
            &format!("{prefix}.CONSUMER.CREATE.{STREAM}.mine.{}", route(2).filter().replace('>', "x")),
            "",
        )
        .await;
    }
    assert_eq!(broker.picture(1).await, before);
}

/// What another node holds can be neither acknowledged nor refused nor ended nor held back, in either layout of subjects.
#[tokio::test]
async fn another_nodes_delivery_is_out_of_reach() {
    for layout in AckLayout::BOTH {
        let scene = Scene::new(layout).await;
        let before = scene.broker.picture(1).await;
        let (foreign, own) = (format!("c_{}", node_id(2).hex()), format!("c_{}", node_id(1).hex()));
        // The true subject; both layouts made up; then subjects that look like one's own in the other layout.
        for ack in [
            scene.foreign_ack(),
            format!("$JS.ACK.{STREAM}.{foreign}.1.1.1.1.0"),
            format!("$JS.ACK._.hash.{STREAM}.{foreign}.1.1.1.1.0"),
            format!("$JS.ACK._.hash.{STREAM}.{foreign}.1.1.1.1.0.token"),
            format!("$JS.ACK.{STREAM}.{foreign}.1.{own}.1.1.0"),
            format!("$JS.ACK._.{own}.{STREAM}.{foreign}.1.1.1.1.0"),
        ] {
            // `+NXT` in an acknowledgement is a pull.
            for body in ["", "+ACK", "-NAK", "+TERM", "+WPI", "+NXT"] {
                scene.a.publish_denied(&ack, body).await;
            }
        }
        assert_eq!(scene.broker.picture(1).await, before, "{layout:?}");
        scene.goes_on().await;
    }
}

#[tokio::test]
async fn a_sender_cannot_pose_as_another_or_write_into_another_workspace() {
    let broker = Broker::start().await;
    let (a, _b) = (broker.node(1).await, broker.node(2).await);
    let before = broker.picture(9).await;
    let agent = Destination::Agent(AgentId::from_bytes([0xee; 16]));
    let elsewhere = Route { workspace: WorkspaceId::from_bytes([0xbb; 16]), ..route(2) };
    for subject in [
        mail(2, 1),
        mail(2, 2),
        elsewhere.subject(agent, node_id(1)),
        format!("{}.x", mail(1, 2)),
        format!("{}.{}", route(2), node_id(1).hex()),
    ] {
        a.publish_denied(&subject, "forged").await;
    }
    assert_eq!(broker.picture(9).await, before);
}

/// A node of two workspaces writes to both, and to no third.
#[tokio::test]
async fn a_tokens_workspaces_are_all_that_it_reaches() {
    let broker = Broker::start().await;
    let [second, third] = [0xbb, 0xcc].map(|byte| WorkspaceId::from_bytes([byte; 16]));
    let key = KeyPair::new_user();
    let workspaces = [WORKSPACE, second];
    let jwt = broker.keys.node_user_jwt(node_id(1), &workspaces, &key.public_key(), now_s(), 600).unwrap();
    let a = Node::connect_with(&broker, 1, key, move || jwt.clone()).await.unwrap();
    let to = |workspace| Route { workspace, ..route(2) }.subject(Destination::Ack, node_id(1));
    for workspace in workspaces {
        a.js.publish(to(workspace), "x".into()).await.unwrap().await.unwrap();
    }
    a.publish_denied(&to(third), "x").await;
    assert_eq!(broker.stored().await, 2);
}

/// Another's replies come to its inbox; nobody writes or listens there, but for answers that the broker itself was told to send.
#[tokio::test]
async fn a_nodes_inbox_takes_nothing_from_another() {
    let broker = Broker::start().await;
    let (a, b) = (broker.node(1).await, broker.node(2).await);
    let mut inbox = b.client.subscribe(format!("{}.>", b.inbox)).await.unwrap();
    b.flushed().await;
    a.publish_denied(&format!("{}.x", b.inbox), "forged").await;
    a.publish_denied("_INBOX.x", "forged").await;
    a.publish_denied("_R_.x", "forged").await;
    b.client.publish(mail(2, 3), "the broker answers b in order".into()).await.unwrap();
    b.flushed().await;
    assert!(futures::FutureExt::now_or_never(futures::StreamExt::next(&mut inbox)).is_none());
}

#[tokio::test]
async fn a_node_hears_its_own_inbox_only() {
    let broker = Broker::start().await;
    let (a, b) = (broker.node(1).await, broker.node(2).await);
    for subject in [
        ">",
        "_INBOX.>",
        "mm.in.>",
        "mmjs.>",
        "$JS.>",
        "$JS.API.>",
        "$JS.ACK.>",
        "$JS.EVENT.>",
        "$SYS.>",
        "_R_.>",
        &format!("{}.>", b.inbox),
        &route(1).filter(),
    ] {
        a.subscribe_denied(subject).await;
    }
    for (subject, queue) in [(">", "q"), ("mm.in.>", "q"), ("_INBOX.>", "mmjs")] {
        let _subscription = a.client.queue_subscribe(subject, queue.to_owned()).await.unwrap();
        a.violation(&format!("Subscription to \"{subject}\"")).await;
    }
}
