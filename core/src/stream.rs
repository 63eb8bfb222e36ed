//! Both ends of a chunk stream (PROTOCOL §4.6): what to send next, what to take, how much to allow.
//!
//! The sending end may have as many chunks on the way as the receiving end has room for: the first few without asking, later ones
//! by credit. The receiving end takes chunks in order and nothing else. A chunk that was taken before is dropped; one that comes
//! too early means that some were lost, and the sender is told to go back; one beyond what was granted ends the stream.
//!
//! Neither end depends on what it remembers: after a restart the receiver's spool says where to go on, and the sender goes there.

use crate::{
    code::Code,
    limits::{STREAM_FIRST_WINDOW, STREAM_WINDOW_MAX},
};

/// Permission to send: chunks from `next_index` on, `window` of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// First chunk not yet received.
    pub next_index: u32,
    /// Chunks that may be on the way from there.
    pub window: u32,
}

/// How many chunks a content has; an empty one has one, which is empty.
#[must_use]
pub fn chunk_count(total_size: u64, chunk_size: u32) -> u32 {
    u32::try_from(total_size.div_ceil(u64::from(chunk_size.max(1))).max(1)).unwrap_or(u32::MAX)
}

/// The sending end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outflow {
    chunks: u32,
    acked: u32,
    next: u32,
    limit: u32,
}

impl Outflow {
    /// A stream of `chunks` chunks, of which the receiver had `acked` when it was last heard of, and allowed up to `limit`.
    #[must_use]
    pub fn new(chunks: u32, acked: u32, limit: u32) -> Self {
        let acked = acked.min(chunks);
        let first = acked.saturating_add(STREAM_FIRST_WINDOW);
        Self { chunks, acked, next: acked, limit: limit.max(first) }
    }

    /// The chunk to send now and whether it is the last one; `None` when more credit is needed or everything was sent.
    #[must_use]
    pub fn next(&self) -> Option<(u32, bool)> {
        (self.next < self.limit.min(self.chunks)).then(|| (self.next, self.next + 1 == self.chunks))
    }

    /// Notes that the chunk of [`Outflow::next`] is on its way.
    pub fn sent(&mut self) {
        self.next = self.next.saturating_add(1).min(self.chunks);
    }

    /// Chunks that the receiver is known to have.
    #[must_use]
    pub const fn acked(&self) -> u32 {
        self.acked
    }

    /// The first chunk that may not be sent yet.
    #[must_use]
    pub const fn limit(&self) -> u32 {
        self.limit
    }

    /// Takes a credit; one that names chunks that do not exist is ignored. Returns whether it moved anything.
    pub fn credit(&mut self, grant: Grant) -> bool {
        let Grant { next_index, window } = grant;
        if next_index > self.chunks {
            return false;
        }
        let before = self.clone();
        self.acked = self.acked.max(next_index);
        self.next = self.next.max(self.acked);
        self.limit = self.limit.max(next_index.saturating_add(window.min(STREAM_WINDOW_MAX)));
        *self != before
    }

    /// Takes a credit of a receiver that misses something: goes back to where it is.
    pub fn resume(&mut self, grant: Grant) {
        let Grant { next_index, window } = grant;
        if next_index <= self.chunks {
            self.acked = next_index;
            self.next = next_index;
            self.limit = next_index.saturating_add(window.min(STREAM_WINDOW_MAX));
        }
    }

    /// Goes back to a chunk that did not leave, or that the receiver could not read.
    pub fn back_to(&mut self, index: u32) {
        self.next = self.next.min(index.max(self.acked));
    }
}

/// What to do with a chunk, by its index alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    /// It is the next one.
    Expected,
    /// It was taken before.
    Duplicate,
    /// Some before it are missing. The sender is to be told when `tell` is set: once for each place.
    Gap {
        /// Whether the sender was not told yet.
        tell: bool,
    },
    /// It was not allowed (605).
    Exceeded,
}

/// The receiving end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inflow {
    chunk_size: u32,
    total_size: Option<u64>,
    size_max: u64,
    next: u32,
    size: u64,
    limit: u32,
    granted: u32,
    gap_told: bool,
}

impl Inflow {
    /// A new stream. `total_size` is `None` where the sender did not know it; then `size_max` bounds it.
    #[must_use]
    pub fn new(chunk_size: u32, total_size: Option<u64>, size_max: u64) -> Self {
        let limit = STREAM_FIRST_WINDOW;
        Self { chunk_size, total_size, size_max, next: 0, size: 0, limit, granted: limit, gap_told: false }
    }

    /// After a restart: `next` chunks are safe. What was granted before is not known any more, but it was never more than two
    /// windows beyond what was safe.
    #[must_use]
    pub fn resumed(chunk_size: u32, total_size: Option<u64>, size_max: u64, next: u32) -> Self {
        let size = u64::from(next).saturating_mul(u64::from(chunk_size));
        let limit = next.saturating_add(2 * STREAM_WINDOW_MAX);
        Self { next, size, limit, granted: next, ..Self::new(chunk_size, total_size, size_max) }
    }

    /// First chunk not yet taken.
    #[must_use]
    pub const fn next(&self) -> u32 {
        self.next
    }

    /// Bytes taken.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Judges a chunk before it is decrypted.
    pub fn judge(&mut self, index: u32) -> Judgement {
        if index >= self.limit {
            return Judgement::Exceeded;
        }
        match index.cmp(&self.next) {
            std::cmp::Ordering::Less => Judgement::Duplicate,
            std::cmp::Ordering::Equal => Judgement::Expected,
            std::cmp::Ordering::Greater => Judgement::Gap { tell: !std::mem::replace(&mut self.gap_told, true) },
        }
    }

    /// Whether an authentic next chunk of `length` bytes has the shape that the manifest promised.
    ///
    /// # Errors
    /// [`Code::ChunkAuth`] when it is too short or too long for its place, or ends the stream at another place than promised;
    /// [`Code::StreamTooLarge`] when a stream of unknown size grows beyond the bound.
    pub fn check(&self, length: usize, last: bool) -> Result<(), Code> {
        let length = u64::try_from(length).unwrap_or(u64::MAX);
        let size = self.size.saturating_add(length);
        if size > self.size_max {
            return Err(Code::StreamTooLarge);
        }
        let fits = match (last, self.total_size) {
            (false, total) => length == u64::from(self.chunk_size) && total.is_none_or(|total| size < total),
            (true, total) => length <= u64::from(self.chunk_size) && total.is_none_or(|total| size == total),
        };
        if fits { Ok(()) } else { Err(Code::ChunkAuth) }
    }

    /// The sender may not have heard what it was told a while ago: the next gap is told again.
    pub fn forget_told(&mut self) {
        self.gap_told = false;
    }

    /// Takes the next chunk.
    pub fn take(&mut self, length: usize) {
        self.next = self.next.saturating_add(1);
        self.size = self.size.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
        self.gap_told = false;
    }

    /// Whether what the sender may still send is down to half a window, so that it should soon hear of more.
    #[must_use]
    pub fn is_thirsty(&self, window: u32) -> bool {
        let left = self.granted.saturating_sub(self.next);
        left <= window / 2
    }

    /// Grants a window from here on. What was granted before stays granted.
    pub fn grant(&mut self, window: u32) -> Grant {
        let window = window.clamp(1, STREAM_WINDOW_MAX);
        self.granted = self.granted.max(self.next.saturating_add(window));
        self.limit = self.limit.max(self.granted);
        Grant { next_index: self.next, window: self.granted - self.next }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    const CHUNK: u32 = 10;

    #[test]
    fn contents_have_chunks() {
        assert_eq!([0, 1, 10, 11, 20, 21].map(|size| chunk_count(size, CHUNK)), [1, 1, 1, 2, 2, 3]);
        assert_eq!(chunk_count(1 << 30, 128 * 1024), 8192);
    }

    #[test]
    fn four_chunks_go_without_credit_and_no_more() {
        let mut out = Outflow::new(100, 0, 0);
        for index in 0..4 {
            assert_eq!(out.next(), Some((index, false)));
            out.sent();
        }
        assert_eq!(out.next(), None);
        assert!(out.credit(Grant { next_index: 0, window: 16 }));
        assert_eq!(out.next(), Some((4, false)));
        assert!(!out.credit(Grant { next_index: 101, window: 16 }), "there is no such chunk");
        assert!(!out.credit(Grant { next_index: 0, window: 2 }), "nothing that was granted is taken back");
    }

    #[test]
    fn a_window_has_a_bound_whatever_the_receiver_says() {
        let mut out = Outflow::new(1000, 0, 0);
        out.credit(Grant { next_index: 0, window: u32::MAX });
        assert_eq!(out.limit(), STREAM_WINDOW_MAX);
    }

    #[test]
    fn a_chunk_beyond_the_grant_is_not_taken() {
        let mut inflow = Inflow::new(CHUNK, Some(10_000), 10_000);
        assert_eq!(inflow.judge(4), Judgement::Exceeded, "before any grant");
        inflow.grant(16);
        assert_eq!(inflow.judge(16), Judgement::Exceeded);
        assert_eq!(inflow.judge(1), Judgement::Gap { tell: true });
        assert_eq!(inflow.judge(2), Judgement::Gap { tell: false });
        assert_eq!(inflow.judge(0), Judgement::Expected);
        inflow.take(10);
        assert_eq!(inflow.judge(0), Judgement::Duplicate);
        assert_eq!(inflow.judge(2), Judgement::Gap { tell: true }, "told once for each place");
    }

    #[test]
    fn a_stream_ends_where_its_manifest_says() {
        let at = |size: u32, total| Inflow::resumed(CHUNK, total, 50, size / CHUNK);
        let auth = Err(Code::ChunkAuth);
        assert_eq!(at(10, Some(25)).check(10, false), Ok(()));
        assert_eq!(at(10, Some(25)).check(9, false), auth, "a chunk in the middle is whole");
        assert_eq!(at(20, Some(25)).check(5, true), Ok(()));
        assert_eq!(at(20, Some(25)).check(4, true), auth, "truncated");
        assert_eq!(at(20, Some(25)).check(6, true), auth, "extended");
        assert_eq!(at(10, Some(25)).check(10, true), auth, "ended early");
        assert_eq!(at(10, Some(20)).check(10, false), auth, "goes on past its end");
        assert_eq!(at(20, None).check(0, true), Ok(()), "of unknown size");
        assert_eq!(at(50, None).check(1, true), Err(Code::StreamTooLarge));
    }

    /// One step of a hostile channel.
    #[derive(Debug, Clone, Copy)]
    enum Act {
        Send,
        Deliver,
        Lose,
        Repeat,
        Swap,
        HearCredit,
        LoseCredit,
        ReceiverRestarts,
        SenderRestarts,
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            6 => Just(Act::Send), 6 => Just(Act::Deliver), 1 => Just(Act::Lose), 1 => Just(Act::Repeat),
            1 => Just(Act::Swap), 4 => Just(Act::HearCredit), 1 => Just(Act::LoseCredit),
            1 => Just(Act::ReceiverRestarts), 1 => Just(Act::SenderRestarts),
        ]
    }

    /// Two ends, what is on the way between them, and what the receiver wrote.
    struct Pair {
        chunks: u32,
        out: Outflow,
        inflow: Inflow,
        way: VecDeque<u32>,
        credits: VecDeque<(Grant, bool)>,
        written: Vec<u32>,
        synced: u32,
        heard: (u32, u32),
    }

    impl Pair {
        fn new(chunks: u32) -> Self {
            let mut inflow = Inflow::new(CHUNK, Some(u64::from(chunks * CHUNK)), 1 << 30);
            let first = inflow.grant(16);
            Self {
                chunks,
                out: Outflow::new(chunks, 0, 0),
                inflow,
                way: VecDeque::new(),
                credits: [(first, false)].into(),
                written: vec![],
                synced: 0,
                heard: (0, 0),
            }
        }

        fn receive(&mut self, index: u32) {
            match self.inflow.judge(index) {
                Judgement::Expected => {
                    let last = index + 1 == self.chunks;
                    assert_eq!(self.inflow.check(CHUNK as usize, last), Ok(()));
                    self.inflow.take(CHUNK as usize);
                    self.written.push(index);
                    if self.inflow.is_thirsty(16) || self.written.len().is_multiple_of(8) || last {
                        self.synced = self.inflow.next();
                        let grant = self.inflow.grant(16);
                        self.credits.push_back((grant, false));
                    }
                }
                Judgement::Duplicate => {
                    let grant = self.inflow.grant(16);
                    self.credits.push_back((grant, false));
                }
                Judgement::Gap { tell } => {
                    if tell {
                        let grant = self.inflow.grant(16);
                        self.credits.push_back((grant, true));
                    }
                }
                Judgement::Exceeded => panic!("an honest sender exceeded its credit with chunk {index}"),
            }
        }

        fn hear(&mut self, (grant, resume): (Grant, bool)) {
            if resume {
                self.out.resume(grant);
            } else {
                self.out.credit(grant);
            }
            self.heard = (self.out.acked(), self.out.limit());
        }

        fn act(&mut self, act: Act) {
            match act {
                Act::Send => {
                    if let Some((index, last)) = self.out.next() {
                        assert_eq!(last, index + 1 == self.chunks);
                        self.way.push_back(index);
                        self.out.sent();
                    }
                }
                Act::Deliver => {
                    if let Some(index) = self.way.pop_front() {
                        self.receive(index);
                    }
                }
                Act::Lose => drop(self.way.pop_front()),
                Act::Repeat => {
                    if let Some(index) = self.way.front().copied() {
                        self.way.push_back(index);
                    }
                }
                Act::Swap => {
                    if self.way.len() > 1 {
                        self.way.swap(0, 1);
                    }
                }
                Act::HearCredit => {
                    if let Some(credit) = self.credits.pop_front() {
                        self.hear(credit);
                    }
                }
                Act::LoseCredit => drop(self.credits.pop_front()),
                Act::ReceiverRestarts => {
                    self.inflow = Inflow::resumed(CHUNK, Some(u64::from(self.chunks * CHUNK)), 1 << 30, self.synced);
                    self.written.truncate(self.synced as usize);
                    let grant = self.inflow.grant(16);
                    self.credits.push_back((grant, true));
                }
                Act::SenderRestarts => self.out = Outflow::new(self.chunks, self.heard.0, self.heard.1),
            }
        }

        /// An honest channel from here on, with the probe that a silent stream makes.
        fn finish(&mut self) {
            for _ in 0..50 {
                for _ in 0..self.chunks * 4 + 200 {
                    [Act::Send, Act::Deliver, Act::HearCredit].into_iter().for_each(|act| self.act(act));
                }
                if self.inflow.next() == self.chunks {
                    return;
                }
                let at = self.out.acked().min(self.chunks - 1);
                self.out.resume(Grant { next_index: at, window: 1 });
                self.inflow.forget_told();
            }
        }
    }

    proptest! {
        #[test]
        fn whatever_the_channel_does_the_chunks_are_written_once_and_in_order(
            chunks in 1_u32..60,
            acts in prop::collection::vec(act(), 0..400),
        ) {
            let mut pair = Pair::new(chunks);
            for act in acts {
                pair.act(act);
                prop_assert!(pair.written.iter().copied().eq(0..pair.inflow.next()));
            }
            pair.finish();
            prop_assert!(pair.written.iter().copied().eq(0..chunks), "it came to an end: {:?}", pair.written);
        }
    }
}
