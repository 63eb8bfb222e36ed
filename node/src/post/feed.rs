//! The newest messages of an inbox, kept for the session that will show them: in the steady state nothing is read back from the store.
//!
//! A feed only spares reading. It holds every row behind a position, or says that it does not; then the store is asked.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use murmur_core::id::MessageId;

use super::types::InboxMessage;

/// Messages kept for a session that is behind; with more than that it reads the store.
const MESSAGES_MAX: usize = 256;
/// Bytes of their bodies, so that an agent's memory has a bound whatever their sizes; one message may be larger.
const BYTES_MAX: usize = 1024 * 1024;
/// Rows that may come after they were read; of more, which were read from the store because this is new, the newest.
const EARLY_MAX: usize = 1_024;

/// One agent's feed.
#[derive(Default)]
pub(super) struct Feed {
    /// Ascending by cursor; complete behind `behind`.
    messages: VecDeque<Box<InboxMessage>>,
    bytes: usize,
    /// `None` until a first message came.
    behind: Option<u64>,
    /// Replies that were passed over because somebody waited for them: by position, the request.
    awaited: HashMap<u64, MessageId>,
    /// The newest that came.
    newest: u64,
    /// Rows that were read otherwise before they came here: between their commit and that, somebody found them in the store.
    early: BTreeSet<u64>,
    /// While the session reads the store: rows that are read otherwise, and that it may find unread all the same.
    read_meanwhile: Option<HashSet<u64>>,
}

impl Feed {
    /// Adds the row that was committed last.
    pub(super) fn push(&mut self, message: Box<InboxMessage>) {
        self.behind.get_or_insert(message.cursor - 1);
        if self.was_read(message.cursor) {
            return;
        }
        self.bytes += message.body.len();
        self.messages.push_back(message);
        while (self.messages.len() > MESSAGES_MAX || self.bytes > BYTES_MAX)
            && self.messages.len() > 1
            && let Some(dropped) = self.messages.pop_front()
        {
            self.bytes -= dropped.body.len();
            self.behind = Some(dropped.cursor);
        }
    }

    /// Adds a reply that belongs to a waiter for now.
    pub(super) fn pass_over(&mut self, cursor: u64, request: MessageId) {
        if !self.was_read(cursor) {
            self.awaited.insert(cursor, request);
        }
    }

    /// Whether a row that comes was read before.
    fn was_read(&mut self, cursor: u64) -> bool {
        self.newest = self.newest.max(cursor);
        self.early.remove(&cursor)
    }

    /// The replies that were passed over and that nobody waits for any more.
    pub(super) fn take_freed(&mut self, is_awaited: impl Fn(MessageId) -> bool) -> Vec<u64> {
        let freed: Vec<u64> =
            self.awaited.iter().filter(|(_, request)| !is_awaited(**request)).map(|(cursor, _)| *cursor).collect();
        for cursor in &freed {
            self.awaited.remove(cursor);
        }
        freed
    }

    /// Everything behind a position; `None` when the store has to be asked.
    pub(super) fn take_behind(&mut self, position: u64) -> Option<Vec<InboxMessage>> {
        if self.behind? > position {
            return None;
        }
        self.bytes = 0;
        let taken: Vec<_> = self.messages.drain(..).filter(|message| message.cursor > position).map(|m| *m).collect();
        self.behind = taken.last().map(|last| last.cursor).max(Some(position)).max(self.behind);
        Some(taken)
    }

    /// Where the feed begins: a session that has read the store up to its end may go on from here.
    pub(super) const fn begins_behind(&self) -> u64 {
        match self.behind {
            Some(behind) => behind,
            None => 0,
        }
    }

    /// Notes that its session begins to read the store, while the marks of these rows are on their way to the disk.
    pub(super) fn begin_look(&mut self, marking: HashSet<u64>) {
        self.read_meanwhile = Some(marking);
    }

    /// Rows that were read otherwise since the session began to read the store, and those that were then.
    pub(super) fn end_look(&mut self) -> HashSet<u64> {
        self.read_meanwhile.take().unwrap_or_default()
    }

    /// Forgets rows that were read otherwise.
    pub(super) fn forget(&mut self, cursors: &[u64]) {
        if let Some(read) = &mut self.read_meanwhile {
            read.extend(cursors);
        }
        self.messages.retain(|message| !cursors.contains(&message.cursor));
        self.bytes = self.messages.iter().map(|message| message.body.len()).sum();
        for cursor in cursors {
            self.awaited.remove(cursor);
            if *cursor > self.newest {
                self.early.insert(*cursor);
            }
        }
        while self.early.len() > EARLY_MAX {
            self.early.pop_first();
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use murmur_core::{
        id::{AgentId, ConversationId},
        tier::Tier,
    };

    use super::{super::types::MessageKind, *};

    fn message(cursor: u64) -> Box<InboxMessage> {
        Box::new(InboxMessage {
            msg_id: MessageId::from_bytes([1; 16]),
            conversation_id: ConversationId::from_bytes([2; 16]),
            kind: MessageKind::Message,
            from: "/w/acme/u/jdoe/a".parse().unwrap(),
            from_agent_id: AgentId::from_bytes([3; 16]),
            to: "/w/acme/u/jdoe/b".parse().unwrap(),
            tier: Tier::Verified,
            content_type: String::new(),
            body: Bytes::new(),
            in_reply_to: None,
            created_ms: 0,
            received_ms: 0,
            sequence: cursor,
            cursor,
            redelivered: false,
            traceparent: String::new(),
            deadline_ms: None,
            file: None,
            gap: false,
        })
    }

    fn cursors(messages: Option<Vec<InboxMessage>>) -> Option<Vec<u64>> {
        messages.map(|messages| messages.iter().map(|message| message.cursor).collect())
    }

    #[test]
    fn what_came_before_the_feed_is_left_to_the_store() {
        let mut feed = Feed::default();
        assert_eq!(cursors(feed.take_behind(0)), None);
        feed.push(message(7));
        assert_eq!(cursors(feed.take_behind(5)), None, "row 6 may be another message of this inbox");
        assert_eq!(feed.begins_behind(), 6);
        assert_eq!(cursors(feed.take_behind(6)), Some(vec![7]));
        feed.push(message(9));
        assert_eq!(cursors(feed.take_behind(7)), Some(vec![9]));
        assert_eq!(cursors(feed.take_behind(9)), Some(vec![]));
    }

    #[test]
    fn a_session_that_starts_over_reads_the_store() {
        let mut feed = Feed::default();
        feed.push(message(1));
        assert_eq!(cursors(feed.take_behind(0)), Some(vec![1]));
        assert_eq!(cursors(feed.take_behind(0)), None);
    }

    #[test]
    fn a_session_that_is_far_behind_reads_the_store() {
        let mut feed = Feed::default();
        (1..=MESSAGES_MAX as u64 + 1).for_each(|cursor| feed.push(message(cursor)));
        assert_eq!(cursors(feed.take_behind(0)), None);
        assert_eq!(feed.take_behind(1).unwrap().len(), MESSAGES_MAX);
    }

    #[test]
    fn large_messages_are_left_to_the_store() {
        let mut feed = Feed::default();
        for cursor in 1..=20 {
            feed.push(Box::new(InboxMessage { body: Bytes::from(vec![0; BYTES_MAX / 4]), ..*message(cursor) }));
        }
        assert_eq!(cursors(feed.take_behind(15)), None);
        assert_eq!(cursors(feed.take_behind(16)), Some(vec![17, 18, 19, 20]));
    }

    #[test]
    fn what_was_read_otherwise_is_not_shown() {
        let mut feed = Feed::default();
        (1..=3).for_each(|cursor| feed.push(message(cursor)));
        feed.forget(&[2]);
        assert_eq!(cursors(feed.take_behind(0)), Some(vec![1, 3]));
    }

    #[test]
    fn what_was_read_before_it_came_is_not_shown() {
        let (mut feed, request) = (Feed::default(), MessageId::from_bytes([9; 16]));
        feed.push(message(1));
        feed.forget(&[2, 3]);
        feed.push(message(2));
        feed.pass_over(3, request);
        feed.push(message(4));
        assert_eq!(cursors(feed.take_behind(0)), Some(vec![1, 4]));
        assert!(feed.take_freed(|_| false).is_empty());
    }

    #[test]
    fn what_is_read_while_the_store_is_read_is_told_once() {
        let mut feed = Feed::default();
        feed.forget(&[1]);
        feed.begin_look(HashSet::from([2]));
        feed.forget(&[3]);
        assert_eq!(feed.end_look(), HashSet::from([2, 3]));
        feed.forget(&[4]);
        assert!(feed.end_look().is_empty());
    }

    #[test]
    fn a_reply_is_given_free_once_when_nobody_waits_any_more() {
        let (mut feed, request) = (Feed::default(), MessageId::from_bytes([9; 16]));
        feed.pass_over(4, request);
        assert!(feed.take_freed(|_| true).is_empty());
        assert_eq!(feed.take_freed(|_| false), [4]);
        assert!(feed.take_freed(|_| false).is_empty());
    }
}
