//! The attacks of PROTOCOL §7.1 on envelopes and acknowledgements, by name.

use murmur_core::{code::Code, id::*};

use super::{
    forge::{Forge, content_key},
    world::{NOW, World, key, receive},
};
use crate::{
    ack::{AckBody, AckFrame, AckItem, AckStatus},
    envelope::{Envelope, OpenError, SenderError},
    hash::{EnvDigest, Fingerprint},
    header::Header,
    inner::{ConversationMismatch, InnerMessage, Kind, check_inner, dm_conversation_id},
    seal::seal,
};

#[test]
fn an_honest_copy_opens() {
    let world = World::new();
    let (alice, bob) = (world.agent(1), world.agent(2));
    let envelope = Forge::honest(&alice, &[bob.recipient()]).sign(&alice.key);
    assert_eq!(bob.open(&envelope).unwrap().inner, "hello");
}

#[test]
fn every_single_bit_counts() {
    let world = World::new();
    let (alice, bob) = (world.agent(1), world.agent(2));
    let recipients = [bob.recipient()];
    let sealed = seal(&alice.key, &alice.request(&recipients, b"hello")).unwrap().bytes.to_vec();
    assert_eq!(receive(&world, &bob, &sealed).unwrap(), b"hello");
    for bit in 0..sealed.len() * 8 {
        let mut flipped = sealed.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(receive(&world, &bob, &flipped).is_none(), "bit {bit} does not count");
    }
}

#[test]
fn a_swapped_signature_is_refused() {
    let world = World::new();
    let (alice, bob, mallory) = (world.agent(1), world.agent(2), world.agent(3));
    let resigned = Forge::honest(&alice, &[bob.recipient()]).encode(&mallory.key);
    let envelope = Envelope::decode(resigned).unwrap();
    assert_eq!(envelope.clone().verify_sender(&alice.verified).err().unwrap().code(), Code::BadSignature);
    assert_eq!(envelope.verify_sender(&mallory.verified).err(), Some(SenderError::Mismatch));
}

#[test]
fn resigning_as_mallory_does_not_open() {
    let world = World::new();
    let (alice, bob, mallory) = (world.agent(1), world.agent(2), world.agent(3));
    let mut stolen = Forge::honest(&alice, &[bob.recipient()]);
    stolen.header.sender_agent_id = mallory.id;
    stolen.header.sender_cert_fp = mallory.chain.leaf().fp();
    let envelope = Envelope::decode(stolen.encode(&mallory.key)).unwrap().verify_sender(&mallory.verified).unwrap();
    assert_eq!(bob.open(&envelope).err(), Some(OpenError::DecryptFailed));
}

#[test]
fn changing_any_header_field_breaks_signature_and_keys() {
    let world = World::new();
    let (alice, bob) = (world.agent(1), world.agent(2));
    let changes: [fn(&mut Header); 12] = [
        |header| header.msg_id = MessageId::from_bytes([9; 16]),
        |header| header.sender_agent_id = AgentId::from_bytes([9; 16]),
        |header| header.sender_node_id = NodeId::from_bytes([9; 16]),
        |header| header.sender_cert_fp = Fingerprint::from_bytes([9; 32]),
        |header| header.conversation_id = ConversationId::from_bytes([9; 16]),
        |header| header.sequence += 1,
        |header| header.sequence_epoch += 1,
        |header| header.created_at_ms += 1,
        |header| header.ttl_seconds += 1,
        |header| header.seal_attempt += 1,
        |header| header.key_commitment[0] ^= 1,
        |header| header.crit = vec![3],
    ];
    let honest = Envelope::decode(Forge::honest(&alice, &[bob.recipient()]).encode(&alice.key)).unwrap();
    for change in changes {
        let mut forge = Forge::honest(&alice, &[bob.recipient()]);
        change(&mut forge.header);
        assert_ne!(forge.header, *honest.header());
        assert_eq!(bob.open(&forge.sign(&alice.key)).err(), Some(OpenError::DecryptFailed));
    }
}

#[test]
fn stanzas_do_not_move() {
    let world = World::new();
    let (alice, bob, carol) = (world.agent(1), world.agent(2), world.agent(3));
    let mut swapped = Forge::honest(&alice, &[bob.recipient(), carol.recipient()]);
    swapped.stanzas.swap(0, 1);
    let envelope = swapped.sign(&alice.key);
    // Each finds the other's prekey id; even a reader who holds both keys cannot use the stanza in this place.
    assert_eq!(bob.open(&envelope).err(), Some(OpenError::KeyUnknown(carol.prekey.id)));
    assert_eq!(envelope.open(bob.id, |_| Some(&carol.secret)).err(), Some(OpenError::DecryptFailed));

    let other = Forge::honest(&alice, &[carol.recipient(), bob.recipient()]);
    let mut foreign = Forge::honest(&alice, &[bob.recipient(), carol.recipient()]);
    foreign.stanzas[0] = other.stanzas[1].clone();
    assert_eq!(bob.open(&foreign.sign(&alice.key)).err(), Some(OpenError::DecryptFailed));
}

#[test]
fn two_readers_never_get_two_texts() {
    let world = World::new();
    let (alice, bob, carol) = (world.agent(1), world.agent(2), world.agent(3));
    let mut salamander = Forge::honest(&alice, &[bob.recipient(), carol.recipient()]);
    salamander.stanzas[1] = salamander.stanza(1, &carol.recipient(), &content_key(0x45));
    let envelope = salamander.sign(&alice.key);
    assert!(bob.open(&envelope).is_ok());
    assert_eq!(carol.open(&envelope).err(), Some(OpenError::CommitmentMismatch));
}

#[test]
fn padding_must_be_exact() {
    let world = World::new();
    let (alice, bob) = (world.agent(1), world.agent(2));
    let changes: [fn(&mut Vec<u8>); 3] =
        [|padded| *padded.last_mut().unwrap() = 1, |padded| padded.push(0), |padded| padded.truncate(16)];
    for change in changes {
        let mut forge = Forge::honest(&alice, &[bob.recipient()]);
        change(&mut forge.padded);
        assert_eq!(bob.open(&forge.sign(&alice.key)).err(), Some(OpenError::BadPadding));
    }
}

#[test]
fn a_low_order_ephemeral_key_opens_nothing() {
    let world = World::new();
    let (alice, bob) = (world.agent(1), world.agent(2));
    for first in [0, 1] {
        let mut forge = Forge::honest(&alice, &[bob.recipient()]);
        forge.stanzas[0].enc = [0; 32];
        forge.stanzas[0].enc[0] = first;
        assert_eq!(bob.open(&forge.sign(&alice.key)).err(), Some(OpenError::DecryptFailed));
    }
}

#[test]
fn only_the_addressed_read() {
    let world = World::new();
    let (alice, bob, carol) = (world.agent(1), world.agent(2), world.agent(3));
    let envelope = Forge::honest(&alice, &[bob.recipient()]).sign(&alice.key);
    assert_eq!(carol.open(&envelope).err(), Some(OpenError::NotAddressed));
    assert_eq!(alice.open(&envelope).err(), Some(OpenError::NotAddressed), "reflected to its sender");
}

#[test]
fn an_unknown_critical_field_stops_the_reader() {
    let world = World::new();
    let (alice, bob) = (world.agent(1), world.agent(2));
    let mut forge = Forge::honest(&alice, &[bob.recipient()]);
    forge.header.crit = vec![8, 17];
    assert_eq!(bob.open(&forge.sign(&alice.key)).err(), Some(OpenError::CritUnknown(17)));
}

#[test]
fn a_message_does_not_move_to_another_conversation() {
    let world = World::new();
    let (alice, bob, carol) = (world.agent(1), world.agent(2), world.agent(3));
    let envelope = Forge::honest(&alice, &[bob.recipient()]).sign(&alice.key);
    let header = envelope.header();
    let inner = InnerMessage::new(Kind::Message, header.conversation_id, "hi");
    assert_eq!(check_inner(header, &inner), Ok(()));
    let elsewhere = dm_conversation_id(alice.id, carol.id);
    let other_inside = InnerMessage::new(Kind::Message, elsewhere, "hi");
    assert_eq!(check_inner(header, &other_inside), Err(ConversationMismatch));
    let both_wrong = Header { conversation_id: elsewhere, ..header.clone() };
    assert_eq!(check_inner(&both_wrong, &other_inside), Err(ConversationMismatch));
    let channel = InnerMessage { channel_epoch: 1, ..other_inside };
    assert_eq!(check_inner(&both_wrong, &channel), Ok(()));
}

#[test]
fn times_are_bounded_on_both_sides() {
    let world = World::new();
    let (alice, bob) = (world.agent(1), world.agent(2));
    let header = Forge::honest(&alice, &[bob.recipient()]).header;
    assert_eq!(header.check_time(NOW), Ok(()));
    assert_eq!(header.check_time(NOW + 60_000), Ok(()));
    assert_eq!(header.check_time(NOW + 60_001), Err(Code::Expired));
    assert_eq!(header.check_time(NOW - 300_000), Ok(()));
    assert_eq!(header.check_time(NOW - 300_001), Err(Code::ClockSkew));
    let ancient = Header { created_at_ms: 0, ttl_seconds: 604_800, ..header };
    assert_eq!(ancient.check_time(NOW), Err(Code::Expired));
}

#[test]
fn only_the_acker_acknowledges_and_only_its_copy() {
    let world = World::new();
    let (alice, bob, mallory) = (world.agent(1), world.agent(2), world.agent(3));
    let recipients = [bob.recipient()];
    let copies = [(); 2].map(|()| seal(&alice.key, &alice.request(&recipients, b"hello")).unwrap());
    assert_ne!(copies[0].env_digest, copies[1].env_digest, "each sealed copy has its own name");
    let item = AckItem {
        msg_id: MessageId::new_v7(NOW, [7; 10]),
        env_digest: copies[0].env_digest,
        status: AckStatus::Delivered,
    };
    let body = AckBody {
        acker_agent_id: bob.id,
        acker_cert_fp: bob.chain.leaf().fp(),
        sender_agent_id: alice.id,
        at_ms: NOW,
        items: vec![item],
        credits: Vec::new(),
    };
    let honest = AckFrame::decode(body.sign(&bob.key, Some(&bob.chain)).unwrap()).unwrap();
    assert!(honest.chain().unwrap() == Some(bob.chain.clone()));
    assert!(honest.clone().verify_sender(&bob.verified).unwrap() == body);
    assert_eq!(honest.verify_sender(&mallory.verified).err(), Some(SenderError::Mismatch));

    let forged = AckFrame::decode(body.sign(&mallory.key, None).unwrap()).unwrap();
    assert_eq!(forged.verify_sender(&bob.verified).err().unwrap().code(), Code::BadSignature);

    let mut bytes = body.sign(&bob.key, None).unwrap().to_vec();
    let digest = copies[0].env_digest.as_bytes();
    let at = bytes.windows(32).position(|window| window == digest).unwrap();
    bytes[at..at + 32].copy_from_slice(copies[1].env_digest.as_bytes());
    let moved = AckFrame::decode(bytes).unwrap();
    assert_eq!(moved.claimed().items[0].env_digest, copies[1].env_digest);
    assert!(moved.verify_sender(&bob.verified).is_err(), "an acknowledgement moved to another copy");
}

#[test]
fn a_copy_is_named_by_its_signature_too() {
    let world = World::new();
    let (alice, bob) = (world.agent(1), world.agent(2));
    let forge = Forge::honest(&alice, &[bob.recipient()]);
    let other = key(9);
    let digest = |signer| Envelope::decode(forge.encode(signer)).unwrap().env_digest();
    assert_ne!(digest(&alice.key), digest(&other));
    assert_ne!(digest(&alice.key), EnvDigest::from_bytes([0; 32]));
}
