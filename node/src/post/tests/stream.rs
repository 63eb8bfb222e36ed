//! Files between two nodes, with the test as a broker that loses, repeats, reorders and changes (PROTOCOL §7.1).

use std::{fs, path::PathBuf};

use bytes::Bytes;
use murmur_core::{
    id::StreamId,
    subject::{Destination, parse_subject},
};
use murmur_crypto::chunk::ChunkFrame;

use super::super::{
    Draft, FileDraft, FileInfo, Frame, InboxQuery, PostConfig, SendError, Sent, Transfer, TransferState,
    testing::{TestNode, World, introduce, node_id, route},
};
use crate::{bus::Verdict, clock::Clock};

const CHUNK: usize = 128 * 1024;

/// Bytes that differ from chunk to chunk.
fn content(length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from((at / 7 + at / CHUNK) % 251).unwrap()).collect()
}

struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn make(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }
}

fn draft(path: &std::path::Path) -> FileDraft {
    let message = Draft { to: "bob".to_owned(), body: "here it is".into(), ..Draft::default() };
    FileDraft { message, path: path.to_str().unwrap().to_owned(), ..FileDraft::default() }
}

async fn send(node: &TestNode, path: &std::path::Path) -> (Sent, FileInfo) {
    node.post.send_file(&node.agent(0), draft(path)).await.unwrap()
}

/// The newest transfer of a node's first agent.
async fn transfer(node: &TestNode) -> Option<Transfer> {
    node.post.transfers(node.agent(0).agent_id, true, 0).await.unwrap().into_iter().next()
}

async fn state(node: &TestNode) -> Option<TransferState> {
    transfer(node).await.map(|transfer| transfer.file.state)
}

fn is_chunk(frame: &Frame) -> bool {
    parse_subject(&frame.subject).unwrap().destination == Destination::Blocks
}

/// Two nodes that look after a silent stream at once.
async fn impatient_pair() -> (TestNode, TestNode) {
    let mut config = PostConfig::default();
    config.streams.stall_ms = 200;
    let world = World::new();
    let a = world.node_with(1, &["alice"], config.clone(), Clock::system()).await;
    let b = world.node_with(2, &["bob"], config, Clock::system()).await;
    introduce(&[&a, &b]);
    (a, b)
}

/// Delivers what both nodes publish, as `meddle` says, until `done` holds.
async fn carry_until(
    nodes: [&TestNode; 2],
    mut meddle: impl FnMut(&Frame) -> Vec<Frame>,
    mut done: impl AsyncFnMut() -> bool,
) {
    let work = async {
        while !done().await {
            let next = nodes.map(|node| Box::pin(node.published()));
            let ([first, second], wait) = (next, tokio::time::sleep(std::time::Duration::from_millis(50)));
            let frame = tokio::select! {
                frame = first => frame,
                frame = second => frame,
                () = wait => continue,
            };
            for frame in meddle(&frame) {
                let to = parse_subject(&frame.subject).unwrap().route.node;
                let node = nodes.into_iter().find(|node| node_id(node.n) == to).unwrap();
                node.post.receive(&frame).await;
            }
        }
    };
    if tokio::time::timeout(std::time::Duration::from_secs(60), work).await.is_err() {
        for node in nodes {
            eprintln!("{:#?}", transfer(node).await);
        }
        panic!("it never comes to an end");
    }
}

fn honest(frame: &Frame) -> Vec<Frame> {
    vec![frame.clone()]
}

async fn both_done(a: &TestNode, b: &TestNode) -> bool {
    let done = Some(TransferState::Done);
    state(a).await == done && state(b).await == done && [a, b].into_iter().all(|node| spooled(node).is_empty())
}

/// What is in a node's spools.
fn spooled(node: &TestNode) -> Vec<PathBuf> {
    let dir = &node.post.config.streams.dir;
    ["in", "out"].into_iter().flat_map(|spool| walk(&dir.join(spool))).collect()
}

async fn received(b: &TestNode) -> (PathBuf, Vec<u8>) {
    let path = PathBuf::from(transfer(b).await.unwrap().file.path.unwrap());
    let bytes = fs::read(&path).unwrap();
    (path, bytes)
}

#[tokio::test]
async fn files_of_every_length_arrive_whole_and_leave_nothing_in_the_spools() {
    let files = Files::new();
    for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 5 * CHUNK, 30 * CHUNK + 17] {
        let (a, b) = World::new().pair().await;
        let bytes = content(length);
        let (sent, file) = send(&a, &files.make("data.bin", &bytes)).await;
        assert_eq!((file.size, file.state), (Some(length as u64), TransferState::Waiting));
        carry_until([&a, &b], honest, async || both_done(&a, &b).await).await;
        let (path, arrived) = received(&b).await;
        assert!(arrived == bytes, "{length} bytes changed on the way");
        assert!(path.ends_with(format!("{}/data.bin", sent.msg_id)));
        assert_eq!(transfer(&a).await.unwrap().file.done, length as u64);
    }
}

#[tokio::test]
async fn a_received_file_is_forgotten_with_time_once_its_message_was_read() {
    let (a, b) = World::new().pair().await;
    let files = Files::new();
    send(&a, &files.make("data.bin", &content(CHUNK))).await;
    carry_until([&a, &b], honest, async || both_done(&a, &b).await).await;
    let (path, _) = received(&b).await;
    let later_ms = b.post.clock.now_ms() + 1;
    b.post.forget_files(later_ms).await.unwrap();
    assert!(path.exists(), "nobody has read the message");
    assert_eq!(b.post.inbox(&b.agent(0), InboxQuery::default()).await.unwrap().messages.len(), 1);
    b.post.forget_files(0).await.unwrap();
    assert!(path.exists(), "it is young");
    b.post.forget_files(later_ms).await.unwrap();
    assert!(!path.exists() && !path.parent().unwrap().exists());
    let all = InboxQuery { all: true, ..InboxQuery::default() };
    let file = b.post.inbox(&b.agent(0), all).await.unwrap().messages.remove(0).file.unwrap();
    assert_eq!(file.path, None);
}

#[tokio::test]
async fn the_message_is_pushed_when_the_file_is_whole_and_not_before() {
    let (a, b) = impatient_pair().await;
    let files = Files::new();
    let bob = b.agent(0);
    send(&a, &files.make("report.pdf", &content(3 * CHUNK))).await;
    // The message, but no chunk.
    let keep = |frame: &Frame| if is_chunk(frame) { vec![] } else { vec![frame.clone()] };
    carry_until([&a, &b], keep, async || state(&b).await.is_some()).await;
    let (pushed, until) = b.post.pushable(bob.agent_id, 0, 10).await.unwrap();
    assert!(pushed.is_empty());
    let listed = b.post.inbox(&bob, InboxQuery::default()).await.unwrap();
    let file = listed.messages[0].file.clone().unwrap();
    assert_eq!((file.name.as_str(), file.state, file.path), ("report.pdf", TransferState::Active, None));
    assert_eq!(file.content_type, "application/pdf");
    assert_eq!(b.post.unread(bob.agent_id).await.unwrap(), 1, "it is not read before its file can be");
    carry_until([&a, &b], honest, async || both_done(&a, &b).await).await;
    let mut pushed = Vec::new();
    let is_pushed = async || {
        pushed.extend(b.post.pushable(bob.agent_id, until, 10).await.unwrap().0);
        !pushed.is_empty()
    };
    carry_until([&a, &b], honest, is_pushed).await;
    assert_eq!(&pushed[0].body[..], b"here it is");
    assert!(pushed[0].file.as_ref().unwrap().path.is_some());
}

#[tokio::test]
async fn a_broker_that_loses_repeats_and_reorders_costs_time_and_nothing_else() {
    let (a, b) = impatient_pair().await;
    let files = Files::new();
    let bytes = content(40 * CHUNK);
    send(&a, &files.make("data.bin", &bytes)).await;
    let (mut count, mut held) = (0, None);
    let meddle = |frame: &Frame| {
        if !is_chunk(frame) {
            return vec![frame.clone()];
        }
        count += 1;
        match count % 11 {
            3 => vec![],
            5 => vec![frame.clone(), frame.clone()],
            7 => {
                held = Some(frame.clone());
                vec![]
            }
            8 => [Some(frame.clone()), held.take()].into_iter().flatten().collect(),
            _ => vec![frame.clone()],
        }
    };
    carry_until([&a, &b], meddle, async || both_done(&a, &b).await).await;
    assert!(received(&b).await.1 == bytes);
}

/// A chunk with something of it changed.
fn changed(frame: &Frame, change: impl FnOnce(&mut ChunkFrame)) -> Frame {
    let mut chunk = ChunkFrame::decode(frame.bytes.clone()).unwrap();
    change(&mut chunk);
    Frame { bytes: chunk.encode().into(), ..frame.clone() }
}

fn flip(chunk: &mut ChunkFrame) {
    let mut bytes = chunk.ciphertext.to_vec();
    bytes[0] ^= 1;
    chunk.ciphertext = Bytes::from(bytes);
}

#[tokio::test]
async fn a_damaged_chunk_is_sent_again() {
    let (a, b) = World::new().pair().await;
    let files = Files::new();
    let bytes = content(6 * CHUNK);
    send(&a, &files.make("data.bin", &bytes)).await;
    let mut damaged = 0;
    let meddle = |frame: &Frame| {
        if is_chunk(frame) && damaged < 3 {
            damaged += 1;
            return vec![changed(frame, flip)];
        }
        vec![frame.clone()]
    };
    carry_until([&a, &b], meddle, async || both_done(&a, &b).await).await;
    assert!(received(&b).await.1 == bytes);
    assert_eq!(damaged, 3);
}

#[tokio::test]
async fn chunks_that_are_always_wrong_end_the_stream_and_nothing_is_ever_visible() {
    type Attack = fn(&mut ChunkFrame);
    let attacks: [(&str, Attack); 5] = [
        ("tampered", flip),
        ("truncated: the first chunk claims to be the last", |chunk| chunk.last = true),
        ("reordered: every chunk claims the first place", |chunk| {
            if chunk.index > 0 {
                chunk.index = 0;
            } else {
                chunk.index = 1;
            }
        }),
        ("extended: the last chunk claims not to be", |chunk| chunk.last = false),
        ("shortened", |chunk| chunk.ciphertext = chunk.ciphertext.slice(1..)),
    ];
    for (what, attack) in attacks {
        let (a, b) = World::new().pair().await;
        let files = Files::new();
        send(&a, &files.make("data.bin", &content(2 * CHUNK))).await;
        let meddle = |frame: &Frame| if is_chunk(frame) { vec![changed(frame, attack)] } else { vec![frame.clone()] };
        // Enough strikes need enough tries: the sender is made to try.
        let mut rounds = 0;
        carry_until([&a, &b], meddle, async || {
            rounds += 1;
            let over = |state: Option<TransferState>| state.is_some_and(|state| !state.is_open());
            over(state(&b).await) || rounds > 60
        })
        .await;
        assert_ne!(state(&b).await, Some(TransferState::Done), "{what}");
        let visible: Vec<_> =
            walk(&b.post.config.streams.dir).into_iter().filter(|path| path.ends_with("data.bin")).collect();
        assert!(visible.is_empty(), "{what}: {visible:?}");
    }
}

fn walk(dir: &std::path::Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().unwrap().is_dir() { found.extend(walk(&entry.path())) } else { found.push(entry.path()) }
    }
    found
}

#[tokio::test]
async fn a_tampered_stream_fails_on_both_sides_with_its_reason() {
    let (a, b) = World::new().pair().await;
    let files = Files::new();
    send(&a, &files.make("data.bin", &content(2 * CHUNK))).await;
    let meddle = |frame: &Frame| if is_chunk(frame) { vec![changed(frame, flip)] } else { vec![frame.clone()] };
    let failed = Some(TransferState::Failed);
    carry_until([&a, &b], meddle, async || state(&a).await == failed && state(&b).await == failed).await;
    for node in [&a, &b] {
        assert_eq!(transfer(node).await.unwrap().file.reason.as_deref(), Some("CHUNK_AUTH"));
    }
    let (pushed, _) = b.post.pushable(b.agent(0).agent_id, 0, 10).await.unwrap();
    assert_eq!(pushed[0].file.as_ref().unwrap().state, TransferState::Failed, "the agent hears of it");
}

#[tokio::test]
async fn nobody_elses_chunks_are_looked_at() {
    let world = World::new();
    let (a, b) = (world.node(1, &["alice"]).await, world.node(2, &["bob"]).await);
    let mallory = world.node(3, &["mallory"]).await;
    introduce(&[&a, &b, &mallory]);
    let files = Files::new();
    send(&a, &files.make("data.bin", &content(2 * CHUNK))).await;
    let mut chunk = None;
    let keep = |frame: &Frame| {
        if is_chunk(frame) {
            chunk = Some(frame.clone());
            return vec![];
        }
        vec![frame.clone()]
    };
    carry_until([&a, &b], keep, async || state(&b).await.is_some()).await;
    while chunk.is_none() {
        chunk = Some(a.published().await).filter(is_chunk);
    }
    // The very bytes, under the name of another node.
    let foreign = Frame { subject: route(2).subject(Destination::Blocks, node_id(3)), ..chunk.unwrap() };
    assert_eq!(b.post.receive(&foreign).await, Verdict::Term);
    assert_eq!(transfer(&b).await.unwrap().file.done, 0);
}

#[tokio::test]
async fn a_chunk_of_an_unknown_stream_is_put_off_and_then_dropped_in_silence() {
    let (a, b) = World::new().pair().await;
    let chunk = ChunkFrame { stream_id: [9; 16], index: 0, last: true, ciphertext: vec![0; 32].into() };
    let frame = |deliveries| Frame {
        subject: route(2).subject(Destination::Blocks, node_id(a.n)),
        bytes: chunk.encode().into(),
        deliveries,
        stream_seq: 5,
    };
    assert!(matches!(b.post.receive(&frame(1)).await, Verdict::Nak(_)));
    assert_eq!(b.post.receive(&frame(3)).await, Verdict::Term);
    assert!(b.is_quiet().await);
}

#[tokio::test]
async fn either_side_cancels_and_the_other_hears_of_it() {
    for by_sender in [true, false] {
        let (a, b) = World::new().pair().await;
        let files = Files::new();
        let (_, file) = send(&a, &files.make("data.bin", &content(40 * CHUNK))).await;
        let mut chunks = 0;
        let some = |frame: &Frame| {
            chunks += u32::from(is_chunk(frame));
            if chunks > 10 && is_chunk(frame) { vec![] } else { vec![frame.clone()] }
        };
        let started = async || transfer(&b).await.is_some_and(|transfer| transfer.file.done > 0);
        carry_until([&a, &b], some, started).await;
        let (node, other) = if by_sender { (&a, &b) } else { (&b, &a) };
        let cancelled = node.post.cancel_transfer(&node.agent(0), file.stream_id).await.unwrap();
        assert_eq!(cancelled.file.state, TransferState::Cancelled);
        let gone = || [&a, &b].into_iter().all(|node| walk(&node.post.config.streams.dir).is_empty());
        carry_until([&a, &b], honest, async || state(other).await == Some(TransferState::Cancelled) && gone()).await;
        let again = node.post.cancel_transfer(&node.agent(0), file.stream_id).await.unwrap();
        assert_eq!(again.file.state, TransferState::Cancelled, "once more does no harm");
    }
}

#[tokio::test]
async fn only_the_two_agents_may_cancel() {
    let (a, b) = World::new().pair().await;
    let files = Files::new();
    send(&a, &files.make("data.bin", &content(CHUNK))).await;
    let unknown = StreamId::from_bytes([1; 16]);
    assert!(a.post.cancel_transfer(&a.agent(0), unknown).await.is_err());
    let (_, file) = send(&a, &files.make("other.bin", &content(CHUNK))).await;
    assert!(b.post.cancel_transfer(&b.agent(0), file.stream_id).await.is_err(), "bob has not heard of it yet");
}

#[tokio::test]
async fn limits_are_told_by_name() {
    let mut config = PostConfig::default();
    config.streams.bytes_max = 100;
    config.streams.spool_bytes_max = 250;
    let world = World::new();
    let a = world.node_with(1, &["alice"], config, Clock::system()).await;
    let b = world.node(2, &["bob"]).await;
    introduce(&[&a, &b]);
    let files = Files::new();
    let try_to =
        async |name: &str, length| a.post.send_file(&a.agent(0), draft(&files.make(name, &content(length)))).await;
    assert!(matches!(try_to("big", 101).await, Err(SendError::FileTooLarge { limit: 100, .. })));
    try_to("1", 100).await.unwrap();
    try_to("2", 100).await.unwrap();
    assert!(matches!(try_to("3", 100).await, Err(SendError::SpoolFull { limit: 250, .. })));
    try_to("4", 10).await.unwrap();
    try_to("5", 10).await.unwrap();
    assert!(matches!(try_to("6", 10).await, Err(SendError::TransfersOpenTooMany { limit: 4, .. })));
    assert_eq!(
        fs::read_dir(a.post.config.streams.dir.join("out")).unwrap().count(),
        4,
        "what was refused left nothing"
    );
}

#[tokio::test]
async fn a_recipient_refuses_what_is_larger_than_it_takes() {
    let mut config = PostConfig::default();
    config.streams.bytes_max = 100;
    let world = World::new();
    let a = world.node(1, &["alice"]).await;
    let b = world.node_with(2, &["bob"], config, Clock::system()).await;
    introduce(&[&a, &b]);
    let files = Files::new();
    send(&a, &files.make("big", &content(101))).await;
    carry_until([&a, &b], honest, async || state(&a).await == Some(TransferState::Failed)).await;
    assert_eq!(transfer(&a).await.unwrap().file.reason.as_deref(), Some("STREAM_TOO_LARGE"));
    assert_eq!(b.post.unread(b.agent(0).agent_id).await.unwrap(), 0);
}

#[tokio::test]
async fn a_key_repeats_the_same_file_and_refuses_another() {
    let (a, _b) = World::new().pair().await;
    let files = Files::new();
    let path = files.make("data.bin", &content(10));
    let keyed = || {
        let mut draft = draft(&path);
        draft.message.idempotency_key = Some("k".to_owned());
        draft
    };
    let (first, file) = a.post.send_file(&a.agent(0), keyed()).await.unwrap();
    let (second, again) = a.post.send_file(&a.agent(0), keyed()).await.unwrap();
    assert_eq!((first.msg_id, file.stream_id), (second.msg_id, again.stream_id));
    fs::write(&path, content(11)).unwrap();
    assert!(matches!(
        a.post.send_file(&a.agent(0), keyed()).await,
        Err(SendError::IdempotencyConflict { msg_id }) if msg_id == first.msg_id
    ));
    assert_eq!(fs::read_dir(a.post.config.streams.dir.join("out")).unwrap().count(), 1);
}

#[tokio::test]
async fn an_agent_of_the_same_node_gets_a_file_the_same_way() {
    let world = World::new();
    let node = world.node(1, &["alice", "bob"]).await;
    introduce(&[&node]);
    let files = Files::new();
    let bytes = content(20 * CHUNK);
    let (_, file) = send(&node, &files.make("data.bin", &bytes)).await;
    let both = async || {
        let of = async |index: usize| {
            let found = node.post.transfers(node.agent(index).agent_id, true, 0).await.unwrap();
            found.first().map(|transfer| (transfer.file.state, transfer.is_incoming))
        };
        of(0).await == Some((TransferState::Done, false)) && of(1).await == Some((TransferState::Done, true))
    };
    let idle = world.node(9, &[]).await;
    carry_until([&node, &idle], honest, both).await;
    let found = node.post.transfers(node.agent(1).agent_id, true, 0).await.unwrap();
    assert_eq!(found[0].file.stream_id, file.stream_id);
    assert!(fs::read(found[0].file.path.as_ref().unwrap()).unwrap() == bytes);
}

#[tokio::test]
async fn a_sender_that_ignores_credit_is_cut_off() {
    let (a, b) = World::new().pair().await;
    let files = Files::new();
    send(&a, &files.make("data.bin", &content(40 * CHUNK))).await;
    // No credit reaches the sender's arithmetic; a chunk far ahead stands for one that did not wait.
    let meddle = |frame: &Frame| {
        if is_chunk(frame) { vec![changed(frame, |chunk| chunk.index += 1000)] } else { vec![frame.clone()] }
    };
    carry_until([&a, &b], meddle, async || state(&a).await == Some(TransferState::Failed)).await;
    assert_eq!(transfer(&a).await.unwrap().file.reason.as_deref(), Some("CREDIT_EXCEEDED"));
}
