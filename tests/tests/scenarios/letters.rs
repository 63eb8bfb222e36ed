//! What a person sees of messages that wait, died or were not believed, and what they can do about them, by the command line.

use std::{
    path::Path,
    process::{Command, Output, Stdio},
};

use async_nats::ConnectOptions;
use murmur_core::{
    id::{AgentId, NodeId},
    subject::{Destination, Route},
};
use murmur_proto::{
    client::{ControlClient, Headers, connect_server},
    node::v1::{DeliveryState, GetSentMessageRequest, ListPeersRequest, SendRequest},
    v1::DeregisterAgentRequest,
};
use murmur_tests::{
    network::{Network, Node, Options},
    process::binary,
    talk::{ALICE, BOB, alice_and_bob, register},
    wait,
};
use serde_json::{Value, json};

#[tokio::test]
async fn a_message_that_waits_is_listed_and_can_be_taken_back_once() {
    // What is taken back never comes, and is waited for.
    let env = vec![("MURMUR_NODE_GAP_WAIT_MS".to_owned(), "100".to_owned())];
    let (mut network, here, mut there) = alice_and_bob(Options { env, ..Options::default() }).await;
    there.process.kill_9();
    let stored = send(&here, "with the broker").await;
    until(&here, &stored, DeliveryState::Stored).await;
    network.broker.kill_9();
    here.cut_off().await;
    let kept = send(&here, "never left").await;
    until_waiting(&here, &kept, "the broker, which is away").await;

    let list = json_of(&here, &["outbox"]);
    let rows = list["messages"].as_array().unwrap();
    assert_eq!(rows.iter().map(|row| row["msg_id"].as_str().unwrap()).collect::<Vec<_>>(), [&*stored, &*kept]);
    assert_eq!((&rows[0]["from"], &rows[0]["to"]), (&json!(ALICE), &json!(BOB)));
    assert!(!rows[0]["next_time"].is_null());
    let text = ok(&here, &["outbox", "ls", "--state", "stored"]);
    assert!(text.contains(&stored) && !text.contains(&kept), "{text}");
    let page = json_of(&here, &["outbox", "--limit", "1"]);
    let rest = json_of(&here, &["outbox", "--limit", "1", "--page", page["next_page"].as_str().unwrap()]);
    assert_eq!((&rest["messages"][0]["msg_id"], &rest["next_page"]), (&json!(kept), &Value::Null));
    assert!(ok(&here, &["outbox", "show", &kept]).contains("waits for"));

    assert_eq!(json_of(&here, &["outbox", "cancel", &stored])["may_arrive"], true);
    assert_eq!(json_of(&here, &["outbox", "cancel", &kept])["messages"][0]["state"], "cancelled");
    let again = failure(&here, &["outbox", "cancel", &kept], 1);
    assert_eq!(again["reason"], "MESSAGE_ENDED");
    assert!(again["message"].as_str().unwrap().contains("CANCELLED"), "{again}");
    assert_eq!(json_of(&here, &["outbox"])["messages"], json!([]));
    assert_eq!(json_of(&here, &["dlq", "ls"])["messages"], json!([]), "what was taken back is no dead letter");

    network.broker.start();
    there.process.start();
    there.ready().await;
    let last = send(&here, "after that").await;
    assert_eq!(
        cli(&here, &["message", &last, "--agent", "alice", "--wait", "delivered", "--timeout", "60s"]).status.code(),
        Some(0)
    );
    let texts = wait::until("the last one is shown", || async {
        let inbox = json_of(&there, &["inbox", "--agent", "bob", "--peek"]);
        let texts: Vec<_> = inbox["messages"].as_array()?.iter().map(|message| message["body"].clone()).collect();
        texts.contains(&json!("after that")).then_some(texts)
    })
    .await;
    assert!(!texts.contains(&json!("never left")), "what never left and was taken back does not arrive: {texts:?}");
    assert_eq!(texts.last(), Some(&json!("after that")));
    let late = failure(&here, &["outbox", "cancel", &last], 1);
    assert_eq!(late["reason"], "MESSAGE_ENDED");
}

#[tokio::test]
async fn a_message_that_a_policy_refused_is_delivered_once_the_policy_is_gone() {
    let (_network, here, mut there) = pair().await;
    there.process.kill_9();
    there.process = there.process.env("MURMUR_NODE_BODY_BYTES_MAX", "4");
    there.process.start();
    there.ready().await;
    let sent = send(&here, "more than four bytes").await;
    until(&here, &sent, DeliveryState::Dead).await;

    let list = json_of(&here, &["dlq", "ls"]);
    assert_eq!(list["messages"].as_array().unwrap().len(), 1, "{list}");
    assert_eq!(
        (&list["messages"][0]["msg_id"], &list["messages"][0]["reason"]),
        (&json!(sent), &json!("POLICY_DENIED"))
    );
    assert_eq!(json_of(&here, &["dlq", "show", &sent])["content"]["body"], "more than four bytes");
    assert!(ok(&here, &["dlq", "show", &sent]).contains("  more than four bytes"));
    let status = ok(&here, &["status"]);
    assert!(status.contains("1 message could not be delivered") && status.contains("murmurctl dlq ls"), "{status}");

    // Nothing has changed over there, so the same comes of it again.
    json_of(&here, &["dlq", "redrive", &sent]);
    until_letters(&here, 1).await;
    there.process.kill_9();
    there.process = there.process.env("MURMUR_NODE_BODY_BYTES_MAX", "196608");
    there.process.start();
    there.ready().await;
    let redriven = json_of(&here, &["dlq", "redrive", "--all"]);
    assert_eq!(redriven["redriven"][0]["msg_id"], json!(sent), "within its time it keeps its id");
    until(&here, &sent, DeliveryState::Delivered).await;
    let inbox = json_of(&there, &["inbox", "--agent", "bob"]);
    assert_eq!((&inbox["messages"][0]["msg_id"], &inbox["unread"]), (&json!(sent), &json!(0)));
    assert_eq!(inbox["messages"].as_array().unwrap().len(), 1, "once: {inbox}");
    assert_eq!(json_of(&here, &["status"])["node"]["dead_letters"], 0);
    assert_eq!(failure(&here, &["dlq", "redrive", &sent], 1)["reason"], "MESSAGE_NOT_DEAD");
}

#[tokio::test]
async fn an_expired_message_is_a_dead_letter_and_can_be_sent_again_or_dropped() {
    let (_network, here, mut there) = pair().await;
    there.process.kill_9();
    let again = send_for(&here, "again", 1).await;
    let dropped = send_for(&here, "dropped", 1).await;
    for sent in [&again, &dropped] {
        until(&here, sent, DeliveryState::Expired).await;
    }
    let list = json_of(&here, &["dlq", "ls", "--agent", "alice"]);
    assert_eq!(list["messages"].as_array().unwrap().len(), 2, "{list}");
    assert_eq!(list["messages"][0]["reason"], "EXPIRED");
    json_of(&here, &["dlq", "drop", &dropped]);
    assert_eq!(
        json_of(&here, &["outbox", "show", &dropped])["messages"][0]["state"],
        "expired",
        "how it ended stays known"
    );

    there.process.start();
    there.ready().await;
    // It would have a second again; time enough when the other side is there, but not to prove anything by.
    let redriven = json_of(&here, &["dlq", "redrive", &again]);
    assert_eq!(redriven["redriven"][0]["msg_id"], json!(again));
    wait::until("it is delivered, if need be in a later try", || async {
        if state(&here, &again).await == DeliveryState::Expired {
            cli(&here, &["dlq", "redrive", &again]);
        }
        (state(&here, &again).await == DeliveryState::Delivered).then_some(())
    })
    .await;
    let inbox = json_of(&there, &["inbox", "--agent", "bob"]);
    assert_eq!(inbox["messages"].as_array().unwrap().len(), 1, "{inbox}");
    assert_eq!(inbox["messages"][0]["body"], "again");
}

#[tokio::test]
async fn mail_for_an_agent_that_ended_dies_and_goes_to_whoever_has_its_name_when_a_person_says_so() {
    let env = vec![("MURMUR_NODE_REPUBLISH_MS".to_owned(), "[100]".to_owned())];
    let (network, here, mut there) = alice_and_bob(Options { env, ..Options::default() }).await;
    there.process.kill_9();
    let sent = send(&here, "for whoever is bob").await;
    until(&here, &sent, DeliveryState::Stored).await;
    let agent_id = agent_id(&here, BOB).await;
    // What the other node would say itself, were it not away.
    let token = std::fs::read_to_string(there.dir.join("identity/node.token")).unwrap();
    let channel = connect_server(&network.server_url, None).await.unwrap();
    let mut as_there = ControlClient::new(channel, Headers::new().with_token(token.trim()).unwrap());
    as_there.directory.deregister_agent(DeregisterAgentRequest { agent_id }).await.unwrap();
    until(&here, &sent, DeliveryState::Dead).await;
    assert_eq!(json_of(&here, &["dlq", "ls"])["messages"][0]["reason"], "AGENT_GONE");
    let nobody = failure(&here, &["dlq", "redrive", &sent], 3);
    assert_eq!(nobody["reason"], "AGENT_NOT_FOUND");

    register(&here, "bob").await;
    here.knows(BOB).await;
    let unknown = "0192f0c1-2e5a-7aaa-8aaa-aaaaaaaaaaaa";
    let output = cli(&here, &["dlq", "redrive", unknown, &sent, "--json"]);
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["refused"][0]["msg_id"], unknown, "{answer}");
    assert_eq!(answer["refused"][0]["error"]["reason"], "MESSAGE_NOT_FOUND");
    let redriven = &answer["redriven"][0];
    assert_eq!(
        (&redriven["redrive_of"], &redriven["to"]),
        (&json!(sent), &json!(BOB)),
        "what is refused keeps no other"
    );
    let new = redriven["msg_id"].as_str().unwrap();
    assert_ne!(new, sent, "another agent gets another message");
    until(&here, new, DeliveryState::Delivered).await;
    assert_eq!(json_of(&here, &["inbox", "--agent", "bob"])["messages"][0]["body"], "for whoever is bob");
}

#[tokio::test]
async fn what_cannot_be_believed_is_listed_with_the_node_it_came_from_and_can_be_dropped() {
    let (_network, here, there) = pair().await;
    let bob: AgentId = agent_id(&here, BOB).await.parse().unwrap();
    let own: NodeId = read_json(&here.dir.join("identity/node.json"))["node_id"].as_str().unwrap().parse().unwrap();
    let broker = read_json(&here.dir.join("identity/broker.json"));
    let route: Route = read_json(&there.dir.join("identity/broker.json"))["route"].as_str().unwrap().parse().unwrap();
    let seed = std::fs::read_to_string(here.dir.join("identity/broker.nk")).unwrap();
    let credentials = format!(
        "-----BEGIN NATS USER JWT-----\n{}\n------END NATS USER JWT------\n\n-----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
        broker["jwt"].as_str().unwrap(),
        seed.trim()
    );
    let options = ConnectOptions::with_credentials(&credentials).unwrap();
    let client = options.connect(broker["urls"][0].as_str().unwrap()).await.unwrap();
    for _ in 0..2 {
        client.publish(route.subject(Destination::Agent(bob), own), "no envelope".into()).await.unwrap();
    }
    client.flush().await.unwrap();

    wait::until("both are in quarantine", || async { (there.status().await?.quarantined == 2).then_some(()) }).await;
    let list = json_of(&there, &["quarantine", "ls"]);
    let first = &list["arrivals"][0];
    assert_eq!((&first["source_node_id"], &first["reason"]), (&json!(own.to_string()), &json!("MALFORMED")));
    assert!(ok(&there, &["quarantine", "ls"]).contains(&own.to_string()));
    let number = first["number"].to_string();
    let shown = json_of(&there, &["quarantine", "show", &number]);
    assert_eq!(shown["content_hex"], hex::encode("no envelope"));
    assert!(ok(&there, &["status"]).contains("murmurctl quarantine ls"));
    json_of(&there, &["quarantine", "drop", &number]);
    assert_eq!(failure(&there, &["quarantine", "show", &number], 3)["reason"], "MESSAGE_NOT_FOUND");
    json_of(&there, &["quarantine", "drop", "--all"]);
    assert_eq!(json_of(&there, &["quarantine", "ls"])["arrivals"], json!([]));
}

#[tokio::test]
async fn waiting_for_read_ends_when_the_recipient_reads_and_not_before() {
    let (_network, here, there) = pair().await;
    let waiting =
        command(&here, &["send", "bob", "look", "--agent", "alice", "--wait", "read", "--timeout", "60s", "--json"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
    let mut waiting = Some(waiting);
    wait::until("it is in bob's inbox", || async {
        let peeked = json_of(&there, &["inbox", "--agent", "bob", "--peek"]);
        (peeked["messages"].as_array().unwrap().len() == 1).then_some(())
    })
    .await;
    assert!(waiting.as_mut().unwrap().try_wait().unwrap().is_none(), "nobody has read it yet");
    let inbox = json_of(&there, &["inbox", "--agent", "bob"]);
    let output =
        tokio::task::spawn_blocking(move || waiting.take().unwrap().wait_with_output()).await.unwrap().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let sent: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&sent["delivery"]["state"], &sent["msg_id"]), (&json!("read"), &inbox["messages"][0]["msg_id"]));

    let known =
        json_of(&here, &["message", sent["msg_id"].as_str().unwrap(), "--agent", "alice", "--wait", "delivered"]);
    assert_eq!(known["deliveries"][0]["state"], "read", "what is past the state need not be waited for");
}

#[tokio::test]
async fn waiting_for_a_peer_that_is_away_ends_at_the_timeout_and_says_how_it_stands() {
    let (_network, here, mut there) = pair().await;
    there.process.kill_9();
    let args = ["send", "bob", "anybody?", "--agent", "alice", "--wait", "delivered", "--timeout", "300ms"];
    let late = failure(&here, &args, 6);
    let hint = late["hint"].as_str().unwrap();
    assert!(hint.contains("still being delivered") && hint.contains("--agent alice"), "{late}");
    let queued = json_of(&here, &["outbox"]);
    let queued = queued["messages"].as_array().unwrap();
    assert_eq!(queued.len(), 1, "the message itself is not given up");
    assert_eq!((&late["reason"], &late["msg_id"]), (&json!("WAIT_TIMED_OUT"), &queued[0]["msg_id"]));
    let expired =
        ["send", "bob", "soon gone", "--agent", "alice", "--ttl", "1s", "--wait", "delivered", "--timeout", "60s"];
    let expired = failure(&here, &expired, 6);
    assert!(expired["message"].as_str().unwrap().contains("is expired"), "{expired}");
    assert!(expired["hint"].as_str().unwrap().contains("murmurctl dlq"), "{expired}");
}

#[tokio::test]
async fn wrong_ids_and_names_are_told_clearly() {
    let (_network, here, _there) = pair().await;
    let sent = send(&here, "mine").await;
    let unknown = "01900000-0000-7000-8000-000000000000";
    for verb in
        [&["outbox", "show"][..], &["outbox", "cancel"], &["dlq", "show"], &["dlq", "redrive"], &["dlq", "drop"]]
    {
        let with = |id| [verb, &[id]].concat();
        let missing = failure(&here, &with(unknown), 3);
        assert_eq!(missing["reason"], "MESSAGE_NOT_FOUND", "{verb:?}");
        let malformed = failure(&here, &with("nonsense"), 2);
        assert_eq!(malformed["fields"][0]["field"], "msg_id", "{verb:?}: {malformed}");
        let of_another = [verb, &[sent.as_str(), "--agent", "carol"]].concat();
        assert_eq!(failure(&here, &of_another, 3)["reason"], "AGENT_NOT_FOUND", "{verb:?}");
    }
    register(&here, "carol").await;
    let foreign = failure(&here, &["outbox", "show", &sent, "--agent", "carol"], 3);
    assert_eq!(foreign["reason"], "MESSAGE_NOT_FOUND", "carol sees nothing of alice's messages");
    let page = failure(&here, &["dlq", "ls", "--page", "nonsense"], 2);
    assert_eq!(page["fields"][0]["field"], "--page", "as it is named here");
    assert_eq!(failure(&here, &["quarantine", "show", "7"], 3)["reason"], "MESSAGE_NOT_FOUND");
    assert_eq!(
        failure(&here, &["message", unknown, "--agent", "alice", "--wait", "read"], 3)["reason"],
        "MESSAGE_NOT_FOUND"
    );
}

async fn pair() -> (Network, Node, Node) {
    alice_and_bob(Options::default()).await
}

async fn send(node: &Node, text: &str) -> String {
    send_for(node, text, 0).await
}

async fn send_for(node: &Node, text: &str, ttl_seconds: u32) -> String {
    let body = text.to_owned().into();
    let request = SendRequest { agent: "alice".into(), to: "bob".into(), body, ttl_seconds, ..Default::default() };
    node.client().await.messages.send(request).await.unwrap().into_inner().msg_id
}

async fn state(node: &Node, msg_id: &str) -> DeliveryState {
    let request = GetSentMessageRequest { msg_id: msg_id.to_owned(), ..Default::default() };
    let answer = node.client().await.outbox.get_sent_message(request).await.unwrap().into_inner();
    answer.messages[0].delivery.as_ref().unwrap().state()
}

async fn until(node: &Node, msg_id: &str, wanted: DeliveryState) {
    wait::until(&format!("the message is {wanted:?}"), || async {
        (state(node, msg_id).await == wanted).then_some(())
    })
    .await;
}

async fn until_waiting(node: &Node, msg_id: &str, for_what: &str) {
    wait::until("it is said what the message waits for", || async {
        let shown = json_of(node, &["outbox", "show", msg_id]);
        shown["messages"][0]["waits_for"].as_str()?.contains(for_what).then_some(())
    })
    .await;
}

async fn until_letters(node: &Node, count: u64) {
    wait::until("the dead letters are as many", || async {
        (node.status().await?.dead_letters == count).then_some(())
    })
    .await;
}

async fn agent_id(node: &Node, slug: &str) -> String {
    let answer = node.client().await.host.list_peers(ListPeersRequest::default()).await.unwrap().into_inner();
    answer.peers.into_iter().find(|peer| peer.slug == slug).unwrap().agent_id
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

pub(crate) fn command(node: &Node, args: &[&str]) -> Command {
    let mut command = Command::new(binary("murmurctl"));
    command.args(args).arg("--socket").arg(&node.socket).arg("--data-dir").arg(node.dir.join("cli"));
    for name in ["MURMUR_NODE_SOCKET", "MURMUR_SERVER_URL", "MURMUR_TOKEN_FILE", "MURMUR_AGENT", "XDG_RUNTIME_DIR"] {
        command.env_remove(name);
    }
    command
}

pub(crate) fn cli(node: &Node, args: &[&str]) -> Output {
    command(node, args).output().unwrap()
}

fn ok(node: &Node, args: &[&str]) -> String {
    let output = cli(node, args);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{args:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

pub(crate) fn json_of(node: &Node, args: &[&str]) -> Value {
    let text = ok(node, &[args, &["--json"]].concat());
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?} printed no JSON ({error}): {text}"))
}

/// The error of a command that is to fail with this exit code.
pub(crate) fn failure(node: &Node, args: &[&str], code: i32) -> Value {
    let output = cli(node, &[args, &["--json"]].concat());
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{args:?}: {text}{}", String::from_utf8_lossy(&output.stdout));
    serde_json::from_str::<Value>(&text).unwrap_or_else(|error| panic!("{args:?}: {error}: {text}"))["error"].take()
}
