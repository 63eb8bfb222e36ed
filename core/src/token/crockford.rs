//! Crockford base32 of sixteen bytes: 26 digits, the first one 0 to 7, as ULIDs are written.
//!
//! Only the canonical upper-case form is read, so that a token has one spelling.

const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const DIGITS: u32 = 26;

/// Writes sixteen bytes, read as one big-endian number.
pub(super) fn encode(bytes: [u8; 16]) -> String {
    let number = u128::from_be_bytes(bytes);
    (0..DIGITS).rev().map(|place| char::from(ALPHABET[(number >> (5 * place) & 31) as usize])).collect()
}

/// Reads 26 digits; `None` for another length, a foreign character or a number of more than sixteen bytes.
pub(super) fn decode(digits: &str) -> Option<[u8; 16]> {
    if digits.len() != DIGITS as usize || digits.as_bytes().first()? > &b'7' {
        return None;
    }
    let number = digits.bytes().try_fold(0_u128, |number, character| {
        let value = ALPHABET.iter().position(|digit| *digit == character)?;
        Some(number << 5 | value as u128)
    })?;
    Some(number.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_canonical() {
        assert_eq!(encode([0xff; 16]), "7ZZZZZZZZZZZZZZZZZZZZZZZZZ");
        assert_eq!(decode("7ZZZZZZZZZZZZZZZZZZZZZZZZZ"), Some([0xff; 16]));
        for text in ["8ZZZZZZZZZZZZZZZZZZZZZZZZZ", "7zzzzzzzzzzzzzzzzzzzzzzzzz", "7ZZZZ", "0000000000000000000000000L"]
        {
            assert_eq!(decode(text), None, "{text}");
        }
    }
}
