//! Properties: whatever is sealed opens, whatever is encoded decodes, and no bytes at all make a decoder panic.

use bytes::Bytes;
use murmur_core::{code::Code, id::*};
use proptest::{collection::vec, option, prelude::*, sample::Index};
use zeroize::Zeroizing;

use super::world::{Agent, NOW, World, receive};
use crate::{
    ack::{AckBody, AckFrame, AckItem, AckStatus, Credit, CreditState},
    cert::Certificate,
    chain::Chain,
    chunk::{ChunkCipher, ChunkFrame, StreamKey},
    envelope::Envelope,
    hash::{EnvDigest, Fingerprint},
    hazmat::SealRandomness,
    inner::{Attr, InnerMessage, KeyLogHead, Kind, Priority, StreamManifest},
    invite::Invite,
    keylog::KeyLog,
    seal::{Recipient, seal, seal_with},
    statement::Statement,
    wire,
};

fn every_reader_opens(readers: u16, inner: &[u8]) {
    let world = World::new();
    let alice = world.agent(0);
    let readers: Vec<Agent> = (1..=readers).map(|number| world.agent(number)).collect();
    let recipients: Vec<Recipient> = readers.iter().map(Agent::recipient).collect();
    let sealed = seal(&alice.key, &alice.request(&recipients, inner)).unwrap();
    assert_eq!(Envelope::decode(sealed.bytes.clone()).unwrap().env_digest(), sealed.env_digest);
    for reader in &readers {
        assert_eq!(receive(&world, reader, &sealed.bytes).unwrap(), inner);
    }
}

#[test]
fn two_hundred_and_fifty_six_readers_open() {
    every_reader_opens(256, b"hello everyone");
}

#[test]
fn what_was_encapsulated_before_is_for_its_recipient_and_for_no_other() {
    let world = World::new();
    let [alice, bob, carol] = [0, 1, 2].map(|number| world.agent(number));
    let randomness = |readers: usize| SealRandomness {
        cek: Zeroizing::new([1; 32]),
        payload_nonce: [2; 24],
        hpke_ikm_e: Zeroizing::new(vec![[3; 32]; readers]),
    };
    for readers in [vec![&bob], vec![&bob, &carol]] {
        let recipients: Vec<Recipient> = readers.iter().map(|reader| reader.recipient()).collect();
        let request = alice.request(&recipients, b"hello");
        let sealed = |to: Option<&Agent>| {
            let encapsulation = to.and_then(|to| to.recipient().public.encapsulate(None));
            assert_eq!(encapsulation.is_some(), to.is_some());
            seal_with(&alice.key, &request, &randomness(readers.len()), encapsulation).unwrap().bytes
        };
        let stanzas = |bytes: &Bytes| {
            let parts: wire::EnvelopeV2 = prost::Message::decode(bytes.clone()).unwrap();
            let list: wire::StanzaList = prost::Message::decode(parts.stanzas).unwrap();
            list.stanzas.into_iter().map(|stanza| stanza.enc).collect::<Vec<_>>()
        };
        let plain = stanzas(&sealed(None));
        for to in [&bob, &carol] {
            let bytes = sealed(Some(to));
            for ((reader, enc), plain) in readers.iter().zip(stanzas(&bytes)).zip(&plain) {
                assert_eq!(enc != *plain, reader.recipient() == to.recipient());
                assert_eq!(receive(&world, reader, &bytes).unwrap(), b"hello");
            }
        }
    }
}

fn inner_message() -> impl Strategy<Value = InnerMessage> {
    let kind = prop_oneof![
        Just(Kind::Message),
        Just(Kind::Request),
        Just(Kind::Reply),
        Just(Kind::StreamOpen),
        Just(Kind::Control)
    ];
    let stream = (any::<[u8; 16]>(), any::<[u8; 19]>(), 1..=131_072_u32, option::of(1..=1_u64 << 30), "[a-z.]{3,20}")
        .prop_map(|(stream_id, nonce_prefix, chunk_size, total_size, filename)| StreamManifest {
            stream_id,
            nonce_prefix,
            chunk_size,
            total_size,
            filename: format!("f{filename}"),
            content_type: "text/plain".to_owned(),
            sha256: total_size.map(|_| [3; 32]),
        });
    let attrs = vec(("[a-z]{1,64}", "\\PC{0,60}"), 0..=16);
    let log = option::of((any::<[u8; 16]>(), any::<u64>(), any::<[u8; 32]>()));
    let ids = (any::<[u8; 16]>(), any::<[u8; 16]>(), option::of(any::<[u8; 16]>()));
    let rest = ("[a-z/]{0,128}", option::of("[0-9a-f-]{1,55}"), any::<bool>(), any::<u64>(), 1_u64..);
    (kind, vec(any::<u8>(), 0..2000), stream, attrs, log, ids, rest).prop_map(
        |(
            kind,
            body,
            stream,
            attrs,
            log,
            (conversation, reply, parent),
            (content_type, trace, high, epoch, deadline),
        )| {
            let mut message = InnerMessage::new(kind, ConversationId::from_bytes(conversation), body);
            if !content_type.is_empty() {
                message.content_type = content_type;
            }
            message.parent_msg_id = parent.map(MessageId::from_bytes);
            message.in_reply_to = (kind == Kind::Reply).then(|| MessageId::from_bytes(reply));
            message.deadline_ms = (kind == Kind::Request).then_some(deadline);
            message.stream = (kind == Kind::StreamOpen).then_some(stream);
            message.tracestate = trace.clone();
            message.traceparent = trace;
            message.attrs = attrs.into_iter().map(|(key, value)| Attr { key, value }).collect();
            message.log_head = log.map(|(id, size, head)| KeyLogHead {
                workspace_id: WorkspaceId::from_bytes(id),
                log: KeyLog { size, head },
            });
            message.priority = if high { Priority::High } else { Priority::Normal };
            message.channel_epoch = epoch;
            message
        },
    )
}

fn ack_body() -> impl Strategy<Value = AckBody> {
    let status = prop_oneof![
        Just(AckStatus::Delivered),
        Just(AckStatus::Read),
        (0..Code::ALL.len(), option::of(1_u32..)).prop_map(|(at, retry_after_s)| AckStatus::Failed {
            code: Code::ALL[at],
            retry_after_s,
            fresh_prekey: None,
        }),
    ];
    let item = (any::<[u8; 16]>(), any::<[u8; 32]>(), status).prop_map(|(id, digest, status)| AckItem {
        msg_id: MessageId::from_bytes(id),
        env_digest: EnvDigest::from_bytes(digest),
        status,
    });
    let state = prop_oneof![Just(CreditState::Open), Just(CreditState::Done), Just(CreditState::Cancel)];
    let credit = (any::<[u8; 16]>(), any::<u32>(), 0..=64_u32, state)
        .prop_map(|(stream_id, next_index, window, state)| Credit { stream_id, next_index, window, state });
    let ids = (any::<[u8; 16]>(), any::<[u8; 16]>(), any::<[u8; 32]>());
    (ids, any::<u64>(), vec(item, 0..=64), vec(credit, 0..=16)).prop_map(
        |((acker, sender, fp), at_ms, items, credits)| AckBody {
            acker_agent_id: AgentId::from_bytes(acker),
            acker_cert_fp: Fingerprint::from_bytes(fp),
            sender_agent_id: AgentId::from_bytes(sender),
            at_ms,
            items,
            credits,
        },
    )
}

/// Feeds bytes to every decoder; what decodes must encode again.
fn decode_everything(bytes: &[u8]) {
    if let Ok(envelope) = Envelope::decode(bytes.to_vec()) {
        let _ = envelope.chain();
    }
    if let Ok(frame) = AckFrame::decode(bytes.to_vec()) {
        let _ = frame.chain();
    }
    if let Ok(inner) = InnerMessage::decode(Bytes::copy_from_slice(bytes)) {
        inner.encode().unwrap();
    }
    if let Ok(chain) = Chain::decode(bytes.to_vec()) {
        assert!(Chain::decode(chain.encode()).unwrap() == chain);
    }
    if let Ok(certificate) = Certificate::decode(bytes.to_vec()) {
        assert!(Certificate::decode(certificate.encode()).unwrap() == certificate);
    }
    let _ = Statement::decode(bytes.to_vec());
    let _ = ChunkFrame::decode(bytes.to_vec());
    let _ = Invite::read(&String::from_utf8_lossy(bytes), NOW);
    let _ = Invite::read(&format!("MURMUR:{}", data_encoding::BASE64URL_NOPAD.encode(bytes)), NOW);
}

/// One valid message of each sort, to be mutated.
fn specimens() -> Vec<Vec<u8>> {
    let world = World::new();
    let (alice, bob) = (world.agent(1), world.agent(2));
    let inner = InnerMessage::new(Kind::Message, ConversationId::from_bytes([1; 16]), "hello").encode().unwrap();
    let recipients = [bob.recipient()];
    let body = AckBody {
        acker_agent_id: bob.id,
        acker_cert_fp: bob.chain.leaf().fp(),
        sender_agent_id: alice.id,
        at_ms: NOW,
        items: vec![AckItem {
            msg_id: MessageId::from_bytes([1; 16]),
            env_digest: EnvDigest::from_bytes([2; 32]),
            status: AckStatus::Read,
        }],
        credits: Vec::new(),
    };
    vec![
        seal(&alice.key, &alice.request(&recipients, &inner)).unwrap().bytes.to_vec(),
        body.sign(&bob.key, Some(&bob.chain)).unwrap().to_vec(),
        inner.to_vec(),
        alice.chain.encode(),
        world.node.encode(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn what_is_sealed_opens(readers in 1..=8_u16, inner in vec(any::<u8>(), 0..5000)) {
        every_reader_opens(readers, &inner);
    }
}

proptest! {
    #[test]
    fn an_inner_message_reads_back(message in inner_message()) {
        let bytes = message.encode().unwrap();
        prop_assert!(InnerMessage::decode(bytes).unwrap() == message);
    }

    #[test]
    fn an_acknowledgement_reads_back(body in ack_body()) {
        let world = super::world::key(4);
        let frame = AckFrame::decode(body.sign(&world, None).unwrap()).unwrap();
        prop_assert!(frame.verify(&world.public()).unwrap() == body);
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in vec(any::<u8>(), 0..600)) {
        decode_everything(&bytes);
    }

    #[test]
    fn no_mutation_makes_a_decoder_panic(
        edits in vec((any::<Index>(), any::<u8>(), 0..3_u8), 1..6),
    ) {
        for mut bytes in specimens() {
            for (at, byte, edit) in &edits {
                if bytes.is_empty() {
                    break;
                }
                let at = at.index(bytes.len());
                match edit {
                    0 => bytes[at] = *byte,
                    1 => bytes.insert(at, *byte),
                    _ => bytes.truncate(at),
                }
            }
            decode_everything(&bytes);
        }
    }

    #[test]
    fn chunks_read_back_only_in_their_place(
        plaintext in vec(any::<u8>(), 0..2000), index in any::<u32>(), last in any::<bool>(), other in any::<u32>(),
    ) {
        let key = StreamKey::from_bytes(&[7; 64]);
        let cipher = ChunkCipher::new(&key, &[1; 16], &[2; 19]);
        let ciphertext = cipher.encrypt(index, last, &plaintext).unwrap();
        let frame = ChunkFrame { stream_id: [1; 16], index, last, ciphertext: ciphertext.clone().into() };
        prop_assert_eq!(&ChunkFrame::decode(frame.encode()).unwrap(), &frame);
        prop_assert_eq!(&*cipher.decrypt(index, last, &ciphertext).unwrap(), &plaintext);
        prop_assert!(cipher.decrypt(index, !last, &ciphertext).is_err());
        prop_assert_eq!(cipher.decrypt(other, last, &ciphertext).is_ok(), other == index);
        let elsewhere = ChunkCipher::new(&key, &[9; 16], &[2; 19]);
        prop_assert!(elsewhere.decrypt(index, last, &ciphertext).is_err(), "a chunk of another stream");
        let restored = StreamKey::from_bytes(&key.to_bytes());
        prop_assert!(ChunkCipher::new(&restored, &[1; 16], &[2; 19]).decrypt(index, last, &ciphertext).is_ok());
    }
}
