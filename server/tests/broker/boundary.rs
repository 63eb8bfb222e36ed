//! What a node may not do: everything that names another node, another workspace, or the broker's own API.

use murmur_core::{
    id::{AgentId, WorkspaceId},
    subject::{Destination, Route},
};

use crate::harness::{Broker, Progress, STREAM, mail, node_id, route};

/// Node 2 with one message waiting, as every test here must leave it.
const UNTOUCHED: Progress = Progress { delivered: 0, unacknowledged: 0, waiting: 1 };

#[tokio::test]
async fn the_brokers_own_api_is_out_of_reach() {
    let broker = Broker::start().await;
    let (a, b) = (broker.node(1).await, broker.node(2).await);
    let own = format!("{STREAM}.c_{}", node_id(1).hex());
    b.send(2, "b's own").await.unwrap();
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
        ] {
            a.publish_denied(&format!("{prefix}.{verb}"), "").await;
        }
    }
    for subject in [format!("$JS.API.CONSUMER.INFO.{own}"), "$SYS.REQ.CLAIMS.UPDATE".to_owned(), "any".to_owned()] {
        a.publish_denied(&subject, "").await;
    }
    assert_eq!(broker.progress(2).await, UNTOUCHED);
}

#[tokio::test]
async fn another_nodes_consumer_is_out_of_reach() {
    let broker = Broker::start().await;
    let (a, b) = (broker.node(1).await, broker.node(2).await);
    b.send(2, "b's own").await.unwrap();
    let foreign = format!("c_{}", node_id(2).hex());
    let own = format!("c_{}", node_id(1).hex());
    for prefix in ["$JS.API", "mmjs.API"] {
        for verb in ["MSG.NEXT", "INFO", "DELETE", "UNPIN"] {
            a.publish_denied(&format!("{prefix}.CONSUMER.{verb}.{STREAM}.{foreign}"), "").await;
        }
    }
    // Both layouts; then subjects that look like one's own in the other layout. `+NXT` in an acknowledgement is a pull.
    for ack in [
        format!("$JS.ACK.{STREAM}.{foreign}.1.1.1.1.0"),
        format!("$JS.ACK._.hash.{STREAM}.{foreign}.1.1.1.1.0"),
        format!("$JS.ACK._.hash.{STREAM}.{foreign}.1.1.1.1.0.token"),
        format!("$JS.ACK.{STREAM}.{foreign}.1.{own}.1.1.0"),
        format!("$JS.ACK._.{own}.{STREAM}.{foreign}.1.1.1.1.0"),
    ] {
        for body in ["", "+TERM", "+NXT"] {
            a.publish_denied(&ack, body).await;
        }
    }
    assert_eq!(broker.progress(2).await, UNTOUCHED);
}

#[tokio::test]
async fn a_sender_cannot_pose_as_another_or_write_into_another_workspace() {
    let broker = Broker::start().await;
    let (a, _b) = (broker.node(1).await, broker.node(2).await);
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
    assert_eq!(broker.stored().await, 0);
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
}
