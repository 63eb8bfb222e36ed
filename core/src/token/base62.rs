//! Fixed-width base62: digits, then upper case, then lower case, most significant first.

use zeroize::Zeroizing;

/// Digits that hold 32 bytes: 62^43 is just above 2^256.
pub(super) const SECRET_DIGITS: usize = 43;
/// Digits that hold a CRC-32: 62^6 is above 2^32.
pub(super) const CHECKSUM_DIGITS: usize = 6;

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Writes 32 bytes, read as one big-endian number, in 43 digits.
pub(super) fn encode_secret(secret: &[u8; 32]) -> Zeroizing<String> {
    let mut number = Zeroizing::new(*secret);
    let mut digits = Zeroizing::new([0_u8; SECRET_DIGITS]);
    for digit in digits.iter_mut().rev() {
        let mut rest = 0_u32;
        for byte in number.iter_mut() {
            let value = rest << 8 | u32::from(*byte);
            *byte = (value / 62) as u8;
            rest = value % 62;
        }
        *digit = rest as u8;
    }
    to_text(digits.as_slice())
}

/// Reads 43 digits; `None` for a foreign character or a number of more than 32 bytes.
pub(super) fn decode_secret(digits: &str) -> Option<Zeroizing<[u8; 32]>> {
    let mut number = Zeroizing::new([0_u8; 32]);
    for character in digits.bytes() {
        let mut carry = value_of(character)?;
        for byte in number.iter_mut().rev() {
            let value = u32::from(*byte) * 62 + carry;
            *byte = (value & 0xff) as u8;
            carry = value >> 8;
        }
        if carry != 0 {
            return None;
        }
    }
    Some(number)
}

/// Writes a CRC-32 in 6 digits.
pub(super) fn encode_checksum(checksum: u32) -> Zeroizing<String> {
    let mut rest = checksum;
    let mut digits = [0_u8; CHECKSUM_DIGITS];
    for digit in digits.iter_mut().rev() {
        *digit = (rest % 62) as u8;
        rest /= 62;
    }
    to_text(&digits)
}

/// Reads 6 digits; `None` for a foreign character or a number above `u32::MAX`.
pub(super) fn decode_checksum(digits: &str) -> Option<u32> {
    digits.bytes().try_fold(0_u32, |number, character| number.checked_mul(62)?.checked_add(value_of(character)?))
}

fn to_text(digits: &[u8]) -> Zeroizing<String> {
    Zeroizing::new(digits.iter().map(|digit| char::from(ALPHABET[usize::from(*digit)])).collect())
}

fn value_of(character: u8) -> Option<u32> {
    Some(u32::from(match character {
        b'0'..=b'9' => character - b'0',
        b'A'..=b'Z' => character - b'A' + 10,
        b'a'..=b'z' => character - b'a' + 36,
        _ => return None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extremes_fit() {
        for bytes in [[0; 32], [0xff; 32]] {
            let digits = encode_secret(&bytes);
            assert_eq!(digits.len(), SECRET_DIGITS);
            assert_eq!(*decode_secret(&digits).unwrap(), bytes);
        }
        assert_eq!(decode_checksum(&encode_checksum(u32::MAX)), Some(u32::MAX));
        assert_eq!(decode_checksum("zzzzzz"), None);
        assert!(decode_secret(&"z".repeat(SECRET_DIGITS)).is_none());
    }
}
