//! The crash points of PROTOCOL §5.6 over whole processes: a node dies at each step of a message's way, on either side, and
//! afterwards each accepted message is in one inbox row, its sender knows, and nothing waits.

use murmur_proto::node::v1::{AttachRequest, DeliveryState, ListInboxRequest, RegisterRequest, attach_response::Item};
use murmur_tests::{
    network::Node,
    store,
    talk::{ALICE, BOB, inbox, register},
    wait,
};
use tokio_stream::StreamExt as _;

use crate::pair::{Pair, draft, read, send_all, send_surely, texts};

/// Messages that are on their way around a death.
const MESSAGES: usize = 6;
/// The broker delivers again what was not acknowledged for so long.
const ACK_WAIT: (&str, &str) = ("MURMUR_SERVER_STREAM_ACK_WAIT_MS", "2000");
const DAY_MS: i64 = 24 * 3600 * 1000;

#[derive(Clone, Copy)]
enum Side {
    Sender,
    Recipient,
}

/// What else is away when the node comes back.
#[derive(Clone, Copy)]
enum Away {
    Nothing,
    /// It comes back after the node.
    Broker,
    /// It stays away.
    ControlPlane,
}

use Away::{Broker, ControlPlane, Nothing};
use Side::{Recipient, Sender};

/// Messages flow while the node of one side dies at one point after the other.
async fn survives(side: Side, points: &[&str], away: Away) {
    let mut pair = Pair::start(&[ACK_WAIT]).await;
    let victim = victim(&mut pair, side);
    victim.process.terminate().await;
    victim.process.start_to_die_at(points[0]);
    victim.ready().await;
    let sending = tokio::spawn(send_all(pair.here.socket.clone(), MESSAGES));
    let victim = self::victim(&mut pair, side);
    victim.process.died_at(points[0]).await;
    for point in &points[1..] {
        victim.process.start_to_die_at(point);
        victim.process.died_at(point).await;
    }
    match away {
        Nothing => {}
        Broker => pair.network.broker.kill_9(),
        ControlPlane => pair.network.server.kill_9(),
    }
    let victim = self::victim(&mut pair, side);
    victim.process.start();
    wait::until("the node serves again", || victim.status()).await;
    if matches!(away, Broker) {
        pair.network.broker.start();
    }
    let accepted = sending.await.unwrap();
    let shown = pair.settled(&accepted).await;
    assert!(shown.iter().all(|message| !message.redelivered), "nobody was shown any of them before");
}

fn victim(pair: &mut Pair, side: Side) -> &mut Node {
    match side {
        Sender => &mut pair.here,
        Recipient => &mut pair.there,
    }
}

macro_rules! rows {
    ($($name:ident: $side:ident dies at $points:expr, $away:ident away;)+) => {
        $(
            #[tokio::test]
            async fn $name() {
                survives($side, &$points, $away).await;
            }
        )+
    };
}

// The sender's side. A number behind the point lets it pass so often less one.
rows! {
    s1_dead_before_the_commit_the_same_key_makes_one_message: Sender dies at ["S1"], Nothing away;
    s1_dead_between_two_messages: Sender dies at ["S1:3"], Nothing away;
    s2_dead_after_the_commit_it_is_sealed_and_sent: Sender dies at ["S2"], Nothing away;
    s3_dead_before_the_publish_one_copy_leaves: Sender dies at ["S3"], Nothing away;
    s4_dead_before_the_brokers_answer_the_same_copy_leaves_again: Sender dies at ["S4"], Nothing away;
    s4_dead_amid_a_batch: Sender dies at ["S4:3"], Nothing away;
    s5_dead_before_the_answer_is_noted: Sender dies at ["S5"], Nothing away;
    s6_dead_before_the_receipt_is_committed: Sender dies at ["S6"], Nothing away;
    r1_dead_with_a_receipt_in_hand: Sender dies at ["R1"], Nothing away;
    r3_dead_with_a_receipt_committed: Sender dies at ["R3"], Nothing away;
    r4_dead_with_a_receipt_acknowledged: Sender dies at ["R4"], Nothing away;
    a_sender_dead_twice_before_and_after_the_publish: Sender dies at ["S3", "S4"], Nothing away;
    a_sender_dead_three_times: Sender dies at ["S2", "S5", "S6"], Nothing away;
    a_sender_back_before_the_broker: Sender dies at ["S4"], Broker away;
    a_sender_back_without_the_control_plane: Sender dies at ["S5"], ControlPlane away;
}

// The recipient's side.
rows! {
    r1_dead_with_a_message_in_hand_it_comes_again: Recipient dies at ["R1"], Nothing away;
    r1_dead_amid_a_batch: Recipient dies at ["R1:3"], Nothing away;
    r2_dead_amid_the_commit_it_comes_again: Recipient dies at ["R2"], Nothing away;
    r3_dead_after_the_commit_it_comes_again_and_is_known: Recipient dies at ["R3"], Nothing away;
    r4_dead_when_the_broker_was_acknowledged: Recipient dies at ["R4"], Nothing away;
    s4_dead_before_the_broker_answered_for_the_receipt: Recipient dies at ["S4"], Nothing away;
    r5_dead_after_the_receipt_left_it_leaves_twice: Recipient dies at ["R5"], Nothing away;
    a_recipient_dead_twice_over_one_message_is_not_poisoned: Recipient dies at ["R2", "R2"], Nothing away;
    a_recipient_dead_three_times: Recipient dies at ["R1", "R3", "R5"], Nothing away;
    a_recipient_back_before_the_broker: Recipient dies at ["R3"], Broker away;
    a_recipient_back_without_the_control_plane: Recipient dies at ["R4"], ControlPlane away;
}

#[tokio::test]
async fn r2_a_message_that_kills_its_recipient_three_times_is_put_aside_and_told() {
    let mut pair = Pair::start(&[ACK_WAIT, ("MURMUR_NODE_GAP_WAIT_MS", "100")]).await;
    pair.there.process.terminate().await;
    let poison = pair.send("poison").await;
    for _ in 0..3 {
        pair.there.process.start_to_die_at("R2");
        pair.there.process.died_at("R2").await;
    }
    pair.there.process.start();
    wait::until("it is in quarantine, and the status says so", || async {
        let findings = pair.there.status().await?.findings;
        findings.iter().any(|finding| finding.what.contains("1 arrival is in quarantine")).then_some(())
    })
    .await;
    assert_eq!(store::rows(&pair.there, "quarantine"), 1);
    assert_eq!(inbox(&pair.there, "bob").await.unwrap(), []);
    let delivery = pair.delivery(&poison).await.unwrap();
    assert_eq!(delivery.state(), DeliveryState::Stored, "the sender sees that nobody has signed for it");

    // The node lives on: what comes after the poison arrives.
    let after = pair.send("after").await;
    pair.until(&after, DeliveryState::Delivered).await;
    wait::until("it is shown, since nobody waits for the poison any longer", || async {
        (texts(&inbox(&pair.there, "bob").await?) == ["after"]).then_some(())
    })
    .await;
}

#[tokio::test]
async fn r6_dead_after_it_was_shown_it_is_shown_again_and_marked() {
    let mut pair = Pair::start(&[ACK_WAIT]).await;
    let attach = AttachRequest { agent: "bob".into(), ..Default::default() };
    let mut session = pair.there.client().await.sessions.attach(attach).await.unwrap().into_inner();
    let message = pair.send("shown").await;
    loop {
        if let Some(Item::Message(shown)) = session.next().await.unwrap().unwrap().item {
            assert!(!shown.redelivered, "this is the first time");
            break;
        }
    }
    wait::until("that it was shown is on disk", || async {
        (store::number(&pair.there, "SELECT count(*) FROM inbox WHERE pushed_ms IS NOT NULL") == 1).then_some(())
    })
    .await;
    drop(session);
    pair.there.process.terminate().await;
    pair.there.process.start_to_die_at("R6");
    pair.there.ready().await;
    let reading = ListInboxRequest { agent: "bob".into(), ..Default::default() };
    assert!(pair.there.client().await.messages.list_inbox(reading).await.is_err(), "it died before it answered");
    pair.there.process.died_at("R6").await;
    pair.there.process.start();
    pair.there.ready().await;
    let shown = pair.settled(&[message]).await;
    assert!(shown[0].redelivered, "it was shown before");
}

#[tokio::test]
async fn s7_dead_after_the_reseal_was_committed_the_new_copy_leaves() {
    let mut pair = Pair::start(&[ACK_WAIT]).await;
    pair.there.process.terminate().await;
    let message = pair.send("to keys that are gone").await;
    pair.until(&message, DeliveryState::Stored).await;
    lose_prekeys(&pair.there);
    pair.here.process.terminate().await;
    pair.here.process.start_to_die_at("S7");
    pair.there.process.start();
    pair.here.process.died_at("S7").await;
    pair.here.process.start();
    pair.settled(&[message]).await;
}

#[tokio::test]
async fn p1_dead_after_a_new_prekey_was_published_both_open() {
    // Two days ago.
    let behind = (-2 * DAY_MS).to_string();
    let mut pair = Pair::start(&[ACK_WAIT, ("MURMUR_CLOCK_OFFSET_MS", &behind)]).await;
    pair.there.process.terminate().await;
    let mut draft = draft("to the first key");
    draft.ttl_seconds = 7 * 24 * 3600;
    let sent = send_surely(&pair.here.socket, draft, "first").await;
    let first = crate::pair::Accepted { msg_id: sent.msg_id, text: "to the first key".to_owned() };
    pair.until(&first, DeliveryState::Stored).await;
    // Today.
    pair.here.process.terminate().await;
    for node in [&mut pair.here, &mut pair.there] {
        node.process.set_env("MURMUR_CLOCK_OFFSET_MS", None);
    }
    pair.here.process.start();
    pair.there.process.start_to_die_at("P1");
    pair.there.process.died_at("P1").await;
    assert_eq!(prekeys(&pair.there).len(), 2, "the old one is needed still");
    pair.there.process.start();
    pair.there.ready().await;
    let second = pair.send("to the second key").await;
    pair.settled(&[first, second]).await;
}

#[tokio::test]
async fn p2_dead_before_a_new_prekey_was_published_it_is_at_the_next_start() {
    let network = murmur_tests::network::Network::start().await;
    let here = network.node("here", "jdoe").await;
    let mut there = network.node("there", "jdoe").await;
    register(&here, "alice").await;
    there.process.terminate().await;
    there.process.start_to_die_at("P2");
    there.ready().await;
    let request = RegisterRequest { agent: "bob".into(), ..Default::default() };
    assert!(there.client().await.sessions.register(request).await.is_err(), "it died before it answered");
    there.process.died_at("P2").await;
    there.process.start();
    here.knows(BOB).await;
    there.knows(ALICE).await;
    let pair = Pair { network, here, there };
    let message = pair.send("hello").await;
    pair.settled(&[message]).await;
}

/// Deletes the private halves of a stopped node's prekeys.
pub(crate) fn lose_prekeys(node: &Node) {
    let lost = prekeys(node);
    assert!(!lost.is_empty(), "there is something to lose");
    lost.iter().for_each(|path| std::fs::remove_file(path).unwrap());
}

fn prekeys(node: &Node) -> Vec<std::path::PathBuf> {
    let agents = std::fs::read_dir(node.dir.join("keys/agents")).unwrap();
    let files = agents.flat_map(|agent| std::fs::read_dir(agent.unwrap().path()).unwrap());
    let paths = files.map(|file| file.unwrap().path());
    paths.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("prekey.")).collect()
}

#[tokio::test]
async fn a_push_that_the_node_did_not_live_to_note_is_a_marked_repeat_all_the_same() {
    let mut pair = Pair::start(&[ACK_WAIT]).await;
    let attach = AttachRequest { agent: "bob".into(), ..Default::default() };
    let mut session = pair.there.client().await.sessions.attach(attach).await.unwrap().into_inner();
    pair.send("shown").await;
    while !matches!(session.next().await.unwrap().unwrap().item, Some(Item::Message(_))) {}
    pair.there.process.kill_9();
    pair.there.process.start();
    pair.there.ready().await;
    let again = read(&pair.there, "bob").await;
    assert_eq!(texts(&again), ["shown"]);
    assert!(again[0].redelivered, "it was shown before");
}
