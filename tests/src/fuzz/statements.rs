//! Statements and signed frames: read before the signature, and after it from somebody who signs what it likes.

use bytes::Bytes;
use data_encoding::BASE64URL_NOPAD;
use murmur_core::limits::{
    ACK_CREDITS_MAX, ACK_ITEMS_MAX, ATTRS_MAX, BODY_BYTES_MAX, INVITE_LIFE_MS_MAX, REVOCATION_LIST_LIFE_MS_MAX,
};
use murmur_crypto::{
    ack::{ACK_BYTES_MAX, AckFrame},
    inner::{INNER_BYTES_MAX, InnerMessage},
    invite::{Invite, InviteError, PREFIX},
    keys::IdentityKey,
    prekey,
    revocation::{REASON_BYTES_MAX, RevocationList, Revoked},
    statement::Statement,
};

use super::{
    forge, wire,
    world::{self, ALICE_SEED, NODE_SEED, NOW_MS, ROOT_SEED, world},
};

/// The inner message of somebody who sealed what it likes.
pub(super) fn inner_decode(bytes: &[u8]) {
    let Ok(inner) = InnerMessage::decode(Bytes::copy_from_slice(bytes)) else { return };
    assert!(bytes.len() <= INNER_BYTES_MAX && inner.body.len() <= BODY_BYTES_MAX && inner.attrs.len() <= ATTRS_MAX);
    let again = inner.encode().expect("what was read cannot be written");
    assert!(InnerMessage::decode(again).expect("what was written cannot be read") == inner);
    if let Some(stream) = &inner.stream {
        let name = &stream.filename;
        assert!(!name.contains(['/', '\\', '\0']) && name != ".." && name != ".", "a path for a file name: {name}");
    }
}

pub(super) fn ack_decode(bytes: &[u8]) {
    let Ok(frame) = AckFrame::decode(bytes.to_vec()) else { return };
    let body = frame.claimed().clone();
    assert!(bytes.len() <= ACK_BYTES_MAX);
    assert!(body.items.len() <= ACK_ITEMS_MAX && body.credits.len() <= ACK_CREDITS_MAX);
    let bob = &world().bob;
    let again = body.sign(&bob.key, None).expect("what was read cannot be written");
    let again = AckFrame::decode(again).expect("what was written cannot be read");
    assert!(*again.claimed() == body);
    if let Ok(believed) = frame.verify_sender(&bob.verified) {
        assert!(believed == world::ack_body(), "a forgery passed for Bob's");
    }
}

/// A prekey's body of Alice's own making.
pub(super) fn prekey_verify(bytes: &[u8]) {
    let alice = &world().alice;
    let Ok(statement) = Statement::decode(forge::statement("murmur/2 prekey", bytes, &ALICE_SEED)) else { return };
    assert_eq!(Statement::decode(statement.encode()).as_ref().map(Statement::body), Ok(&Bytes::copy_from_slice(bytes)));
    let Ok(prekey) = prekey::verify(&statement, alice.chain.leaf(), NOW_MS, 5) else { return };
    let Some(fields) = wire::read(bytes) else { return };
    assert_eq!(wire::bytes(&fields, 3), alice.id.as_bytes(), "another agent's prekey");
    assert_eq!(wire::bytes(&fields, 4), alice.chain.leaf().fp().as_bytes(), "under another certificate");
    assert_eq!((wire::number(&fields, 1), wire::number(&fields, 2)), (2, 0x0201), "version and suite");
    assert!(wire::number(&fields, 6) >= 5, "older than one seen before");
    assert!(prekey.not_after_ms >= NOW_MS, "past its time");
    assert_eq!(wire::number(&fields, 9), prekey.not_after_ms);
}

/// Text that somebody pasted.
pub(super) fn invite_parse(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(invite) = Invite::read(&text, NOW_MS) {
        assert!(invite == world::invite(), "nobody made this invite");
    }
    // The same bytes as what follows the prefix.
    let text = format!("{PREFIX}{}", BASE64URL_NOPAD.encode(bytes));
    match Invite::read(&text, NOW_MS) {
        Ok(invite) => assert!(invite == world::invite(), "nobody made this invite"),
        Err(InviteError::VersionOne) => assert_eq!(bytes.first(), Some(&b'{')),
        Err(InviteError::Format(format)) => assert_eq!(bytes.first(), Some(&format)),
        Err(_) => {}
    }
}

/// An invite's body of the owner's own making.
pub(super) fn invite_body(bytes: &[u8]) {
    let statement = forge::statement("murmur/2 invite", bytes, &ROOT_SEED);
    let text = format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&[vec![2], statement].concat()));
    let Ok(invite) = Invite::read(&text, NOW_MS) else { return };
    assert!((NOW_MS..=NOW_MS + 2 * INVITE_LIFE_MS_MAX).contains(&invite.expires_ms) && invite.max_uses >= 1);
    assert!(invite.root == world().root, "another root's invite under this root's signature");
    let again = invite.sign(&IdentityKey::from_seed(&ROOT_SEED)).expect("it cannot be written");
    assert!(Invite::read(&again, NOW_MS).expect("what was written cannot be read") == invite);
}

/// A list that somebody sent, and one whose body is of the owner's own making.
pub(super) fn revocation_list(bytes: &[u8]) {
    let root = &world().root;
    if let Ok(list) = RevocationList::decode(bytes.to_vec(), root) {
        assert!(*list.spec() == world::revocations(), "nobody signed this list");
    }
    let signed = forge::statement("murmur/2 crl", bytes, &ROOT_SEED);
    assert!(
        RevocationList::decode(forge::statement("murmur/2 crl", bytes, &NODE_SEED), root).is_err(),
        "a node's list passed for the root's"
    );
    let Ok(list) = RevocationList::decode(signed, root) else { return };
    let spec = list.spec();
    let life = spec.next_update_ms.checked_sub(spec.issued_ms);
    assert!(spec.version > 0 && life.is_some_and(|life| life <= REVOCATION_LIST_LIFE_MS_MAX));
    if let Some(fields) = wire::read(bytes) {
        assert_eq!(wire::bytes(&fields, 1), root.workspace_id().as_bytes(), "another workspace's list");
        assert_eq!(wire::number(&fields, 2), spec.version);
        assert_eq!(wire::count(&fields, 5), spec.entries.len(), "what is revoked is lost, or made up");
    }
    for entry in &spec.entries {
        assert!(entry.reason.len() <= REASON_BYTES_MAX && !entry.reason.contains(char::is_control));
        assert!(!matches!(entry.what, Revoked::Subject { serial_lt: 0, .. }), "an entry that revokes nothing");
    }
    for certificate in [&world().node, world().alice.chain.leaf()] {
        let (fp, claims) = (certificate.fp(), certificate.claims());
        let is_named = spec.entries.iter().any(|entry| {
            entry.what == Revoked::Certificate(fp)
                || matches!(entry.what, Revoked::Subject { subject_id, serial_lt }
                    if subject_id == claims.subject_id && serial_lt > claims.serial)
        });
        assert_eq!(list.revokes(certificate), is_named);
    }
    let again = RevocationList::issue(&IdentityKey::from_seed(&ROOT_SEED), root, spec);
    let again = again.expect("what was read cannot be written").encode();
    let again = RevocationList::decode(again, root).expect("what was written cannot be read");
    assert!(again.spec() == spec);
}
