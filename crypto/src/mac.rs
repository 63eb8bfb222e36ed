//! HMAC-SHA256 (RFC 2104) over what other services send and get, and comparing secrets without telling how much of them was right.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

#[expect(clippy::expect_used, reason = "HMAC takes a key of any length")]
fn over(key: &[u8], parts: &[&[u8]]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length");
    for part in parts {
        mac.update(part);
    }
    mac
}

/// The tag of the concatenation of `parts`.
#[must_use]
pub fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    over(key, parts).finalize().into_bytes().into()
}

/// Whether `tag` is the whole tag of the concatenation of `parts`, in constant time.
#[must_use]
pub fn hmac_sha256_holds(key: &[u8], parts: &[&[u8]], tag: &[u8]) -> bool {
    over(key, parts).verify_slice(tag).is_ok()
}

/// Whether two secrets are the same, in a time that depends on their lengths alone.
#[must_use]
pub fn same_secret(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4231, test case 2.
    #[test]
    fn it_is_hmac_sha256() {
        let tag = hmac_sha256(b"Jefe", &[b"what do ya want ", b"for nothing?"]);
        assert_eq!(hex::encode(tag), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
        assert!(hmac_sha256_holds(b"Jefe", &[b"what do ya want for nothing?"], &tag));
    }

    #[test]
    fn a_part_of_a_tag_and_a_changed_one_do_not_hold() {
        let tag = hmac_sha256(b"key", &[b"text"]);
        assert!(!hmac_sha256_holds(b"key", &[b"text"], &tag[..16]) && !hmac_sha256_holds(b"key", &[b"text"], b""));
        for bit in 0..256 {
            let mut forged = tag;
            forged[bit / 8] ^= 1 << (bit % 8);
            assert!(!hmac_sha256_holds(b"key", &[b"text"], &forged));
        }
    }

    #[test]
    fn secrets_are_the_same_or_not() {
        assert!(same_secret(b"abc", b"abc"));
        assert!(!same_secret(b"abc", b"abd") && !same_secret(b"abc", b"ab") && !same_secret(b"", b"a"));
    }
}
