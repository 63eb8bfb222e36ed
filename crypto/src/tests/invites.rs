//! Invites and replies: what is printed reads back, and nothing else does.

use data_encoding::{BASE64, BASE64URL_NOPAD};
use zeroize::Zeroizing;

use super::world::{NOW, World, key, root_spec};
use crate::{
    invite::{Invite, InviteError, PREFIX, Purpose},
    invite_reply::InviteReply,
    issue::root,
};

const DAY_MS: u64 = 24 * 3600 * 1000;

fn invite(world: &World) -> Invite {
    Invite {
        purpose: Purpose::Peer,
        root: world.root.clone(),
        inviter: Some(world.agent(1).chain),
        cp_url: "https://murmur.example:7443".to_owned(),
        cp_spki_sha256: vec![[7; 32]],
        secret: Zeroizing::new([8; 32]),
        slug_scope: vec!["/w/acme/u/jdoe/".to_owned()],
        max_uses: 1,
        expires_ms: NOW + DAY_MS,
    }
}

#[test]
fn an_invite_reads_back() {
    let world = World::new();
    let invite = invite(&world);
    let text = invite.sign(&world.root_key).unwrap();
    assert!(text.starts_with(PREFIX));
    assert!(Invite::read(&format!("  {text}\n"), NOW).unwrap() == invite);
    assert_eq!(invite.sign(&key(9)).err(), Some(InviteError::Signature));
}

#[test]
fn an_invite_ends() {
    let world = World::new();
    let text = invite(&world).sign(&world.root_key).unwrap();
    let expires_ms = NOW + DAY_MS;
    assert!(Invite::read(&text, expires_ms).is_ok());
    assert_eq!(Invite::read(&text, expires_ms + 1).err(), Some(InviteError::Expired { expires_ms }));
    assert_eq!(Invite::read(&text, NOW - 30 * DAY_MS).err(), Some(InviteError::TooLong { expires_ms }));
}

#[test]
fn a_changed_invite_is_refused() {
    let world = World::new();
    let text = invite(&world).sign(&world.root_key).unwrap();
    let raw = BASE64URL_NOPAD.decode(&text.as_bytes()[PREFIX.len()..]).unwrap();
    for at in 0..raw.len() {
        let mut changed = raw.clone();
        changed[at] ^= 1;
        let changed = format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&changed));
        assert!(Invite::read(&changed, NOW).is_err(), "byte {at} does not count");
    }
}

#[test]
fn other_texts_are_told_apart() {
    let read = |text: &str| Invite::read(text, NOW).err().unwrap();
    let v1 = br#"{"natsToken":"x"}"#;
    assert_eq!(read(&format!("{PREFIX}{}", BASE64URL_NOPAD.encode(v1))), InviteError::VersionOne);
    assert_eq!(read(&format!("{PREFIX}{}", BASE64.encode(v1))), InviteError::VersionOne);
    assert_eq!(read("hello"), InviteError::Prefix(PREFIX));
    assert_eq!(read("MURMUR:***"), InviteError::Encoding);
    assert_eq!(read("MURMUR:"), InviteError::Encoding);
    assert_eq!(read(&format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&[3, 0]))), InviteError::Format(3));
    assert_eq!(read(&format!("{PREFIX}{}", "A".repeat(40_000))), InviteError::Encoding);
}

#[test]
fn a_reply_needs_the_secret() {
    let world = World::new();
    let invite = invite(&world);
    let text = invite.sign(&world.root_key).unwrap();
    let joiner = key(9);
    let reply = InviteReply { root: root(&joiner, root_spec()).unwrap(), joiner: None };
    let answer = reply.sign(&joiner, &text, &invite).unwrap();
    assert!(InviteReply::read(&answer, &text, &invite).unwrap() == reply);

    let guessed = Invite { secret: Zeroizing::new([0; 32]), ..invite.clone() };
    let forged = reply.sign(&joiner, &text, &guessed).unwrap();
    assert_eq!(InviteReply::read(&forged, &text, &invite).err(), Some(InviteError::Mac));

    let other_text = Invite { max_uses: 2, ..invite.clone() }.sign(&world.root_key).unwrap();
    assert_eq!(InviteReply::read(&answer, &other_text, &invite).err(), Some(InviteError::Mac));
    assert_eq!(reply.sign(&key(3), &text, &invite).err(), Some(InviteError::Signature));
}
