//! Envelopes and their headers: read before anything about them is authenticated.

use std::{collections::HashSet, sync::OnceLock};

use murmur_core::limits::{ENVELOPE_BYTES_MAX, RECIPIENTS_MAX, SEAL_ATTEMPT_MAX, TTL_SECONDS_MAX};
use murmur_crypto::{
    envelope::Envelope,
    hash::EnvDigest,
    header::{CRIT_MAX, Header, REPLY_ROUTE_BYTES_MAX},
};

use super::{
    chain::check_reads_back,
    wire::{self, Value},
    world::{self, world},
};

pub(super) fn envelope_decode(bytes: &[u8]) {
    let Ok(envelope) = Envelope::decode(bytes.to_vec()) else { return };
    assert!(bytes.len() <= ENVELOPE_BYTES_MAX, "a limit was passed over");
    check_header(envelope.header());
    check_canonical(&envelope, bytes);
    if let Ok(Some(chain)) = envelope.chain() {
        check_reads_back(&chain);
    }
    check_belief(envelope);
}

/// Header bytes of a stranger's choice, in an envelope that is otherwise well-formed.
pub(super) fn header_decode(bytes: &[u8]) {
    let Some(fields) = wire::read(bytes) else { return };
    let stanza = wire::write(&[(1, b(&[1; 8])), (2, b(&[2; 32])), (3, b(&[3; 48]))]);
    let stanzas = vec![(1, Value::Bytes(stanza)); wire::count(&fields, 14).min(RECIPIENTS_MAX + 1)];
    let envelope = wire::write(&[
        (1, b(bytes)),
        (2, Value::Bytes(wire::write(&stanzas))),
        (3, b(&[4; 24])),
        (4, b(&[5; 300])),
        (5, b(&[6; 64])),
    ]);
    let Ok(envelope) = Envelope::decode(envelope) else { return };
    let header = envelope.header();
    check_header(header);
    // The second opinion.
    assert_eq!((wire::number(&fields, 1), wire::number(&fields, 2)), (2, 0x0201), "version and suite");
    assert_eq!(wire::bytes(&fields, 3), header.msg_id.as_bytes());
    assert_eq!(wire::bytes(&fields, 4), header.sender_agent_id.as_bytes());
    assert_eq!(wire::bytes(&fields, 5), header.sender_node_id.as_bytes());
    assert_eq!(wire::bytes(&fields, 6), header.sender_cert_fp.as_bytes());
    assert_eq!(wire::bytes(&fields, 7), header.conversation_id.as_bytes());
    assert_eq!(wire::number(&fields, 8), header.sequence);
    assert_eq!(wire::number(&fields, 10), header.created_at_ms);
    assert_eq!(wire::bytes(&fields, 13), header.key_commitment);
    assert_eq!(wire::count(&fields, 14), header.recipients.len());
    assert_eq!(wire::bytes(&fields, 16), header.reply_route.clone().unwrap_or_default().into_bytes());
}

fn b(bytes: &[u8]) -> Value {
    Value::Bytes(bytes.to_vec())
}

/// The rules within a header that was taken (PROTOCOL §4.1).
fn check_header(header: &Header) {
    assert!(header.sequence >= 1 && (1..=TTL_SECONDS_MAX).contains(&header.ttl_seconds));
    assert!(header.seal_attempt <= SEAL_ATTEMPT_MAX && header.crit.len() <= CRIT_MAX);
    assert!((1..=RECIPIENTS_MAX).contains(&header.recipients.len()));
    let distinct: HashSet<_> = header.recipients.iter().collect();
    assert_eq!(distinct.len(), header.recipients.len());
    assert!(!distinct.contains(&header.sender_agent_id), "reflected to its sender");
    if let Some(route) = &header.reply_route {
        assert!(route.len() <= REPLY_ROUTE_BYTES_MAX && route.starts_with("mm.in."));
        assert!(route.ends_with(&header.sender_node_id.hex()), "acknowledgements steered at a third party");
    }
    let (created_ms, ends_ms) = (header.created_at_ms, header.expires_at_ms());
    assert!(ends_ms >= created_ms);
    assert!(header.check_time(created_ms).is_ok(), "refused at the moment it was made");
    if ends_ms < u64::MAX {
        assert!(header.check_time(ends_ms + 1).is_err(), "taken after its time");
    }
}

/// Taken apart by another reader and written anew, it is the same copy.
fn check_canonical(envelope: &Envelope, bytes: &[u8]) {
    let Some(fields) = wire::read(bytes) else { return };
    let canonical: Vec<_> = (1..=6).map(|number| (number, Value::Bytes(wire::bytes(&fields, number)))).collect();
    let again = Envelope::decode(wire::write(&canonical)).expect("what was read is written anew and refused");
    assert_eq!(again.header(), envelope.header());
    assert_eq!(again.env_digest(), envelope.env_digest(), "two digests for one copy");
    assert_eq!(again.chain_bytes(), envelope.chain_bytes());
}

/// Only what Alice really sealed is hers, and opens.
fn check_belief(envelope: Envelope) {
    static REAL: OnceLock<EnvDigest> = OnceLock::new();
    let real = REAL.get_or_init(|| Envelope::decode(world::envelope()).unwrap().env_digest());
    let (alice, bob) = (&world().alice, &world().bob);
    let Ok(verified) = envelope.verify_sender(&alice.verified) else { return };
    assert_eq!(verified.env_digest(), *real, "a forgery passed for Alice's");
    let opened = verified.open(bob.id, |_| Some(&bob.secret)).expect("Alice's message does not open");
    assert_eq!(*opened.inner, *world::inner().encode().unwrap());
}
