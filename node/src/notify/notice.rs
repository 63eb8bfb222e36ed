//! What is told, in words.

use std::sync::Arc;

use murmur_core::text::{is_hidden, shortened};

use crate::permission::PermissionRow;

/// What is told of a body at most, in bytes.
const BODY_BYTES_MAX: usize = 1_000;
const LINE_BYTES_MAX: usize = 500;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// What kind of thing: `message`, `permission`, `agent_failed`, `ci_failed`, `test`, or a kind of event.
    pub kind: String,
    /// The kind that it is a special case of: whoever wants that one wants this one, too.
    pub general: Option<&'static str>,
    /// Agents that it is about, by slug.
    pub agents: Vec<String>,
    /// One line that says it.
    pub line: String,
    /// What was written, told with `notify.include_body` alone.
    pub body: Option<String>,
    /// Unix milliseconds.
    pub at_ms: u64,
    /// What it asks: channels by which it can be answered ask it.
    pub question: Option<Arc<PermissionRow>>,
    /// What is heard from more than one side and told once: the same for each.
    pub once: Option<String>,
}

impl Notice {
    /// A notice about no agent.
    #[must_use]
    pub fn new(kind: &str, line: &str, at_ms: u64) -> Self {
        let line = clean(line, LINE_BYTES_MAX, false);
        Self {
            kind: kind.to_owned(),
            general: None,
            agents: Vec::new(),
            line,
            body: None,
            at_ms,
            question: None,
            once: None,
        }
    }

    /// Asking something.
    #[must_use]
    pub fn asking(mut self, question: Arc<PermissionRow>) -> Self {
        self.question = Some(question);
        self
    }

    /// Told once, from whichever side it comes first.
    #[must_use]
    pub fn once(mut self, key: String) -> Self {
        self.once = Some(key);
        self
    }

    /// As a special case of a kind.
    #[must_use]
    pub const fn of(mut self, general: Option<&'static str>) -> Self {
        self.general = general;
        self
    }

    /// About agents.
    #[must_use]
    pub fn about(mut self, agents: Vec<String>) -> Self {
        self.agents = agents;
        self
    }

    /// With what was written.
    #[must_use]
    pub fn with_body(mut self, body: &str) -> Self {
        self.body = Some(clean(body, BODY_BYTES_MAX, true)).filter(|body| !body.is_empty());
        self
    }

    /// As a text of a chat.
    #[must_use]
    pub fn text(&self, include_body: bool) -> String {
        match self.body.as_ref().filter(|_| include_body) {
            Some(body) => format!("{}\n{body}", self.line),
            None => self.line.clone(),
        }
    }
}

/// A size as people say it: `1.2 kB`.
#[must_use]
pub(super) fn size(bytes: usize) -> String {
    let tenths = |unit: usize| (bytes * 10 + unit / 2) / unit;
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..999_950 => format!("{}.{} kB", tenths(1_000) / 10, tenths(1_000) % 10),
        _ => format!("{}.{} MB", tenths(1_000_000) / 10, tenths(1_000_000) % 10),
    }
}

/// A slug without its workspace: `/w/acme/u/jdoe/alice` is `jdoe/alice`.
pub(super) fn short(slug: &str) -> &str {
    slug.split_once("/u/").map_or(slug, |(_, rest)| rest)
}

/// What others wrote, without what a reader does not see, and cut.
fn clean(text: &str, bytes_max: usize, lines: bool) -> String {
    let shown = |c: &char| (lines && *c == '\n') || !(c.is_control() || is_hidden(*c));
    shortened(text.chars().map(|c| if c == '\t' { ' ' } else { c }).filter(shown).collect(), bytes_max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_said_as_people_say_them() {
        let cases = [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1.0 kB"),
            (1_249, "1.2 kB"),
            (1_250, "1.3 kB"),
            (999_949, "999.9 kB"),
            (1_550_000, "1.6 MB"),
        ];
        for (bytes, said) in cases {
            assert_eq!(size(bytes), said);
        }
    }

    #[test]
    fn a_body_is_told_only_where_that_was_chosen_and_without_tricks() {
        let notice = Notice::new("message", "a → b, 5 B", 0).with_body("hi\u{202e}\u{1b}[31m\nthere");
        assert_eq!(notice.text(false), "a → b, 5 B");
        assert_eq!(notice.text(true), "a → b, 5 B\nhi[31m\nthere");
        assert!(Notice::new("message", "x", 0).with_body(&"é".repeat(2000)).text(true).len() <= BODY_BYTES_MAX + 2);
        assert_eq!(Notice::new("message", "two\nlines", 0).line, "twolines");
    }
}
