//! How many messages and events wait, and when to say so.
//!
//! Pushes can be switched off on the client's side, and written is not seen. So whenever the unread set has grown since it was
//! last mentioned, the next tool result mentions it, once.

/// The last known number of unread messages or events, and how many of them were mentioned.
#[derive(Debug, Default)]
pub(crate) struct Unread {
    count: u64,
    mentioned: u64,
}

impl Unread {
    /// The node's own count.
    pub(crate) fn set(&mut self, count: u64) {
        self.count = count;
        self.mentioned = self.mentioned.min(count);
    }

    /// One more has come.
    pub(crate) fn grow(&mut self) {
        self.count += 1;
    }

    /// The result at hand shows the count itself.
    pub(crate) fn show(&mut self, count: u64) {
        self.count = count;
        self.mentioned = count;
    }

    /// How many there are, as far as is known.
    pub(crate) const fn count(&self) -> u64 {
        self.count
    }

    /// What the next result has to mention, if anything.
    pub(crate) fn mention(&mut self) -> Option<u64> {
        let grown = self.count > self.mentioned;
        self.mentioned = self.count;
        grown.then_some(self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_growth_is_mentioned_and_only_once() {
        let mut unread = Unread::default();
        assert_eq!(unread.mention(), None);
        unread.set(2);
        assert_eq!(unread.mention(), Some(2));
        assert_eq!(unread.mention(), None);
        unread.set(1);
        assert_eq!(unread.mention(), None);
        unread.grow();
        assert_eq!(unread.mention(), Some(2));
        unread.show(5);
        assert_eq!(unread.mention(), None);
    }
}
