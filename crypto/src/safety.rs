//! The safety number that two people compare to know that no one swapped their keys (PROTOCOL §3.3, DESIGN §8.13).

use sha2::{Digest as _, Sha512};

use crate::{hash::label, keys::PublicKey};

/// Twelve groups of five digits, the same for both sides.
///
/// Across workspaces the keys are the two roots, inside one the two nodes' identities.
#[must_use]
pub fn safety_number(ours: &PublicKey, theirs: &PublicKey) -> String {
    let (low, high) = if ours.as_bytes() <= theirs.as_bytes() { (ours, theirs) } else { (theirs, ours) };
    let digest =
        Sha512::new().chain_update(label::SAFETY).chain_update(low.as_bytes()).chain_update(high.as_bytes()).finalize();
    let groups = digest.chunks_exact(5).take(12).map(|group| {
        let number = group.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
        format!("{:05}", number % 100_000)
    });
    groups.collect::<Vec<_>>().join(" ")
}
