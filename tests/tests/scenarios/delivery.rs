//! What was accepted arrives once, whatever is away or killed in between.

use murmur_proto::node::v1::{DeliveryState, GetDeliveryRequest, ListInboxRequest, Message, SendRequest, SendResponse};
use murmur_tests::{
    network::{Network, Node, Options},
    talk::alice_and_bob,
    wait,
};

#[tokio::test]
async fn mail_for_a_node_that_is_away_waits() {
    let (network, here, mut there) = pair().await;
    there.process.kill_9();

    let sent = send(&here, "one").await;
    there.process.start();
    there.ready().await;

    assert_eq!(bodies(&there, 1).await, ["one"]);
    until_state(&here, &sent, DeliveryState::Read).await;
    drop(network);
}

#[tokio::test]
async fn a_sender_killed_after_its_promise_keeps_it() {
    let (mut network, mut here, there) = pair().await;
    network.broker.kill_9();
    send(&here, "promised").await;
    here.process.kill_9();

    network.broker.start();
    here.process.start();
    here.ready().await;
    assert_eq!(bodies(&there, 1).await, ["promised"]);
}

#[tokio::test]
async fn a_broker_that_is_killed_again_and_again_loses_and_doubles_nothing() {
    let (mut network, here, there) = pair().await;
    let mut expected = Vec::new();
    for round in 0..5 {
        for number in 0..5 {
            let text = format!("{round}-{number}");
            send(&here, &text).await;
            expected.push(text);
        }
        network.broker.kill_9();
        let text = format!("{round}-away");
        send(&here, &text).await;
        expected.push(text);
        network.broker.start();
    }
    assert_eq!(bodies(&there, expected.len()).await, expected, "in the order of sending, once each");
}

#[tokio::test]
async fn known_peers_deliver_while_the_control_plane_is_down() {
    let (mut network, mut here, there) = pair().await;
    network.server.kill_9();
    send(&here, "without it").await;
    assert_eq!(bodies(&there, 1).await, ["without it"]);

    here.process.kill_9();
    here.process.start();
    wait::until("the node delivers from what it remembers", || async {
        here.status().await?.broker_connected.then_some(())
    })
    .await;
    send(&here, "and after a restart").await;
    assert_eq!(bodies(&there, 1).await, ["and after a restart"]);
}

#[tokio::test]
async fn a_repeat_with_the_same_key_is_the_same_message() {
    let (_network, here, there) = pair().await;
    let request = |text: &str| SendRequest { idempotency_key: "order-7".into(), ..draft(text) };
    let mut client = here.client().await;
    let first = client.messages.send(request("once")).await.unwrap().into_inner();
    let second = client.messages.send(request("once")).await.unwrap().into_inner();
    assert_eq!(first.msg_id, second.msg_id);
    let refused = client.messages.send(request("something else")).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::AlreadyExists, "{refused}");
    assert_eq!(bodies(&there, 1).await, ["once"]);
}

#[tokio::test]
async fn a_message_past_its_time_ends_visibly() {
    let (_network, here, mut there) = pair().await;
    there.process.kill_9();
    let request = SendRequest { ttl_seconds: 1, ..draft("too late") };
    let sent = here.client().await.messages.send(request).await.unwrap().into_inner();
    until_state(&here, &sent, DeliveryState::Expired).await;
}

#[tokio::test]
async fn bodies_from_empty_to_the_limit_arrive_whole() {
    let (_network, here, there) = pair().await;
    for length in [0, 1, 1024, 196_608] {
        let body: Vec<u8> = (0..length).map(|i: usize| (i % 251) as u8).collect();
        let request = SendRequest { body: body.clone().into(), content_type: "application/x-test".into(), ..draft("") };
        here.client().await.messages.send(request).await.unwrap();
        let received = messages(&there, 1).await;
        assert!(received[0].body == body, "{length} bytes changed on the way");
    }
    let request = SendRequest { body: vec![b'x'; 196_609].into(), ..draft("") };
    let refused = here.client().await.messages.send(request).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    assert!(refused.message().contains("196608") || refused.message().contains("196,608"), "{refused}");
}

async fn pair() -> (Network, Node, Node) {
    alice_and_bob(Options::default()).await
}

fn draft(text: &str) -> SendRequest {
    SendRequest { agent: "alice".into(), to: "bob".into(), body: text.to_owned().into(), ..Default::default() }
}

async fn send(node: &Node, text: &str) -> SendResponse {
    node.client().await.messages.send(draft(text)).await.unwrap().into_inner()
}

/// The next `count` unread messages of bob, in order.
async fn messages(node: &Node, count: usize) -> Vec<Message> {
    let received = std::cell::RefCell::new(Vec::new());
    wait::until("all messages have arrived", || async {
        let request = ListInboxRequest { agent: "bob".into(), limit: 1000, ..Default::default() };
        let page = node.client().await.messages.list_inbox(request).await.ok()?.into_inner();
        received.borrow_mut().extend(page.messages);
        (received.borrow().len() >= count).then_some(())
    })
    .await;
    received.into_inner()
}

async fn bodies(node: &Node, count: usize) -> Vec<String> {
    messages(node, count).await.into_iter().map(|message| String::from_utf8(message.body.to_vec()).unwrap()).collect()
}

async fn until_state(node: &Node, sent: &SendResponse, state: DeliveryState) {
    until_delivery(node, &sent.msg_id, state).await;
}

/// Waits until alice's message is where it should be.
pub(crate) async fn until_delivery(node: &Node, msg_id: &str, state: DeliveryState) {
    wait::until("the delivery ends in its state", || async {
        let request = GetDeliveryRequest { agent: "alice".into(), msg_id: msg_id.to_owned() };
        let answer = node.client().await.messages.get_delivery(request).await.ok()?.into_inner();
        (answer.deliveries[0].state == state as i32).then_some(())
    })
    .await;
}
