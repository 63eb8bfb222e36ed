//! PADMÉ padding: an observer learns the size of a message to about one part in eight, and nothing below 256 bytes
//! (PROTOCOL §4.3; Nikitin et al., "Reducing Metadata Leakage from Encrypted Files and Communication with PURBs", 2019).

use bytes::Bytes;

use crate::content_key::TAG_BYTES;

/// Smallest padded length.
pub const PADDED_BYTES_MIN: usize = 256;

const LENGTH_BYTES: usize = 4;

/// Plaintext whose padding is not exactly what the protocol prescribes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("padding must be zero bytes up to the padded length")]
pub struct BadPadding;

/// The padded length of `len` bytes: at least 256, at most about 12 percent more.
#[must_use]
pub const fn padme(len: usize) -> usize {
    let len = if len < PADDED_BYTES_MIN { PADDED_BYTES_MIN } else { len };
    let exponent = len.ilog2();
    let kept_bits = exponent.ilog2() + 1;
    let mask = (1_usize << (exponent - kept_bits)) - 1;
    len.saturating_add(mask) & !mask
}

/// `u32(len) || inner || zeros`, up to the padded length, with room for a tag; `None` when the length does not fit 32 bits.
pub(crate) fn pad(inner: &[u8]) -> Option<Vec<u8>> {
    let len = u32::try_from(inner.len()).ok()?;
    let mut padded = Vec::with_capacity(padme(inner.len() + LENGTH_BYTES) + TAG_BYTES);
    padded.extend_from_slice(&len.to_be_bytes());
    padded.extend_from_slice(inner);
    let padded_len = padme(padded.len());
    padded.resize(padded_len, 0);
    Some(padded)
}

/// Checks and strips the padding.
pub(crate) fn unpad(padded: Vec<u8>) -> Result<Bytes, BadPadding> {
    let (len, rest) = padded.split_first_chunk::<LENGTH_BYTES>().ok_or(BadPadding)?;
    let len = usize::try_from(u32::from_be_bytes(*len)).map_err(|_| BadPadding)?;
    let (_, zeros) = rest.split_at_checked(len).ok_or(BadPadding)?;
    if padded.len() != padme(len + LENGTH_BYTES) || zeros.iter().any(|byte| *byte != 0) {
        return Err(BadPadding);
    }
    Ok(Bytes::from(padded).slice(LENGTH_BYTES..LENGTH_BYTES + len))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn wrong_padding_is_refused() {
        let good = pad(b"hello").unwrap();
        assert!(good.capacity() >= good.len() + TAG_BYTES, "the ciphertext has room");
        assert_eq!(unpad(good.clone()).unwrap(), "hello");
        let mut dirty = good.clone();
        *dirty.last_mut().unwrap() = 1;
        let mut longer = good.clone();
        longer.push(0);
        let mut lying = good.clone();
        lying[..4].copy_from_slice(&u32::MAX.to_be_bytes());
        for bad in [dirty.as_slice(), &longer, &lying, &good[..255], &[], &[0; 3]] {
            assert_eq!(unpad(bad.to_vec()), Err(BadPadding));
        }
    }

    proptest! {
        #[test]
        fn padme_is_monotone_and_idempotent(len in 0_usize..2_000_000, more in 0_usize..10_000) {
            let padded = padme(len);
            prop_assert!(padded >= len && padded <= len.max(256) + len / 8);
            prop_assert_eq!(padme(padded), padded);
            prop_assert!(padme(len + more) >= padded);
        }
    }
}
