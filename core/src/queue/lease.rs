//! Who holds the entries of a turn, and until when.

/// The lease of a turn whose prompt the runtime has not taken yet, as far as is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// Which start of the agent claimed the turn.
    pub incarnation: u32,
    /// Unix milliseconds.
    pub expire_ms: u64,
}

/// What becomes of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// The open turn is answered again, with a new lease: its answer may have been lost.
    Again,
    /// A turn is made of what waits. What an earlier one held waits again, in its place.
    Anew,
}

impl Lease {
    /// Whether it still holds its entries: nobody else may have them, and clearing the queue leaves them.
    #[must_use]
    pub const fn holds(&self, incarnation: u32, now_ms: u64) -> bool {
        self.incarnation == incarnation && now_ms < self.expire_ms
    }

    /// Decides a claim by the agent's present incarnation.
    #[must_use]
    pub fn claim(open: Option<&Self>, incarnation: u32, now_ms: u64) -> Claim {
        match open {
            Some(lease) if lease.holds(incarnation, now_ms) => Claim::Again,
            Some(_) | None => Claim::Anew,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_ends_with_its_time_and_with_its_incarnation() {
        let lease = Lease { incarnation: 2, expire_ms: 1_000 };
        assert_eq!(Lease::claim(Some(&lease), 2, 999), Claim::Again);
        assert_eq!(Lease::claim(Some(&lease), 2, 1_000), Claim::Anew);
        assert_eq!(Lease::claim(Some(&lease), 3, 0), Claim::Anew);
        assert_eq!(Lease::claim(None, 2, 0), Claim::Anew);
    }
}
