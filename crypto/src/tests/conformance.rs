//! Our additions to the conformance kit: `messages_v2.json`, from fixed seeds through [`crate::hazmat`].
//!
//! The file is checked independently by `tests/conformance/check.py`; here it must be exactly what this code makes.
//! `MURMUR_WRITE_VECTORS=1` writes it anew.

use murmur_core::{code::Code, id::*};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::world::{Agent, NOW, World, seed};
use crate::{
    ack::{AckBody, AckFrame, AckItem, AckStatus, Credit, CreditState},
    chunk::CHUNK_BYTES_MAX,
    content_key::{ContentKey, HeaderHash, payload_aad},
    envelope::Envelope,
    hash::EnvDigest,
    hazmat::{SealRandomness, seal_with},
    inner::{Attr, InnerMessage, KeyLogHead, Kind, Priority, StreamManifest, check_inner, dm_conversation_id},
    keylog::KeyLog,
    padding::pad,
    prekey::{self, PrekeySpec},
    seal::Recipient,
    wire,
    wrap::Place,
};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/conformance/v2/messages_v2.json");

#[test]
fn the_file_is_what_this_code_makes() {
    let made = json!({
        "format": "murmur-conformance/2",
        "suite": "0x0201",
        "cases": [three_recipients(), full_inner(), acknowledgement()],
    });
    if std::env::var_os("MURMUR_WRITE_VECTORS").is_some() {
        std::fs::write(FILE, serde_json::to_string_pretty(&made).unwrap() + "\n").unwrap();
    }
    let stored: Value = serde_json::from_str(&std::fs::read_to_string(FILE).unwrap()).unwrap();
    assert!(stored == made, "messages_v2.json differs from what this code makes");
}

fn three_recipients() -> Value {
    let world = World::new();
    let readers = [2, 3, 4].map(|number| world.agent(number));
    envelope_case("env-3-recipients-ok", &world, &readers, b"hello, the three of you")
}

fn full_inner() -> Value {
    let world = World::new();
    let (alice, bob) = (world.agent(1), world.agent(2));
    let message = every_field(&world, dm_conversation_id(alice.id, bob.id));
    let inner = message.encode().unwrap();
    let mut case = envelope_case("inner-full-ok", &world, &[bob], &inner);
    case["fields"] = json!({
        "kind": 4,
        "content_type": message.content_type,
        "body": hex::encode(&message.body),
        "parent_msg_id": hex::encode(message.parent_msg_id.unwrap().as_bytes()),
        "in_reply_to": hex::encode(message.in_reply_to.unwrap().as_bytes()),
        "traceparent": message.traceparent,
        "tracestate": message.tracestate,
        "priority": 1,
        "channel_epoch": 0,
        "conversation_id": hex::encode(message.conversation_id.as_bytes()),
        "attrs": message.attrs.iter().map(|attr| json!([attr.key, attr.value])).collect::<Vec<_>>(),
        "log_head": {
            "workspace_id": hex::encode(world.root.workspace_id().as_bytes()),
            "size": message.log_head.unwrap().log.size,
            "head": hex::encode(message.log_head.unwrap().log.head),
            "entries": [hex::encode(world.root.certificate().statement().body())],
        },
        "stream": {
            "stream_id": "01".repeat(16),
            "nonce_prefix": "02".repeat(19),
            "chunk_size": CHUNK_BYTES_MAX,
            "total_size": 300_000,
            "filename": "report.txt",
            "content_type": "text/plain",
            "sha256": "03".repeat(32),
        },
    });
    case
}

/// Every field set that one message can have set at once: `deadline_ms` belongs to another kind.
fn every_field(world: &World, conversation_id: ConversationId) -> InnerMessage {
    let stream = StreamManifest {
        stream_id: [1; 16],
        nonce_prefix: [2; 19],
        chunk_size: u32::try_from(CHUNK_BYTES_MAX).unwrap(),
        total_size: Some(300_000),
        filename: "report.txt".to_owned(),
        content_type: "text/plain".to_owned(),
        sha256: Some([3; 32]),
    };
    let log = KeyLog::default().append(world.root.certificate().statement().body());
    InnerMessage {
        content_type: "text/markdown".to_owned(),
        parent_msg_id: Some(MessageId::from_bytes([0x70; 16])),
        in_reply_to: Some(MessageId::from_bytes([0x71; 16])),
        traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned()),
        tracestate: Some("murmur=1".to_owned()),
        stream: Some(stream),
        log_head: Some(KeyLogHead { workspace_id: world.root.workspace_id(), log }),
        attrs: vec![
            Attr { key: "hops".to_owned(), value: "1".to_owned() },
            Attr { key: "lang".to_owned(), value: "日本語".to_owned() },
        ],
        priority: Priority::High,
        ..InnerMessage::new(Kind::StreamOpen, conversation_id, "# Report")
    }
}

/// Seals `inner` from agent 1 to the readers with randomness from fixed seeds, and records every step.
fn envelope_case(id: &str, world: &World, readers: &[Agent], inner: &[u8]) -> Value {
    let alice = world.agent(1);
    let recipients: Vec<Recipient> = readers.iter().map(Agent::recipient).collect();
    let route = format!("mm.in.local.00.{}.{}", world.root.workspace_id().hex(), alice.verified.node_id().hex());
    let mut request = alice.request(&recipients, inner);
    request.reply_route = Some(&route);
    let ikms: Vec<[u8; 32]> = (0..readers.len()).map(|index| seed(200 + index as u64)).collect();
    let mut payload_nonce = [0; 24];
    payload_nonce.copy_from_slice(&seed(301)[..24]);
    let randomness =
        SealRandomness { cek: Zeroizing::new(seed(300)), payload_nonce, hpke_ikm_e: Zeroizing::new(ikms.clone()) };
    let sealed = seal_with(&alice.key, &request, &randomness).unwrap();
    for reader in readers {
        assert_eq!(super::world::receive(world, reader, &sealed.bytes).unwrap(), inner);
    }
    let parts: wire::EnvelopeV2 = prost::Message::decode(sealed.bytes.clone()).unwrap();
    let header_hash = HeaderHash::of(&parts.header);
    let key = ContentKey(Zeroizing::new(seed(300)));
    json!({
        "id": id,
        "op": "open",
        "expect": "ok",
        "envelope": hex::encode(&sealed.bytes),
        "inner": hex::encode(inner),
        "root": hex::encode(world.root.certificate().encode()),
        "keys": {
            "sender_ed25519_seed": hex::encode(*alice.key.seed()),
            "sender_ed25519_public": hex::encode(alice.key.public().as_bytes()),
            "recipients": readers.iter().map(reader_keys).collect::<Vec<_>>(),
        },
        "randomness": {
            "cek": hex::encode(seed(300)),
            "payload_nonce": hex::encode(payload_nonce),
            "hpke_ikm_e": ikms.iter().map(hex::encode).collect::<Vec<_>>(),
        },
        "intermediate": {
            "header": hex::encode(&parts.header),
            "header_hash": hex::encode(header_hash.0),
            "key_commitment": hex::encode(key.commitment(request.msg_id)),
            "k_payload": hex::encode(*key.payload_key(header_hash)),
            "k_stream": hex::encode(*key.stream_key(header_hash)),
            "payload_aad": hex::encode(payload_aad(header_hash)),
            "padded_inner": hex::encode(pad(inner).unwrap()),
            "stanzas": stanza_steps(header_hash, &recipients, &parts),
            "env_digest": sealed.env_digest.to_string(),
        },
    })
}

fn reader_keys(reader: &Agent) -> Value {
    json!({
        "agent_id": reader.id.hex(),
        "prekey_id": reader.prekey.id.to_string(),
        "x25519_private": hex::encode(*reader.secret.to_bytes()),
        "x25519_public": hex::encode(reader.secret.public().as_bytes()),
    })
}

fn stanza_steps(header_hash: HeaderHash, recipients: &[Recipient], parts: &wire::EnvelopeV2) -> Value {
    let list: wire::StanzaList = prost::Message::decode(parts.stanzas.clone()).unwrap();
    let steps = (0_u16..).zip(recipients).zip(list.stanzas).map(|((index, recipient), stanza)| {
        let Recipient { agent_id, prekey_id, .. } = *recipient;
        let place = Place { header_hash, agent_id, prekey_id, index };
        json!({
            "hpke_info": hex::encode(place.info()),
            "hpke_aad": hex::encode(place.aad()),
            "enc": hex::encode(&stanza.enc),
            "wrapped_key": hex::encode(&stanza.wrapped_key),
        })
    });
    steps.collect()
}

fn acknowledgement() -> Value {
    let world = World::new();
    let (alice, bob) = (world.agent(1), world.agent(2));
    let spec = PrekeySpec::new(bob.id, bob.chain.leaf().fp(), bob.secret.public(), 2, NOW);
    let (fresh, _) = prekey::issue(&bob.key, &spec);
    let item = |number: u8, status| AckItem {
        msg_id: MessageId::from_bytes([number; 16]),
        env_digest: EnvDigest::from_bytes([number; 32]),
        status,
    };
    let failed = |code, retry_after_s, fresh_prekey| AckStatus::Failed { code, retry_after_s, fresh_prekey };
    let body = AckBody {
        acker_agent_id: bob.id,
        acker_cert_fp: bob.chain.leaf().fp(),
        sender_agent_id: alice.id,
        at_ms: NOW,
        items: vec![
            item(1, AckStatus::Delivered),
            item(2, AckStatus::Read),
            item(3, failed(Code::KeyUnknown, None, Some(fresh))),
            item(4, failed(Code::RateLimited, Some(30), None)),
        ],
        credits: vec![Credit { stream_id: [5; 16], next_index: 4, window: 16, state: CreditState::Open }],
    };
    let frame = body.sign(&bob.key, Some(&bob.chain)).unwrap();
    assert!(AckFrame::decode(frame.clone()).unwrap().verify_sender(&bob.verified).unwrap() == body);
    json!({
        "id": "ack-ok",
        "op": "ack_verify",
        "expect": "ok",
        "frame": hex::encode(&frame),
        "root": hex::encode(world.root.certificate().encode()),
        "acker_ed25519_public": hex::encode(bob.key.public().as_bytes()),
        "acker_agent_id": bob.id.hex(),
        "sender_agent_id": alice.id.hex(),
        "at_ms": NOW,
        "items": [
            {"msg_id": "01".repeat(16), "env_digest": "01".repeat(32), "status": 1},
            {"msg_id": "02".repeat(16), "env_digest": "02".repeat(32), "status": 2},
            {"msg_id": "03".repeat(16), "env_digest": "03".repeat(32), "status": 3, "code": 301, "fresh_prekey": true},
            {"msg_id": "04".repeat(16), "env_digest": "04".repeat(32), "status": 3, "code": 502, "retry_after_s": 30},
        ],
        "credits": [{"stream_id": "05".repeat(16), "next_index": 4, "window": 16, "state": 0}],
    })
}

#[test]
fn a_sealed_inner_message_passes_the_inner_checks() {
    let world = World::new();
    let bob = world.agent(2);
    let case = full_inner();
    let envelope = Envelope::decode(super::bytes(&case["envelope"])).unwrap();
    let envelope = envelope.verify_sender(&world.agent(1).verified).unwrap();
    let opened = bob.open(&envelope).unwrap();
    let message = InnerMessage::decode(opened.inner.clone()).unwrap();
    assert_eq!(check_inner(envelope.header(), &message), Ok(()));
    assert_eq!(hex::encode(crate::hash::sha256(&opened.inner)), hex::encode(opened.inner_digest()));
}
