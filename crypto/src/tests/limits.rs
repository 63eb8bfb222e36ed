//! Bytes that are too many, too few or of another time: refused early, with the protocol's code.

use bytes::Bytes;
use murmur_core::{code::Code, id::*, limits::BODY_BYTES_MAX};
use prost::Message as _;

use super::{
    forge::Forge,
    world::{NOW, World, key},
};
use crate::{
    ack::{AckBody, AckFrame, AckItem, AckStatus},
    envelope::Envelope,
    hash::{EnvDigest, Fingerprint},
    inner::{Attr, InnerMessage, Kind, StreamManifest},
    seal::{SealError, seal},
    wire,
};

/// An honest envelope whose wire header was changed.
fn with_header(change: impl FnOnce(&mut wire::EnvelopeHeader)) -> Code {
    let world = World::new();
    let (alice, bob) = (world.agent(1), world.agent(2));
    let bytes = Forge::honest(&alice, &[bob.recipient()]).encode(&alice.key);
    let mut envelope = wire::EnvelopeV2::decode(Bytes::from(bytes)).unwrap();
    let mut header = wire::EnvelopeHeader::decode(envelope.header.clone()).unwrap();
    change(&mut header);
    envelope.header = header.encode_to_vec().into();
    Envelope::decode(envelope.encode_to_vec()).err().unwrap().code
}

#[test]
fn other_versions_and_suites_are_refused() {
    for version in [0, 1, 3] {
        assert_eq!(with_header(|header| header.version = version), Code::VersionUnsupported);
    }
    for suite in [0, 0x0001, 0x0202, 0x0301, 0xffff] {
        assert_eq!(with_header(|header| header.suite = suite), Code::SuiteUnsupported);
    }
}

#[test]
fn every_header_rule_is_checked() {
    let other = Bytes::from_static(&[9; 16]);
    let changes: [fn(&mut wire::EnvelopeHeader); 14] = [
        |header| header.msg_id = Bytes::from_static(&[9; 15]),
        |header| header.sender_agent_id = Bytes::new(),
        |header| header.sender_node_id = Bytes::from_static(&[9; 17]),
        |header| header.sender_cert_fp = Bytes::from_static(&[9; 31]),
        |header| header.conversation_id = Bytes::new(),
        |header| header.key_commitment = Bytes::from_static(&[9; 33]),
        |header| header.sequence = 0,
        |header| header.ttl_seconds = 0,
        |header| header.ttl_seconds = 604_801,
        |header| header.seal_attempt = 4,
        |header| header.recipients = Vec::new(),
        |header| header.recipients = vec![header.sender_agent_id.clone()],
        |header| header.crit = vec![1; 17],
        |header| header.reply_route = format!("mm.in.local.00.{}.{}", "5a".repeat(16), "09".repeat(16)),
    ];
    for change in changes {
        assert_eq!(with_header(change), Code::Malformed);
    }
    assert_eq!(with_header(|header| header.recipients.push(other)), Code::Malformed, "more recipients than stanzas");
    assert_eq!(with_header(|header| header.recipients = vec![header.recipients[0].clone(); 2]), Code::Malformed);
}

#[test]
fn floods_of_fields_are_refused_before_they_cost_anything() {
    let ids = (0..257_u32).map(|n| Bytes::from([n.to_be_bytes(); 4].concat())).collect::<Vec<_>>();
    assert_eq!(with_header(|header| header.recipients = ids), Code::Malformed, "257 recipients");
    let empty = vec![Bytes::new(); 1_000_000];
    assert_eq!(with_header(|header| header.recipients = empty), Code::TooLarge, "a million recipients");
    assert_eq!(with_header(|header| header.reply_route = "x".repeat(17 * 1024)), Code::TooLarge, "a long header");
    let nested = [0x0a, 0x7f].repeat(100_000);
    assert_eq!(Envelope::decode(nested).err().unwrap().code, Code::Malformed);
    assert_eq!(Envelope::decode(vec![0; 320 * 1024 + 1]).err().unwrap().code, Code::TooLarge);
}

#[test]
fn the_reply_route_is_the_senders_own() {
    let world = World::new();
    let (alice, bob) = (world.agent(1), world.agent(2));
    let recipients = [bob.recipient()];
    let route = |node: NodeId| format!("mm.in.local.00.{}.{}", "5a".repeat(16), node.hex());
    let own = route(alice.verified.node_id());
    let mut request = alice.request(&recipients, b"hello");
    request.reply_route = Some(&own);
    let sealed = seal(&alice.key, &request).unwrap();
    assert_eq!(Envelope::decode(sealed.bytes).unwrap().header().reply_route.as_deref(), Some(own.as_str()));
    let others = route(NodeId::from_bytes([9; 16]));
    request.reply_route = Some(&others);
    assert!(matches!(seal(&alice.key, &request), Err(SealError::Header(error)) if error.field == "reply_route"));
}

#[test]
fn sealing_refuses_what_cannot_be_sent() {
    let world = World::new();
    let (alice, bob) = (world.agent(1), world.agent(2));
    let recipients = [bob.recipient()];
    let huge = vec![0; 330 * 1024];
    assert!(matches!(seal(&alice.key, &alice.request(&recipients, &huge)), Err(SealError::TooLarge(_))));
    let twice = [bob.recipient(), bob.recipient()];
    assert!(matches!(seal(&alice.key, &alice.request(&twice, b"")), Err(SealError::Header(_))));
    let own = [alice.recipient()];
    assert!(matches!(seal(&alice.key, &alice.request(&own, b"")), Err(SealError::Header(_))));
}

#[test]
fn inner_limits_hold_both_ways() {
    let plain = || InnerMessage::new(Kind::Message, ConversationId::from_bytes([1; 16]), "hi");
    let attr = |key: usize, value: usize| Attr { key: "k".repeat(key), value: "v".repeat(value) };
    let stream = StreamManifest {
        stream_id: [1; 16],
        nonce_prefix: [2; 19],
        chunk_size: 131_072,
        total_size: None,
        filename: "a.txt".to_owned(),
        content_type: String::new(),
        sha256: None,
    };
    let open = |stream: StreamManifest| InnerMessage { kind: Kind::StreamOpen, stream: Some(stream), ..plain() };
    assert!(open(stream.clone()).encode().is_ok());
    let bad = [
        ("body", InnerMessage { body: vec![0; BODY_BYTES_MAX + 1].into(), ..plain() }),
        ("content_type", InnerMessage { content_type: "x".repeat(129), ..plain() }),
        ("attrs", InnerMessage { attrs: vec![attr(1, 1); 17], ..plain() }),
        ("attrs", InnerMessage { attrs: vec![attr(0, 1)], ..plain() }),
        ("attrs.key", InnerMessage { attrs: vec![attr(65, 1)], ..plain() }),
        ("attrs.value", InnerMessage { attrs: vec![attr(1, 257)], ..plain() }),
        ("tracestate", InnerMessage { tracestate: Some("x".repeat(513)), ..plain() }),
        ("stream", InnerMessage { kind: Kind::StreamOpen, ..plain() }),
        ("in_reply_to", InnerMessage { kind: Kind::Reply, ..plain() }),
        ("deadline_ms", InnerMessage { deadline_ms: Some(1), ..plain() }),
        ("filename", open(StreamManifest { filename: "../../x".to_owned(), ..stream.clone() })),
        ("filename", open(StreamManifest { filename: "..".to_owned(), ..stream.clone() })),
        ("chunk_size", open(StreamManifest { chunk_size: 131_073, ..stream.clone() })),
        ("total_size", open(StreamManifest { total_size: Some((1 << 30) + 1), ..stream })),
    ];
    for (field, message) in bad {
        assert_eq!(message.encode().unwrap_err().field, field);
    }
    let unspecified = wire::InnerV2 { conversation_id: Bytes::from_static(&[1; 16]), ..wire::InnerV2::default() };
    assert_eq!(InnerMessage::decode(unspecified.encode_to_vec()).unwrap_err().field, "kind");
    assert!(InnerMessage::decode(vec![0x12; BODY_BYTES_MAX * 2]).is_err());
}

#[test]
fn an_acknowledgement_is_bounded_and_exact() {
    let item =
        |status| AckItem { msg_id: MessageId::from_bytes([1; 16]), env_digest: EnvDigest::from_bytes([2; 32]), status };
    let body = |items| AckBody {
        acker_agent_id: AgentId::from_bytes([3; 16]),
        acker_cert_fp: Fingerprint::from_bytes([4; 32]),
        sender_agent_id: AgentId::from_bytes([5; 16]),
        at_ms: NOW,
        items,
        credits: Vec::new(),
    };
    assert!(body(vec![item(AckStatus::Read); 64]).sign(&key(1), None).is_ok());
    assert_eq!(body(vec![item(AckStatus::Read); 65]).sign(&key(1), None).unwrap_err().field, "items");
    let world = World::new();
    let prekey = world.node.statement().clone();
    let failed = |code| AckStatus::Failed { code, retry_after_s: Some(3), fresh_prekey: Some(prekey.clone()) };
    let signed = body(vec![item(failed(Code::KeyUnknown))]).sign(&key(1), None).unwrap();
    let read = AckFrame::decode(signed).unwrap().verify(&key(1).public()).unwrap();
    assert!(read.items[0].status == failed(Code::KeyUnknown));
    let misplaced = body(vec![item(failed(Code::PolicyDenied))]).sign(&key(1), None);
    assert_eq!(misplaced.unwrap_err().field, "fresh_prekey");

    let unknown = wire::AckItem { status: 3, code: 999, ..wire::AckItem::default() };
    let mut frame = wire::AckBody { version: 2, items: vec![unknown], ..wire::AckBody::default() };
    frame.acker_agent_id = Bytes::from_static(&[3; 16]);
    frame.sender_agent_id = Bytes::from_static(&[5; 16]);
    frame.acker_cert_fp = Bytes::from_static(&[4; 32]);
    let frame =
        wire::AckFrame { body: frame.encode_to_vec().into(), signature: vec![0; 64].into(), ..Default::default() };
    assert_eq!(AckFrame::decode(frame.encode_to_vec()).err().unwrap().field, "code");
}
