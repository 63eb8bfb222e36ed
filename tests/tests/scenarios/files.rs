//! Files from agent to agent: whole and unchanged, whatever is away or killed in between, or visibly not at all.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use murmur_crypto::hash::sha256;
use murmur_proto::node::v1::{
    CancelTransferRequest, File, ListInboxRequest, ListTransfersRequest, RegisterRequest, SendFileRequest,
    SendFileResponse, Transfer, TransferState, transfer::Direction,
};
use murmur_tests::{
    network::{Network, Node, Options},
    process::{Process, binary},
    shim::Shim,
    wait,
};
use serde_json::{Value, json};

use crate::message::until_known;

const MIB: usize = 1024 * 1024;

#[tokio::test]
async fn twenty_megabytes_arrive_whole_and_the_command_line_shows_it() {
    let pair = Pair::start().await;
    let (path, bytes) = pair.file("report.bin", 20 * MIB);
    let sent = pair.ctl(&pair.here, &["send", "bob", "as promised", "--file", &path, "--agent", "alice", "--json"]);
    assert_eq!((&sent["file"]["state"], &sent["file"]["size_bytes"]), (&json!("done"), &json!(20 * MIB)));

    let inbox = pair.ctl(&pair.there, &["inbox", "--agent", "bob", "--json"]);
    let message = &inbox["messages"][0];
    assert_eq!((&message["body"], &message["file"]["state"]), (&json!("as promised"), &json!("done")));
    let arrived = PathBuf::from(message["file"]["path"].as_str().unwrap());
    assert!(fs::read(&arrived).unwrap() == bytes, "the file changed on the way");
    assert_eq!(message["file"]["sha256"], hex::encode(sha256(&bytes)));
    assert!(arrived.ends_with(format!("files/{}/report.bin", message["msg_id"].as_str().unwrap())));
    assert_eq!(mode(&arrived), 0o600);
    assert_eq!(mode(arrived.parent().unwrap()), 0o700);

    for (node, agent, direction) in [(&pair.here, "alice", "out"), (&pair.there, "bob", "in")] {
        let files = pair.ctl(node, &["files", "--all", "--agent", agent, "--json"]);
        assert_eq!(
            (&files["transfers"][0]["direction"], &files["transfers"][0]["file"]["state"]),
            (&json!(direction), &json!("done"))
        );
    }
}

/// Two sessions on two nodes that know of each other, and a file.
struct Sessions {
    network: Network,
    alice: Shim,
    bob: Shim,
    path: PathBuf,
    _nodes: [Node; 2],
}

async fn sessions() -> Sessions {
    let network = Network::start().await;
    let (here, there) = (network.node("here", "jdoe").await, network.node("there", "jdoe").await);
    let bob = there.shim("bob").await;
    bob.ok("register", json!({})).await;
    let alice = here.shim("alice").await;
    until_known(&alice, "/w/acme/u/jdoe/bob").await;
    let path = network.dir.path().join("notes.md");
    fs::write(&path, "# Notes\n").unwrap();
    Sessions { network, alice, bob, path, _nodes: [here, there] }
}

#[tokio::test]
async fn a_session_sends_a_file_and_another_is_told_where_it_is() {
    let Sessions { network, alice, mut bob, path, _nodes } = sessions().await;

    let sent = alice.ok("send", json!({"to": "bob", "file": path.to_str().unwrap()})).await;
    assert_eq!((&sent["file"]["name"], &sent["file"]["size_bytes"]), (&json!("notes.md"), &json!(8)));
    let push = bob.push().await;
    assert_eq!(push["meta"]["msg_id"], sent["msg_id"]);
    assert_eq!((&push["meta"]["file_name"], &push["meta"]["file_size"]), (&json!("notes.md"), &json!("8")));
    assert_eq!(fs::read_to_string(push["meta"]["file_path"].as_str().unwrap()).unwrap(), "# Notes\n");
    let inbox = bob.ok("inbox", json!({})).await;
    assert_eq!(inbox["messages"][0]["file"]["state"], "done");

    let secret = network.dir.path().join(".env");
    fs::write(&secret, "KEY=1").unwrap();
    let refused = alice.call("send", json!({"to": "bob", "file": secret.to_str().unwrap()})).await;
    assert!(refused.is_error && refused.text.contains("FILE_REFUSED: file: must not be named"), "{}", refused.text);
    let nothing = alice.call("send", json!({"to": "bob"})).await;
    assert!(nothing.is_error && nothing.text.contains("text"), "{}", nothing.text);
}

#[tokio::test]
async fn a_session_asks_about_a_file_and_another_answers_when_it_is_whole() {
    let Sessions { network: _network, alice, mut bob, path, _nodes } = sessions().await;

    let question = json!({"to": "bob", "text": "what is it?", "file": path.to_str().unwrap(), "timeout_ms": 60_000});
    let answer = async {
        let push = bob.push().await;
        assert_eq!(push["meta"]["kind"], "request", "{push}");
        assert!(push["meta"]["deadline"].is_string(), "{push}");
        assert_eq!(fs::read_to_string(push["meta"]["file_path"].as_str().unwrap()).unwrap(), "# Notes\n");
        bob.ok("send", json!({"in_reply_to": push["meta"]["msg_id"], "text": "notes"})).await;
    };
    let (asked, ()) = tokio::join!(alice.ok("request", question), answer);
    assert_eq!((&asked["status"], &asked["reply"]["text"]), (&json!("replied"), &json!("notes")));
    assert_eq!(asked["file"]["name"], "notes.md");
    let none = json!({"to": "bob", "text": "and this?", "file": "/nowhere/at/all"});
    let refused = alice.call("request", none).await;
    assert!(refused.is_error && refused.text.contains("FILE_REFUSED"), "{}", refused.text);
}

#[tokio::test]
async fn the_command_line_asks_about_a_file() {
    let pair = Pair::start().await;
    let (path, bytes) = pair.file("data.bin", 3 * MIB);
    let asking = pair
        .command(&pair.here, &["request", "bob", "--file", &path, "--agent", "alice", "--timeout", "60s", "--json"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let file = until_state(&pair.there, "bob", TransferState::Done).await;
    assert!(fs::read(&file.path).unwrap() == bytes, "the file changed on the way");
    let inbox = pair.ctl(&pair.there, &["inbox", "--agent", "bob", "--json"]);
    let request = &inbox["messages"][0];
    assert_eq!(request["kind"], "request");
    let to = request["msg_id"].as_str().unwrap();
    pair.ctl(&pair.there, &["send", "alice", "seen", "--in-reply-to", to, "--agent", "bob", "--json"]);
    let output = asking.wait_with_output().unwrap();
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&answer["msg_id"], &answer["reply"]["body"]), (&json!(to), &json!("seen")));
    assert_eq!(answer["file"]["name"], "data.bin");
}

/// The node's copy is kept with the dead letter: what became of the original does not matter.
#[tokio::test]
async fn a_file_whose_message_died_goes_again_from_the_nodes_own_copy() {
    let mut pair = Pair::start().await;
    let (path, bytes) = pair.file("data.bin", 3 * MIB);
    let msg_id = pair.dies(&path).await;
    fs::remove_file(&path).unwrap();
    // A start sweeps what nobody needs any more.
    pair.here.process.kill_9();
    pair.here.process.start();
    pair.here.ready().await;

    let redriven = pair.ctl(&pair.here, &["dlq", "redrive", &msg_id, "--agent", "alice", "--json"]);
    assert_eq!(redriven["redriven"][0]["msg_id"], json!(msg_id), "within its time it keeps its id");
    pair.arrives(&bytes).await;
}

/// Whoever has the recipient's name now gets another message, and the file by another stream.
#[tokio::test]
async fn a_file_whose_message_died_goes_to_whoever_has_the_name_now() {
    let mut pair = Pair::start().await;
    let (path, bytes) = pair.file("data.bin", MIB + 7);
    let msg_id = pair.dies(&path).await;
    let before = transfers(&pair.here, "alice").await.pop().unwrap();
    pair.ctl(&pair.there, &["deregister", "bob", "--json"]);
    let request = RegisterRequest { agent: "bob".into(), ..Default::default() };
    let new = pair.there.client().await.sessions.register(request).await.unwrap().into_inner();
    let known = || async {
        let peers = pair.ctl(&pair.here, &["peers", "--agent", "alice", "--json"]);
        peers.to_string().contains(&new.agent_id).then_some(())
    };
    wait::until("the new bob is known", known).await;

    let redriven = pair.ctl(&pair.here, &["dlq", "redrive", &msg_id, "--agent", "alice", "--json"]);
    assert_ne!(redriven["redriven"][0]["msg_id"], json!(msg_id));
    let file = until_state(&pair.there, "bob", TransferState::Done).await;
    assert!(fs::read(&file.path).unwrap() == bytes, "the file changed on the way");
    assert_ne!(file.transfer_id, before.file.unwrap().transfer_id, "no nonce is used for two recipients");
    wait::until("no copy is left", || async {
        let left = fs::read_dir(pair.here.dir.join("files/out")).unwrap().count();
        (left == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_file_that_is_not_what_it_was_does_not_go_again() {
    let mut pair = Pair::start().await;
    let (path, _) = pair.file("data.bin", MIB);
    let msg_id = pair.dies(&path).await;
    // As a disk that was short of room, or a copy of the node, may leave it.
    for copy in fs::read_dir(pair.here.dir.join("files/out")).unwrap() {
        fs::remove_file(copy.unwrap().path()).unwrap();
    }
    fs::write(&path, vec![7; MIB]).unwrap();
    let redrive = ["dlq", "redrive", &msg_id, "--agent", "alice", "--json"];
    let refused = pair.command(&pair.here, &redrive).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("FILE_GONE"), "{said}");
    let letters = pair.ctl(&pair.here, &["dlq", "ls", "--agent", "alice", "--json"]);
    assert_eq!(letters["messages"][0]["msg_id"], json!(msg_id), "it stays where it is");
    // As it was, it goes, although the node has no copy any more.
    let (_, bytes) = pair.file("data.bin", MIB);
    pair.ctl(&pair.here, &redrive);
    pair.arrives(&bytes).await;
}

/// Dropping the letter drops the copy.
#[tokio::test]
async fn a_dropped_letter_leaves_no_file() {
    let mut pair = Pair::start().await;
    let (path, _) = pair.file("data.bin", MIB);
    let msg_id = pair.dies(&path).await;
    assert_eq!(pair.network.files("/files/out/").len(), 1, "it is kept with the letter");
    pair.ctl(&pair.here, &["dlq", "drop", &msg_id, "--agent", "alice", "--json"]);
    assert!(pair.network.files("/files/out/").is_empty());
}

/// What had arrived where nobody read it is copied from the original once more; without that it stays there, and readable.
#[tokio::test]
async fn a_file_that_nobody_read_follows_an_agent_that_moves_while_the_original_is_there() {
    let pair = Pair::start().await;
    let (path, bytes) = pair.file("data.bin", 2 * MIB);
    let (changed, was) = pair.file("changed.bin", MIB);
    for path in [&path, &changed] {
        pair.send(path).await;
    }
    wait::until("both have arrived", || async {
        let found = transfers(&pair.there, "bob").await;
        let done = found.iter().filter(|transfer| is_done(transfer)).count();
        (done == 2).then_some(())
    })
    .await;
    fs::write(&changed, "another").unwrap();

    let yonder = pair.network.node("yonder", "jdoe").await;
    let request = RegisterRequest { agent: "bob".into(), move_here: true, ..Default::default() };
    yonder.client().await.sessions.register(request).await.unwrap();
    let file = until_state(&yonder, "bob", TransferState::Done).await;
    assert!(fs::read(&file.path).unwrap() == bytes, "the file changed on the way");
    let inbox = pair.ctl(&yonder, &["inbox", "--agent", "bob", "--json"]);
    assert_eq!(inbox["messages"].as_array().unwrap().len(), 1, "{inbox}");
    wait::until("alice knows that it was read there", || async {
        let message = inbox["messages"][0]["msg_id"].as_str()?;
        let stands = pair.ctl(&pair.here, &["message", message, "--agent", "alice", "--json"]);
        stands.to_string().contains("\"read\"").then_some(())
    })
    .await;

    let left = pair.ctl(&pair.there, &["inbox", "--agent", "bob", "--peek", "--json"]);
    let stays = left["messages"].as_array().unwrap().iter().find(|message| message["file"]["name"] == "changed.bin");
    let stays = PathBuf::from(stays.unwrap()["file"]["path"].as_str().unwrap());
    assert!(fs::read(stays).unwrap() == was, "it can be read where it is");
}

fn is_done(transfer: &Transfer) -> bool {
    transfer.file.as_ref().is_some_and(|file| file.state() == TransferState::Done)
}

#[tokio::test]
async fn a_recipient_killed_in_the_middle_goes_on_where_its_disk_is() {
    let mut pair = Pair::start().await;
    let (path, bytes) = pair.file("data.bin", 60 * MIB);
    pair.send(&path).await;
    until_under_way(&pair.there, "bob").await;
    pair.there.process.kill_9();
    pair.there.process.start();
    pair.arrives(&bytes).await;
}

#[tokio::test]
async fn a_sender_killed_in_the_middle_goes_on_with_the_copy_it_made() {
    let mut pair = Pair::start().await;
    let (path, bytes) = pair.file("data.bin", 60 * MIB);
    pair.send(&path).await;
    // What was promised does not depend on the original any more.
    fs::remove_file(&path).unwrap();
    until_under_way(&pair.there, "bob").await;
    pair.here.process.kill_9();
    pair.here.process.start();
    pair.arrives(&bytes).await;
}

#[tokio::test]
async fn a_recipient_that_dies_between_spool_and_credit_misses_nothing() {
    // T1 of the crash table, again and again: each life of the node ends after its ninth megabyte.
    let mut pair = Pair::start().await;
    let (path, bytes) = pair.file("data.bin", 40 * MIB);
    pair.there.process.kill_9();
    let nobody = Process::new(Path::new("true"), vec![], PathBuf::from("/dev/null"));
    let process = std::mem::replace(&mut pair.there.process, nobody);
    pair.there.process = process.env("MURMUR_FAILPOINT", "T1:9");
    pair.send(&path).await;
    let mut lives = 0;
    loop {
        pair.there.process.start();
        lives += 1;
        assert!(lives < 60, "it makes no way");
        let socket = pair.there.socket.clone();
        let died = wait::until("it dies, or the file is whole", || {
            let (died, socket) = (!pair.there.process.is_running(), socket.clone());
            async move {
                if died {
                    return Some(true);
                }
                let state = transfers_if_up(&socket, "bob").await?.first()?.file.as_ref()?.state();
                (state == TransferState::Done).then_some(false)
            }
        })
        .await;
        if !died {
            break;
        }
        pair.there.process.exited().await;
    }
    assert!(lives > 1, "it never died");
    pair.arrives(&bytes).await;
}

#[tokio::test]
async fn a_file_for_a_node_that_is_away_waits_and_no_more_than_its_beginning_waits_at_the_broker() {
    let mut pair = Pair::start().await;
    pair.there.process.kill_9();
    let (path, bytes) = pair.file("data.bin", 8 * MIB);
    let sent = pair.send(&path).await;
    assert_eq!(sent.file.unwrap().state(), TransferState::Waiting);
    pair.there.process.start();
    pair.there.ready().await;
    pair.arrives(&bytes).await;
    let broker: u64 = pair.network.files("broker/").iter().map(|path| fs::metadata(path).map_or(0, |m| m.len())).sum();
    assert!(broker < 64 * MIB as u64, "{broker} bytes");
}

#[tokio::test]
async fn a_broker_that_is_killed_in_the_middle_costs_time_and_nothing_else() {
    let mut pair = Pair::start().await;
    let (path, bytes) = pair.file("data.bin", 60 * MIB);
    pair.send(&path).await;
    until_under_way(&pair.there, "bob").await;
    pair.network.broker.kill_9();
    pair.network.broker.start();
    pair.arrives(&bytes).await;
}

/// The recipient's disk is full in the middle of a file, as far as the node may use it: the sender sees why the file waits, another one is
/// not begun, and with room it goes on where it was.
#[tokio::test]
async fn a_disk_that_is_full_amid_a_file_makes_it_wait_and_say_why_until_there_is_room() {
    const RESERVE: &str = "MURMUR_NODE_FILE_RESERVE_BYTES";
    let mut pair = Pair::start().await;
    let (path, bytes) = pair.file("data.bin", 60 * MIB);
    pair.send(&path).await;
    until_under_way(&pair.there, "bob").await;
    pair.there.process.kill_9();
    pair.there.process.set_env(RESERVE, Some("1000000000000000"));
    pair.there.process.start();
    let (file, kept) = wait::until("the sender knows why it waits", || async {
        let file = transfers(&pair.here, "alice").await.pop()?.file?;
        let kept = transfers(&pair.there, "bob").await.pop()?.file?.done_bytes;
        (file.state() == TransferState::Stalled && file.reason == "STORAGE_FULL").then_some((file, kept))
    })
    .await;
    assert!(kept > 0 && file.done_bytes <= bytes.len() as u64, "what had come stays: {file:?}");
    pair.there.process.kill_9();
    pair.there.process.set_env(RESERVE, None);
    pair.there.process.start();
    pair.arrives(&bytes).await;
    let file = until_state(&pair.here, "alice", TransferState::Done).await;
    assert_eq!(file.reason, "");
}

#[tokio::test]
async fn either_side_cancels_and_both_say_so() {
    for by_sender in [true, false] {
        let mut pair = Pair::start().await;
        let (path, _) = pair.file("data.bin", 60 * MIB);
        let sent = pair.send(&path).await;
        until_under_way(&pair.there, "bob").await;
        // Frozen, it cannot finish in the meantime.
        let frozen = if by_sender { &mut pair.there } else { &mut pair.here };
        frozen.process.signal(nix::sys::signal::Signal::SIGSTOP);
        let (node, agent) = if by_sender { (&pair.here, "alice") } else { (&pair.there, "bob") };
        let id = sent.file.unwrap().transfer_id;
        let request = CancelTransferRequest { agent: agent.to_owned(), transfer_id: id.clone() };
        let cancelled = node.client().await.files.cancel_transfer(request).await.unwrap().into_inner();
        assert_eq!(cancelled.transfer.unwrap().file.unwrap().state(), TransferState::Cancelled);
        let frozen = if by_sender { &mut pair.there } else { &mut pair.here };
        frozen.process.signal(nix::sys::signal::Signal::SIGCONT);
        let (other, agent) = if by_sender { (&pair.there, "bob") } else { (&pair.here, "alice") };
        until_state(other, agent, TransferState::Cancelled).await;
        wait::until("nothing is left", || async { pair.network.files("/files/").is_empty().then_some(()) }).await;
    }
}

#[tokio::test]
async fn what_may_not_be_sent_is_refused_by_field_and_rule() {
    let pair = Pair::start().await;
    let dir = pair.network.dir.path();
    fs::write(dir.join(".env"), "x").unwrap();
    std::os::unix::fs::symlink(dir.join(".env"), dir.join("link")).unwrap();
    let keys = pair.here.dir.join("store.db");
    for (path, rule) in [
        (dir.join(".env"), "secret"),
        (dir.join("link"), "symbolic link"),
        (dir.to_owned(), "directory"),
        (dir.join("none"), "cannot be read"),
        (PathBuf::from("relative"), "absolute"),
        (keys, "own files"),
    ] {
        let refused = pair.try_send(path.to_str().unwrap()).await.unwrap_err();
        let error = murmur_proto::status::RpcError::from(&refused);
        assert_eq!(error.reason, Some(murmur_core::reason::Reason::FileRefused), "{refused}");
        assert_eq!(error.fields[0].0, "path");
        assert!(error.fields[0].1.contains(rule), "{refused}");
    }
    let (large, _) = pair.file("large", 64 * MIB + 1);
    let refused = pair.try_send(&large).await.unwrap_err();
    assert_eq!(murmur_proto::status::RpcError::from(&refused).reason, Some(murmur_core::reason::Reason::FileTooLarge));
    assert!(transfers(&pair.here, "alice").await.is_empty(), "what was refused left nothing");
}

#[tokio::test]
async fn ordinary_messages_pass_a_file_that_is_on_its_way() {
    let pair = Pair::start().await;
    let (path, bytes) = pair.file("data.bin", 60 * MIB);
    pair.send(&path).await;
    until_under_way(&pair.there, "bob").await;
    let said = murmur_proto::node::v1::SendRequest {
        agent: "alice".into(),
        to: "bob".into(),
        body: "meanwhile".into(),
        ..Default::default()
    };
    pair.here.client().await.messages.send(said).await.unwrap();
    let passed = wait::until("the message has arrived", || async {
        let request = ListInboxRequest { agent: "bob".into(), peek: true, ..Default::default() };
        let page = pair.there.client().await.messages.list_inbox(request).await.ok()?.into_inner();
        page.messages.iter().any(|message| &message.body[..] == b"meanwhile").then_some(page)
    })
    .await;
    let file = passed.messages.iter().find_map(|message| message.file.clone()).unwrap();
    assert_ne!(file.state(), TransferState::Failed);
    pair.arrives(&bytes).await;
}

/// A gigabyte, by hand: `MURMUR_TEST_GIB=1 cargo nextest run -p murmur-tests gigabyte`.
#[tokio::test]
async fn a_gigabyte_passes_through_little_memory() {
    if std::env::var_os("MURMUR_TEST_GIB").is_none() {
        return;
    }
    let gib = 1024 * MIB;
    let env = vec![("MURMUR_NODE_FILE_BYTES_MAX".to_owned(), gib.to_string())];
    let pair = Pair::start_with(Options { env, ..Options::default() }).await;
    let path = pair.network.dir.path().join("gib.bin");
    let file = fs::File::create(&path).unwrap();
    let piece: Vec<u8> = (0..MIB).map(|at| u8::try_from(at * 7 % 251).unwrap()).collect();
    for index in 0..1024_u32 {
        let mut piece = piece.clone();
        piece[..4].copy_from_slice(&index.to_be_bytes());
        std::io::Write::write_all(&mut &file, &piece).unwrap();
    }
    let idle = [&pair.here, &pair.there].map(|node| memory(node, "VmRSS"));
    let began = std::time::Instant::now();
    pair.send(path.to_str().unwrap()).await;
    let copied = began.elapsed();
    let whole = loop {
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        let found = transfers(&pair.there, "bob").await;
        if let Some(file) = found.first().and_then(|transfer| transfer.file.clone()) {
            assert_ne!(file.state(), TransferState::Failed, "{}", file.reason);
            if file.state() == TransferState::Done {
                break file;
            }
        }
    };
    let took = began.elapsed();
    let peak = [&pair.here, &pair.there].map(|node| memory(node, "VmHWM"));
    println!("copied after {copied:?}, whole after {took:?}; KiB idle {idle:?}, peak {peak:?}");
    assert_eq!(whole.done_bytes, gib as u64);
    assert_eq!(fs::metadata(&whole.path).unwrap().len(), gib as u64);
    for (idle, peak) in idle.into_iter().zip(peak) {
        assert!(peak - idle < 64 * 1024, "{} KiB above idle", peak - idle);
    }
}

/// A line of `/proc/<pid>/status`, in KiB.
fn memory(node: &Node, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", node.process.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Two nodes with alice on the first and bob on the second, known to each other.
struct Pair {
    network: Network,
    here: Node,
    there: Node,
}

impl Pair {
    async fn start() -> Self {
        Self::start_with(Options::default()).await
    }

    async fn start_with(options: Options) -> Self {
        let network = Network::start_with(options).await;
        let (here, there) = (network.node("here", "jdoe").await, network.node("there", "jdoe").await);
        for (node, agent) in [(&here, "alice"), (&there, "bob")] {
            let request = RegisterRequest { agent: agent.into(), ..Default::default() };
            node.client().await.sessions.register(request).await.unwrap();
        }
        here.knows("/w/acme/u/jdoe/bob").await;
        there.knows("/w/acme/u/jdoe/alice").await;
        Self { network, here, there }
    }

    /// A file whose every megabyte differs.
    fn file(&self, name: &str, length: usize) -> (String, Vec<u8>) {
        let bytes: Vec<u8> = (0..length).map(|at| u8::try_from((at / 3 + at / MIB * 7) % 253).unwrap()).collect();
        let path = self.network.dir.path().join(name);
        fs::write(&path, &bytes).unwrap();
        (path.to_str().unwrap().to_owned(), bytes)
    }

    async fn try_send(&self, path: &str) -> Result<SendFileResponse, tonic::Status> {
        let request = SendFileRequest {
            agent: "alice".into(),
            to: "bob".into(),
            path: path.into(),
            body: "here".into(),
            ..Default::default()
        };
        Ok(self.here.client().await.files.send_file(request).await?.into_inner())
    }

    async fn send(&self, path: &str) -> SendFileResponse {
        self.try_send(path).await.unwrap()
    }

    /// Waits until both sides say that the file is whole, and compares it.
    async fn arrives(&self, bytes: &[u8]) {
        let file = until_state(&self.there, "bob", TransferState::Done).await;
        assert!(fs::read(&file.path).unwrap() == bytes, "the file changed on the way");
        until_state(&self.here, "alice", TransferState::Done).await;
        let request = ListInboxRequest { agent: "bob".into(), ..Default::default() };
        let inbox = self.there.client().await.messages.list_inbox(request).await.unwrap().into_inner();
        assert_eq!(inbox.messages.iter().filter(|message| message.file.is_some()).count(), 1, "one row");
        wait::until("nothing is left in the spools", || async {
            self.network.files("/files/").into_iter().all(|path| path == Path::new(&file.path)).then_some(())
        })
        .await;
    }

    /// Sends a file that bob's node refuses for its size, waits until its message is dead, and lets the node take such files from then on.
    async fn dies(&mut self, path: &str) -> String {
        const LIMIT: &str = "MURMUR_NODE_FILE_BYTES_MAX";
        self.there.process.kill_9();
        self.there.process.set_env(LIMIT, Some("1000"));
        self.there.process.start();
        self.there.ready().await;
        let sent = self.send(path).await;
        let failed = until_state(&self.here, "alice", TransferState::Failed).await;
        assert_eq!(failed.reason, "STREAM_TOO_LARGE");
        self.there.process.kill_9();
        self.there.process.set_env(LIMIT, None);
        self.there.process.start();
        self.there.ready().await;
        sent.msg_id
    }

    fn command(&self, node: &Node, args: &[&str]) -> Command {
        let mut command = Command::new(binary("murmurctl"));
        command.args(args).arg("--socket").arg(&node.socket).arg("--data-dir").arg(self.network.dir.path().join("ctl"));
        for name in ["MURMUR_SERVER_URL", "MURMUR_TOKEN_FILE", "MURMUR_AGENT", "MURMUR_AGENT_TOKEN_FILE"] {
            command.env_remove(name);
        }
        command
    }

    /// Runs the command line against a node and reads its JSON.
    fn ctl(&self, node: &Node, args: &[&str]) -> Value {
        let output = self.command(node, args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

async fn transfers_if_up(socket: &Path, agent: &str) -> Option<Vec<Transfer>> {
    let channel = murmur_proto::client::connect_socket(socket).await.ok()?;
    let mut client = murmur_proto::client::NodeClient::new(channel, murmur_proto::client::Headers::new());
    let request = ListTransfersRequest { agent: agent.into(), all: true, ..Default::default() };
    Some(client.files.list_transfers(request).await.ok()?.into_inner().transfers)
}

async fn transfers(node: &Node, agent: &str) -> Vec<Transfer> {
    transfers_if_up(&node.socket, agent).await.unwrap_or_default()
}

/// Waits until an agent's only transfer is in a state, as long as it goes on.
async fn until_state(node: &Node, agent: &str, state: TransferState) -> File {
    wait::step_by_step("the transfer ends in its state", || async {
        match transfers(node, agent).await.pop().and_then(|transfer| transfer.file) {
            Some(file) if file.state() == state => Ok(file),
            file => Err(file.map(|file| file.done_bytes)),
        }
    })
    .await
}

/// Waits until an incoming file has begun, and sees that it is not yet there.
async fn until_under_way(node: &Node, agent: &str) {
    let found = wait::until("the file is under way", || async {
        transfers(node, agent).await.pop().filter(|transfer| {
            transfer.direction() == Direction::In && transfer.file.as_ref().is_some_and(|file| file.done_bytes > 0)
        })
    })
    .await;
    assert_ne!(found.file.unwrap().state(), TransferState::Done, "too fast to be met in the middle");
}

fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}
