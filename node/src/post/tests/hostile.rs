//! What others may try (PROTOCOL §7.1), and what must come of it: nothing, or an answer to whom it belongs.

use std::sync::Arc;

use bytes::Bytes;
use murmur_core::{
    code::Code,
    id::{AgentId, MessageId},
    outbox::StateName,
    slug::Slug,
    subject::Destination,
};
use murmur_crypto::{
    ack::{AckBody, AckFrame, AckItem, AckStatus},
    envelope::Envelope,
    hash::EnvDigest,
    inner::{InnerMessage as Inner, Kind, dm_conversation_id},
    seal::{Recipient, SealRequest, seal},
};

use super::super::{
    Draft, Frame, PostConfig,
    testing::{TestNode, World, introduce, node_id, route},
};
use crate::{
    bus::Verdict,
    clock::Clock,
    directory::{Batch, Change},
    keys::AgentSigner,
    store::guard,
};

const DAY_MS: u64 = 24 * 3600 * 1000;

/// What a sender may choose about an envelope.
struct Forge {
    msg_id: MessageId,
    sender: AgentId,
    recipient: AgentId,
    created_ms: u64,
    ttl_seconds: u32,
    body: Bytes,
    conversation: Option<murmur_core::id::ConversationId>,
    /// The recipient is to know it already.
    is_chain_left_out: bool,
}

impl Forge {
    fn new(from: &TestNode, to: &TestNode, body: &str) -> Self {
        Self {
            msg_id: MessageId::from_bytes([9; 16]),
            sender: from.agent(0).agent_id,
            recipient: to.agent(0).agent_id,
            created_ms: from.post.clock.now_ms(),
            ttl_seconds: 60,
            body: Bytes::copy_from_slice(body.as_bytes()),
            conversation: None,
            is_chain_left_out: false,
        }
    }

    /// Seals as `signer` to the keys that `to` publishes.
    fn seal(&self, signer: &Arc<AgentSigner>, from: &TestNode, to: &TestNode) -> Frame {
        let peer = from.post.directory.verified(to.agent(0).agent_id, from.post.clock.now_ms()).unwrap();
        let conversation = self.conversation.unwrap_or_else(|| dm_conversation_id(self.sender, self.recipient));
        let inner = Inner::new(Kind::Message, conversation, self.body.clone()).encode().unwrap();
        let sealed = seal(
            &signer.key,
            &SealRequest {
                msg_id: self.msg_id,
                sender_agent_id: self.sender,
                sender_node_id: node_id(from.n),
                sender_cert_fp: signer.cert_fp,
                conversation_id: conversation,
                sequence: 1,
                sequence_epoch: 1,
                created_at_ms: self.created_ms,
                ttl_seconds: self.ttl_seconds,
                seal_attempt: 0,
                reply_route: Some(&route(from.n).to_string()),
                recipients: &[Recipient { agent_id: self.recipient, ..Recipient::from(&peer.prekey) }],
                inner: &inner,
                chain: (!self.is_chain_left_out).then_some(&signer.chain),
            },
        )
        .unwrap();
        frame(to, Destination::Agent(to.agent(0).agent_id), from, sealed.bytes)
    }

    fn honest(&self, from: &TestNode, to: &TestNode) -> Frame {
        self.seal(&signer(from), from, to)
    }
}

fn signer(node: &TestNode) -> Arc<AgentSigner> {
    node.post.keys.signer(node.agent(0).agent_id).unwrap()
}

fn frame(to: &TestNode, destination: Destination, from: &TestNode, bytes: Bytes) -> Frame {
    Frame { subject: route(to.n).subject(destination, node_id(from.n)), bytes, deliveries: 1, stream_seq: 1 }
}

async fn unread(node: &TestNode) -> u64 {
    node.post.unread(node.agent(0).agent_id).await.unwrap()
}

/// Delivers a frame that must be put away in silence.
async fn refused_in_silence(node: &TestNode, frame: &Frame) {
    let before = node.post.stats().await.unwrap().quarantined;
    assert_eq!(node.post.receive(frame).await, Verdict::Term);
    assert_eq!(node.post.stats().await.unwrap().quarantined, before + 1);
    assert_eq!(unread(node).await, 0);
    assert!(node.is_quiet().await);
}

/// Reads the acknowledgements that a node publishes.
async fn items(node: &TestNode) -> Vec<AckItem> {
    AckFrame::decode(node.published().await.bytes).unwrap().claimed().items.clone()
}

/// Delivers an authentic frame that is refused, and gives the code that the sender is told.
async fn code_told(node: &TestNode, frame: &Frame) -> Code {
    node.take(frame).await;
    let told = async {
        loop {
            // A receipt of something earlier may be told once more before it.
            let failed = items(node).await.into_iter().find_map(|item| match item.status {
                AckStatus::Failed { code, .. } => Some(code),
                _ => None,
            });
            if let Some(code) = failed {
                return code;
            }
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), told).await.expect("it was let in")
}

/// A third node that issues itself a certificate with another agent's id under a slug of its own.
async fn impostor(world: &World, a: &TestNode, b: &TestNode, victim: AgentId) -> (TestNode, Arc<AgentSigner>) {
    let mallory = world.node(3, &["mallory"]).await;
    introduce(&[a, b, &mallory]);
    mallory.post.keys.ensure_agent(victim, &mallory.agent(0).slug, mallory.post.clock.now_ms()).unwrap();
    let signer = mallory.post.keys.signer(victim).unwrap();
    (mallory, signer)
}

#[tokio::test]
async fn another_node_cannot_speak_under_an_agents_id() {
    let world = World::new();
    let (a, b) = world.pair().await;
    let (mallory, signer) = impostor(&world, &a, &b, a.agent(0).agent_id).await;
    let forged = Forge { sender: a.agent(0).agent_id, ..Forge::new(&mallory, &b, "as alice") };
    refused_in_silence(&b, &forged.seal(&signer, &mallory, &b)).await;
    // And alice is none the worse for it.
    b.take(&Forge::new(&a, &b, "alice herself").honest(&a, &b)).await;
    assert_eq!(unread(&b).await, 1);
}

#[tokio::test]
async fn another_node_cannot_acknowledge_under_an_agents_id() {
    let world = World::new();
    let (a, b) = world.pair().await;
    let (mallory, signer) = impostor(&world, &a, &b, b.agent(0).agent_id).await;
    let (msg_id, env_digest, _) = sent(&a).await;
    assert_eq!(a.post.receive(&ack_as(&a, &mallory, &signer, msg_id, env_digest)).await, Verdict::Term);
    let state = state(&a, msg_id).await;
    assert!(
        matches!(state, StateName::Sealed | StateName::Stored),
        "only the recipient's own node may say so: {state:?}"
    );
}

#[tokio::test]
async fn a_replay_is_acknowledged_again_and_shown_once() {
    let (a, b) = World::new().pair().await;
    let frame = Forge::new(&a, &b, "once").honest(&a, &b);
    for _ in 0..3 {
        b.take(&frame).await;
        assert!(items(&b).await.iter().all(|item| item.status == AckStatus::Delivered));
    }
    assert_eq!(unread(&b).await, 1);
}

#[tokio::test]
async fn what_is_not_authentic_is_quarantined_and_burns_no_message_id() {
    let (a, b) = World::new().pair().await;
    let honest = Forge::new(&a, &b, "true").honest(&a, &b);
    let mut flipped = honest.bytes.to_vec();
    // Far behind the header, before the signature: the sealed payload.
    let place = flipped.windows(4).position(|bytes| bytes == [0x22, 0x90, 0x02, 0x00]).unwrap_or(flipped.len() / 3);
    flipped[place] ^= 1;
    refused_in_silence(&b, &Frame { bytes: flipped.into(), ..honest.clone() }).await;
    refused_in_silence(&b, &Frame { bytes: Bytes::from_static(b"rubbish"), ..honest.clone() }).await;
    refused_in_silence(&b, &Frame { bytes: vec![0; 400_000].into(), ..honest.clone() }).await;
    refused_in_silence(&b, &Frame { subject: "mm.in.local".to_owned(), ..honest.clone() }).await;
    b.take(&honest).await;
    assert_eq!(unread(&b).await, 1);
}

#[tokio::test]
async fn nobody_speaks_for_another() {
    let world = World::new();
    let (a, b) = (world.node(1, &["alice"]).await, world.node(2, &["bob"]).await);
    let mallory = world.node(3, &["mallory"]).await;
    introduce(&[&a, &b, &mallory]);
    let (alice, mallorys) = (a.agent(0).agent_id, signer(&mallory));
    // Mallory's key under Alice's name, and Alice's certificate under Mallory's signature.
    refused_in_silence(&b, &Forge { sender: alice, ..Forge::new(&mallory, &b, "x") }.seal(&mallorys, &mallory, &b))
        .await;
    let stranger = World::new().node(4, &["eve"]).await;
    let eves = signer(&stranger);
    refused_in_silence(&b, &Forge::new(&a, &b, "x").seal(&eves, &a, &b)).await;
    // A message of Alice's that Mallory's node publishes as its own.
    let stolen = Forge::new(&a, &b, "x").honest(&a, &b);
    let subject = route(2).subject(Destination::Agent(b.agent(0).agent_id), node_id(3));
    refused_in_silence(&b, &Frame { subject, ..stolen }).await;
}

#[tokio::test]
async fn a_message_for_another_is_not_taken() {
    let world = World::new();
    let (a, b) = (world.node(1, &["alice"]).await, world.node(2, &["bob", "carol"]).await);
    introduce(&[&a, &b]);
    let for_bob = Forge::new(&a, &b, "x").honest(&a, &b);
    let to_carol = route(2).subject(Destination::Agent(b.agent(1).agent_id), node_id(1));
    refused_in_silence(&b, &Frame { subject: to_carol, ..for_bob.clone() }).await;
    let elsewhere = route(5).subject(Destination::Agent(b.agent(0).agent_id), node_id(1));
    refused_in_silence(&b, &Frame { subject: elsewhere, ..for_bob }).await;
    // Sealed with Bob's key for an agent that does not exist.
    let ghost = AgentId::from_bytes([0xee; 16]);
    let sealed = Forge { recipient: ghost, ..Forge::new(&a, &b, "x") }.honest(&a, &b);
    let subject = route(2).subject(Destination::Agent(ghost), node_id(1));
    refused_in_silence(&b, &Frame { subject, ..sealed }).await;
}

#[tokio::test]
async fn time_is_judged_after_the_signature() {
    let (a, b) = World::new().pair().await;
    let now_ms = a.post.clock.now_ms();
    let late = Forge { created_ms: now_ms - 120_000, ..Forge::new(&a, &b, "late") };
    assert_eq!(code_told(&b, &late.honest(&a, &b)).await, Code::Expired);
    let ancient = Forge { created_ms: now_ms - 9 * DAY_MS, ttl_seconds: 604_800, ..Forge::new(&a, &b, "old") };
    // Nine days ago Alice had no certificate, so that this is not even authentic.
    refused_in_silence(&b, &ancient.honest(&a, &b)).await;
    let early = Forge { created_ms: now_ms + 20 * 60_000, ..Forge::new(&a, &b, "early") };
    assert_eq!(code_told(&b, &early.honest(&a, &b)).await, Code::ClockSkew);
    let mut forged = late.honest(&a, &b).bytes.to_vec();
    let middle = forged.len() / 3;
    forged[middle] ^= 1;
    refused_in_silence(&b, &Frame { bytes: forged.into(), ..late.honest(&a, &b) }).await;
    assert_eq!(unread(&b).await, 0);
}

#[tokio::test]
async fn one_id_has_one_content() {
    let (a, b) = World::new().pair().await;
    b.take(&Forge::new(&a, &b, "first").honest(&a, &b)).await;
    items(&b).await;
    let resealed = Forge::new(&a, &b, "first").honest(&a, &b);
    b.take(&resealed).await;
    assert!(items(&b).await.iter().all(|item| item.status == AckStatus::Delivered), "a new seal of the same");
    assert_eq!(code_told(&b, &Forge::new(&a, &b, "second").honest(&a, &b)).await, Code::MsgIdConflict);
    assert_eq!(unread(&b).await, 1);
}

#[tokio::test]
async fn a_conversation_cannot_be_chosen() {
    let (a, b) = World::new().pair().await;
    let foreign = Some(murmur_core::id::ConversationId::from_bytes([3; 16]));
    let spliced = Forge { conversation: foreign, ..Forge::new(&a, &b, "x") };
    assert_eq!(code_told(&b, &spliced.honest(&a, &b)).await, Code::ConversationMismatch);
}

#[tokio::test]
async fn a_flooder_with_no_place_left_is_refused_by_the_receiver_too() {
    let world = World::new();
    let a = world.node(1, &["alice"]).await;
    let one = std::num::NonZeroU32::MIN;
    let config = PostConfig { pair_burst: one, pair_per_minute: one, pair_held_max: 0, ..PostConfig::default() };
    let b = world.node_with(2, &["bob"], config, Clock::system()).await;
    introduce(&[&a, &b]);
    b.take(&Forge::new(&a, &b, "x").honest(&a, &b)).await;
    items(&b).await;
    let second = Forge { msg_id: MessageId::from_bytes([8; 16]), ..Forge::new(&a, &b, "y") };
    assert_eq!(code_told(&b, &second.honest(&a, &b)).await, Code::RateLimited);
}

#[tokio::test]
async fn a_message_that_kills_the_node_is_put_away_on_its_third_try() {
    let (a, b) = World::new().pair().await;
    let honest = Forge::new(&a, &b, "x").honest(&a, &b);
    let count = |deliveries| Frame { deliveries, stream_seq: 77, ..honest.clone() };
    // Two redeliveries died after the guard: only their counting is on disk.
    for _ in 0..2 {
        b.post.store.write(|tx| guard::count(tx, 77, 1)).await.unwrap();
    }
    assert_eq!(b.post.receive(&count(4)).await, Verdict::Term);
    assert_eq!(unread(&b).await, 0);
    assert_eq!(b.post.receive(&count(5)).await, Verdict::Ack, "dealt with, the guard was cleared");
}

/// What waits has one of the places that the broker gives a node, and they are for everybody's messages.
#[tokio::test]
async fn what_nobody_vouches_for_is_put_off_a_few_at_a_time() {
    let world = World::new();
    let (a, c) = (world.node(1, &["alice"]).await, world.node(3, &["carol"]).await);
    let b = world.node(2, &["bob"]).await;
    // They know Bob, who knows neither.
    introduce(&[&a, &b, &c]);
    let gone = [&a, &c].map(|node| Change::Removed(node.agent(0).agent_id)).into();
    b.post.directory.apply(Batch { changes: gone, whole: false, resume_token: None }, b.post.clock.now_ms());
    let of = |from: &TestNode, n: u64| {
        let msg_id = MessageId::from_bytes([u8::try_from(n % 251).unwrap(); 16]);
        let forge = Forge { msg_id, is_chain_left_out: true, ..Forge::new(from, &b, "x") };
        Frame { stream_seq: n, ..forge.honest(from, &b) }
    };
    for n in 0..64 {
        assert!(matches!(b.post.receive(&of(&a, n)).await, Verdict::Nak(_)), "{n}");
    }
    assert_eq!(b.post.receive(&of(&a, 64)).await, Verdict::Term, "put away, and with it its place");
    assert!(matches!(b.post.receive(&of(&a, 1)).await, Verdict::Nak(_)), "one that comes again has its place");
    assert!(matches!(b.post.receive(&of(&c, 100)).await, Verdict::Nak(_)), "others have their own");
    assert_eq!(b.post.stats().await.unwrap().quarantined, 1);
}

#[tokio::test]
async fn what_was_dealt_with_does_not_count_when_the_next_message_kills_the_node() {
    let (a, b) = World::new().pair().await;
    let honest = Forge::new(&a, &b, "x").honest(&a, &b);
    b.take(&honest).await;
    let count = |stream_seq| b.post.store.write(move |tx| guard::count(tx, stream_seq, 1));
    count(77).await.unwrap();
    // It comes again and is known, but before its acknowledgement is done with, the next one is the node's end.
    drop(b.post.examine(&Frame { deliveries: 3, stream_seq: 77, ..honest }).await.unwrap());
    count(78).await.unwrap();
    assert_eq!(count(77).await.unwrap(), 1, "it has not been counted before");
}

#[tokio::test]
async fn the_count_is_taken_back_by_the_transaction_that_deals_with_the_message() {
    let (a, b) = World::new().pair().await;
    let honest = Forge::new(&a, &b, "x").honest(&a, &b);
    let now_ms = a.post.clock.now_ms();
    let late = Forge { created_ms: now_ms - 3_600_000, ..Forge::new(&a, &b, "z") }.honest(&a, &b);
    for (frame, what) in [(&honest, "new"), (&honest, "known"), (&late, "refused")] {
        b.post.store.write(|tx| guard::count(tx, 77, 1)).await.unwrap();
        let frame = Frame { deliveries: 2, stream_seq: 77, ..frame.clone() };
        // Committed, and nothing after it has run.
        let after = b.post.examine(&frame).await.unwrap().await.unwrap();
        assert_eq!(b.post.store.read(guard::counted_for_test).await.unwrap(), 0, "{what}");
        drop(after);
    }
}

#[tokio::test]
async fn an_acknowledgement_counts_until_everything_that_it_says_was_heard() {
    let (a, b) = World::new().pair().await;
    let (msg_id, digest, _) = sent(&a).await;
    let frame = Frame { deliveries: 2, stream_seq: 77, ..ack(&a, &b, msg_id, digest) };
    // What it says of files is heard after its commit, and may be the node's end.
    drop(a.post.examine(&frame).await.unwrap());
    let tries = a.post.store.write(|tx| guard::count(tx, 77, 1)).await.unwrap();
    assert_eq!(tries, 2, "once by its second delivery, and now");
}

/// Alice's message on its way to Bob: its id and the digest of its copy.
async fn sent(a: &TestNode) -> (MessageId, EnvDigest, Frame) {
    let draft = Draft { to: "bob".to_owned(), body: "hello".into(), ..Draft::default() };
    let sent = a.post.send(&a.agent(0), draft).await.unwrap();
    let frame = a.published().await;
    (sent.msg_id, Envelope::decode(frame.bytes.clone()).unwrap().env_digest(), frame)
}

/// An acknowledgement signed by `by`, published by its node.
fn ack(a: &TestNode, by: &TestNode, msg_id: MessageId, env_digest: EnvDigest) -> Frame {
    ack_as(a, by, &signer(by), msg_id, env_digest)
}

fn ack_as(a: &TestNode, by: &TestNode, signer: &AgentSigner, msg_id: MessageId, env_digest: EnvDigest) -> Frame {
    let body = AckBody {
        acker_agent_id: signer.agent_id,
        acker_cert_fp: signer.cert_fp,
        sender_agent_id: a.agent(0).agent_id,
        at_ms: a.post.clock.now_ms(),
        items: vec![AckItem { msg_id, env_digest, status: AckStatus::Delivered }],
        credits: vec![],
    };
    frame(a, Destination::Ack, by, body.sign(&signer.key, Some(&signer.chain)).unwrap())
}

async fn state(a: &TestNode, msg_id: MessageId) -> StateName {
    a.post.delivery(a.agent(0).agent_id, msg_id).await.unwrap()[0].state
}

#[tokio::test]
async fn only_the_recipient_acknowledges_and_only_what_was_sent() {
    let world = World::new();
    let (a, b) = (world.node(1, &["alice"]).await, world.node(2, &["bob"]).await);
    let mallory = world.node(3, &["mallory"]).await;
    introduce(&[&a, &b, &mallory]);
    let (msg_id, digest, _) = sent(&a).await;
    a.take(&ack(&a, &mallory, msg_id, digest)).await;
    a.take(&ack(&a, &b, msg_id, EnvDigest::from_bytes([1; 32]))).await;
    a.take(&ack(&a, &b, MessageId::from_bytes([1; 16]), digest)).await;
    assert_eq!(a.post.stats().await.unwrap().acks_ignored, 3);
    // Bob's true words, published by Mallory's node.
    let true_words = ack(&a, &b, msg_id, digest);
    let subject = route(1).subject(Destination::Ack, node_id(3));
    assert_eq!(a.post.receive(&Frame { subject, ..true_words.clone() }).await, Verdict::Term);
    assert!(state(&a, msg_id).await.is_open());
    a.take(&true_words).await;
    assert_eq!(state(&a, msg_id).await, StateName::Delivered);
    a.take(&true_words).await;
    assert_eq!(state(&a, msg_id).await, StateName::Delivered);
}

#[tokio::test]
async fn a_slug_is_shown_from_the_certificate_not_from_the_directory() {
    let (a, b) = World::new().pair().await;
    b.take(&Forge::new(&a, &b, "x").honest(&a, &b)).await;
    let shown: Vec<Slug> =
        b.post.pushable(b.agent(0).agent_id, 0, 10).await.unwrap().0.into_iter().map(|m| m.from).collect();
    assert_eq!(shown, [a.agent(0).slug]);
}
