//! Project Wycheproof's vectors for every primitive underneath (PROTOCOL §7 item 2): the edge cases that implementations of the
//! past got wrong. Accepted is what the vectors call valid, and nothing else.
#![allow(clippy::unwrap_used, reason = "test code")]

use chacha20poly1305::{ChaCha20Poly1305, XChaCha20Poly1305, aead::Payload};
use hkdf::Hkdf;
use hmac::{Hmac, Mac as _};
use murmur_crypto::keys::{PrekeyPublic, PublicKey};
use sha2::Sha256;
use wycheproof::{TestResult, aead, eddsa, hkdf as hkdf_vectors, mac, xdh};
use x25519_dalek::StaticSecret;

/// Our verification is strict, and on these vectors that is no stricter than RFC 8032 asks.
#[test]
fn ed25519_takes_valid_signatures_alone() {
    let set = eddsa::TestSet::load(eddsa::TestName::Ed25519).unwrap();
    let mut accepted = 0;
    for group in set.test_groups {
        let key = PublicKey::from_bytes(group.key.pk[..].try_into().unwrap());
        for test in group.tests {
            let signature: Result<[u8; 64], _> = test.sig[..].try_into();
            let holds = key.is_ok_and(|key| signature.is_ok_and(|signature| key.verifies(&test.msg, &signature)));
            assert_eq!(holds, test.result == TestResult::Valid, "{} {}", test.tc_id, test.comment);
            accepted += u32::from(holds);
        }
    }
    assert!(accepted > 50, "the vectors are gone");
}

/// A key that gives a shared secret of zeros is no prekey of ours; every other gives the secret of the vector.
#[test]
fn x25519_agrees_and_refuses_keys_of_low_order() {
    let set = xdh::TestSet::load(xdh::TestName::X25519).unwrap();
    let (mut agreed, mut refused) = (0, 0);
    for test in set.test_groups.into_iter().flat_map(|group| group.tests) {
        let public: Result<[u8; 32], _> = test.public_key[..].try_into();
        let (Ok(public), Ok(private)) = (public, <[u8; 32]>::try_from(&test.private_key[..])) else {
            assert_eq!(test.result, TestResult::Invalid, "{}", test.tc_id);
            continue;
        };
        let shared = StaticSecret::from(private).diffie_hellman(&public.into());
        assert_eq!(shared.as_bytes()[..], test.shared_secret[..], "{} {}", test.tc_id, test.comment);
        if shared.was_contributory() {
            agreed += 1;
        } else {
            assert!(PrekeyPublic::from_bytes(&public).is_err(), "{} {}", test.tc_id, test.comment);
            refused += 1;
        }
    }
    assert!(agreed > 300 && refused > 5, "the vectors are gone: {agreed} {refused}");
}

/// Opens with an AEAD, if key and nonce have its sizes.
fn open<A: chacha20poly1305::aead::Aead + chacha20poly1305::KeyInit>(test: &aead::Test) -> Option<Vec<u8>> {
    let cipher = A::new_from_slice(&test.key).ok()?;
    let nonce = test.nonce[..].try_into().ok()?;
    let sealed = [&test.ct[..], &test.tag[..]].concat();
    cipher.decrypt(nonce, Payload { msg: &sealed, aad: &test.aad }).ok()
}

fn check_aead(name: aead::TestName, open: impl Fn(&aead::Test) -> Option<Vec<u8>>) {
    let set = aead::TestSet::load(name).unwrap();
    let mut opened = 0;
    for group in set.test_groups {
        for test in &group.tests {
            let plain = (test.result == TestResult::Valid).then(|| test.pt.to_vec());
            assert_eq!(open(test), plain, "{} {}", test.tc_id, test.comment);
            opened += u32::from(plain.is_some());
        }
    }
    assert!(opened > 50, "the vectors are gone");
}

#[test]
fn the_aead_that_wraps_keys_opens_what_is_authentic_alone() {
    check_aead(aead::TestName::ChaCha20Poly1305, open::<ChaCha20Poly1305>);
}

#[test]
fn the_aead_of_payloads_opens_what_is_authentic_alone() {
    check_aead(aead::TestName::XChaCha20Poly1305, open::<XChaCha20Poly1305>);
}

#[test]
fn hkdf_derives_what_the_vectors_say() {
    let set = hkdf_vectors::TestSet::load(hkdf_vectors::TestName::HkdfSha256).unwrap();
    let mut derived = 0;
    for test in set.test_groups.into_iter().flat_map(|group| group.tests) {
        let mut okm = vec![0; test.size];
        let expanded = Hkdf::<Sha256>::new(Some(&test.salt), &test.ikm).expand(&test.info, &mut okm).is_ok();
        assert_eq!(expanded, test.result != TestResult::Invalid, "{} {}", test.tc_id, test.comment);
        if expanded {
            assert_eq!(okm, test.okm[..], "{} {}", test.tc_id, test.comment);
            derived += 1;
        }
    }
    assert!(derived > 50, "the vectors are gone");
}

#[test]
fn hmac_takes_the_right_tag_alone() {
    let set = mac::TestSet::load(mac::TestName::HmacSha256).unwrap();
    let mut accepted = 0;
    for test in set.test_groups.into_iter().flat_map(|group| group.tests) {
        let mut hmac = <Hmac<Sha256> as hmac::KeyInit>::new_from_slice(&test.key).unwrap();
        hmac.update(&test.msg);
        let holds = hmac.verify_truncated_left(&test.tag).is_ok();
        assert_eq!(holds, test.result == TestResult::Valid, "{} {}", test.tc_id, test.comment);
        accepted += u32::from(holds);
    }
    assert!(accepted > 50, "the vectors are gone");
}
