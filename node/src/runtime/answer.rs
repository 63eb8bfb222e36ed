//! Reads what a program says of its turn: the answer, what it does now, its session, its cost.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::{
    backend::{Backend, Format},
    template::Values,
};

/// The last answer is told up to so many bytes (proto `AgentOutput.response`).
pub(super) const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// A line of JSON that is longer than this is not read.
const LINE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// A progress label is told up to so many bytes (proto `Progress.label`).
const LABEL_BYTES_MAX: usize = 240;

/// What to read from a JSON document. Places are JSON pointers (RFC 6901) in which `*` stands for every element of an array.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EventRule {
    /// The rule is for documents that have these values at these places.
    pub when: BTreeMap<String, Value>,
    /// The answer.
    pub text: Option<String>,
    /// What it does now.
    pub progress: Option<String>,
    /// What it is to be told to go on with this session.
    pub session: Option<String>,
    /// What the session has cost so far, in US dollars.
    pub cost_usd: Option<String>,
    /// Numbers of tokens of the turn, to be added up.
    pub tokens: Vec<String>,
    /// The turn failed when something true or not empty is there.
    pub failed: Option<String>,
    /// The text goes behind what the turn has said so far.
    pub append: bool,
    /// The turn is over.
    pub ends_turn: bool,
    /// The program is ready for the first prompt.
    pub begins: bool,
    /// The rule is for a process that is to go on with a session, or for one that is not.
    pub resumes: Option<bool>,
    /// The JSON that answers it, on one line; a string that is a JSON pointer in braces stands for what is there, and the values of a
    /// backend's arguments are replaced. Of several rules that fit the first one answers.
    pub reply: Option<Value>,
}

/// What was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Heard {
    /// The answer so far.
    pub(super) answer: Option<String>,
    /// What it does now.
    pub(super) progress: Option<String>,
    pub(super) session: Option<String>,
    /// Of the process so far, in millionths of a US dollar.
    pub(super) cost_micros: Option<u64>,
    /// Of the turn.
    pub(super) tokens: u64,
    pub(super) failed: bool,
    pub(super) turn_ended: bool,
    /// The answer goes behind what was said before.
    pub(super) appends: bool,
    pub(super) begins: bool,
    /// What is to be written.
    pub(super) reply: Option<Value>,
}

/// Reads the output of one process.
#[derive(Debug)]
pub(super) struct Ear {
    format: Format,
    events: Vec<EventRule>,
    /// What has no line end yet; for text and JSON all of it, up to a bound.
    pending: Vec<u8>,
    /// The line that is coming in is too long to be kept.
    skipping: bool,
}

impl Ear {
    pub(super) fn new(backend: &Backend) -> Self {
        Self { format: backend.output, events: backend.events.clone(), pending: Vec::new(), skipping: false }
    }

    /// The ear of a process that goes on with a session, or does not, with what stands for what in its replies.
    pub(super) fn of_process(backend: &Backend, resumes: bool, values: &Values) -> Self {
        let mut ear = Self::new(backend);
        ear.events.retain(|rule| rule.resumes.is_none_or(|wanted| wanted == resumes));
        for reply in ear.events.iter_mut().filter_map(|rule| rule.reply.as_mut()) {
            *reply = values.json(reply);
        }
        ear
    }

    /// Takes output as it comes, and returns what each finished line said.
    pub(super) fn hear(&mut self, data: &[u8]) -> Vec<Heard> {
        match self.format {
            Format::Text => {
                self.pending.extend_from_slice(data);
                // The end of an answer says more than its beginning.
                let extra = self.pending.len().saturating_sub(ANSWER_BYTES_MAX);
                self.pending.drain(..extra);
                let label = data.split(|byte| *byte == b'\n').rfind(|line| !line.trim_ascii().is_empty());
                let progress = label.map(|line| cut(String::from_utf8_lossy(line).trim(), LABEL_BYTES_MAX).to_owned());
                progress.map(|text| Heard { progress: Some(text), ..Heard::default() }).into_iter().collect()
            }
            Format::Json => {
                let room = LINE_BYTES_MAX.saturating_sub(self.pending.len());
                self.pending.extend_from_slice(&data[..data.len().min(room)]);
                Vec::new()
            }
            Format::JsonLines => self.lines(data),
        }
    }

    /// The process has ended: what its output as a whole says.
    pub(super) fn end(&mut self) -> Heard {
        let pending = std::mem::take(&mut self.pending);
        match self.format {
            Format::Text => Heard { answer: Some(text(&pending)), ..Heard::default() },
            Format::Json => serde_json::from_slice(&pending).map_or_else(
                // What is no JSON is most likely an error in words.
                |_| Heard { answer: Some(text(&pending)), ..Heard::default() },
                |document| self.read(&document),
            ),
            Format::JsonLines => self.line(&pending).unwrap_or_default(),
        }
    }

    fn lines(&mut self, data: &[u8]) -> Vec<Heard> {
        let mut heard = Vec::new();
        for piece in data.split_inclusive(|byte| *byte == b'\n') {
            if self.pending.len() + piece.len() > LINE_BYTES_MAX {
                (self.skipping, self.pending) = (true, Vec::new());
            }
            if !self.skipping {
                self.pending.extend_from_slice(piece);
            }
            if piece.ends_with(b"\n") {
                let line = std::mem::take(&mut self.pending);
                self.skipping = false;
                heard.extend(self.line(&line));
            }
        }
        heard
    }

    fn line(&self, line: &[u8]) -> Option<Heard> {
        // Programs mix words of their own in, which are no events.
        let document = serde_json::from_slice(line).ok()?;
        Some(self.read(&document)).filter(|heard| *heard != Heard::default())
    }

    fn read(&self, document: &Value) -> Heard {
        let mut heard = Heard::default();
        for rule in &self.events {
            let fits = rule.when.iter().all(|(place, value)| document.pointer(place) == Some(value));
            if !fits {
                continue;
            }
            let find = |place: &Option<String>| place.as_ref().and_then(|place| found(document, place));
            heard.answer = find(&rule.text).map(|text| cut(&text, ANSWER_BYTES_MAX).to_owned()).or(heard.answer);
            heard.progress = find(&rule.progress).and_then(|text| label(&text)).or(heard.progress);
            heard.session = find(&rule.session).filter(|id| is_session(id)).or(heard.session);
            let cost = rule.cost_usd.as_ref().and_then(|place| document.pointer(place)?.as_f64());
            heard.cost_micros = cost.and_then(micros).or(heard.cost_micros);
            let tokens = rule.tokens.iter().filter_map(|place| document.pointer(place)?.as_u64());
            heard.tokens = tokens.fold(heard.tokens, u64::saturating_add);
            heard.failed |= rule.failed.as_ref().and_then(|place| document.pointer(place)).is_some_and(is_true);
            heard.turn_ended |= rule.ends_turn;
            heard.appends |= rule.append;
            heard.begins |= rule.begins;
            heard.reply = heard.reply.or_else(|| rule.reply.as_ref().map(|reply| answered(reply, document)));
        }
        heard
    }
}

/// A reply with what it takes from the document that it answers.
fn answered(reply: &Value, document: &Value) -> Value {
    match reply {
        Value::String(text) => {
            let place =
                text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).filter(|text| text.starts_with('/'));
            place.map_or_else(|| reply.clone(), |place| document.pointer(place).cloned().unwrap_or_default())
        }
        Value::Array(items) => items.iter().map(|item| answered(item, document)).collect(),
        Value::Object(fields) => {
            let answered = |(name, value): (&String, &Value)| (name.clone(), answered(value, document));
            Value::Object(fields.iter().map(answered).collect())
        }
        other => other.clone(),
    }
}

/// Cuts text at a character within `bytes_max`.
pub(super) fn cut(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

/// The first line of what it says, as a label.
fn label(text: &str) -> Option<String> {
    let line = text.lines().map(str::trim).find(|line| !line.is_empty())?;
    Some(cut(line, LABEL_BYTES_MAX).to_owned())
}

/// The text at a place; that of several elements in one.
fn found(document: &Value, place: &str) -> Option<String> {
    let Some((before, after)) = place.split_once("/*") else {
        return document.pointer(place).and_then(shown);
    };
    let items = document.pointer(before)?.as_array()?;
    let texts: Vec<String> = items.iter().filter_map(|item| found(item, after)).collect();
    (!texts.is_empty()).then(|| texts.join("\n"))
}

fn shown(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

/// Session ids end up in arguments: one that looks like an option is none.
fn is_session(text: &str) -> bool {
    !text.is_empty() && text.len() <= 256 && !text.starts_with('-') && text.chars().all(|c| c.is_ascii_graphic())
}

fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::String(text) => !text.is_empty(),
        Value::Number(_) | Value::Array(_) | Value::Object(_) => true,
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be a sum of money before")]
fn micros(dollars: f64) -> Option<u64> {
    (0.0..1e9).contains(&dollars).then_some((dollars * 1e6).round() as u64)
}

fn text(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    cut(text.trim(), ANSWER_BYTES_MAX).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ear(name: &str) -> Ear {
        Ear::new(&Backend::presets()[name])
    }

    #[test]
    fn a_turn_of_claude_is_read_from_its_events() {
        let mut ear = ear("claude");
        let init = br#"{"type":"system","subtype":"init","session_id":"s-1","tools":[]}"#;
        assert_eq!(ear.hear(init), [], "a line that is not over says nothing");
        assert_eq!(ear.hear(b"\n")[0].session.as_deref(), Some("s-1"));
        let said =
            br#"{"type":"assistant","message":{"content":[{"type":"tool_use"},{"type":"text","text":"\nLooking\nx"}]}}
not json
"#;
        assert_eq!(ear.hear(said), [Heard { progress: Some("Looking".to_owned()), ..Heard::default() }]);
        let result = br#"{"type":"result","subtype":"success","is_error":false,"result":"done","session_id":"s-1","total_cost_usd":0.0125,"usage":{"input_tokens":10,"output_tokens":5}}
"#;
        let heard = &ear.hear(result)[0];
        assert!(heard.turn_ended && !heard.failed);
        assert_eq!((heard.answer.as_deref(), heard.cost_micros, heard.tokens), (Some("done"), Some(12_500), 15));
    }

    #[test]
    fn codex_and_openclaw_are_read_too() {
        let mut codex = ear("codex");
        let events = codex.hear(
            b"{\"type\":\"thread.started\",\"thread_id\":\"t\"}\n{\"type\":\"item.completed\",\"item\":{\"type\":\"agent_message\",\"text\":\"hi\"}}\n",
        );
        assert_eq!((events[0].session.as_deref(), events[1].answer.as_deref()), (Some("t"), Some("hi")));
        let mut claw = ear("openclaw");
        claw.hear(br#"{"result":{"payloads":[{"text":"a"},{"text":"b"}]}}"#);
        assert_eq!(claw.end().answer.as_deref(), Some("a\nb"));
    }

    #[test]
    fn a_session_that_could_be_an_option_is_none() {
        let mut ear = ear("codex");
        assert_eq!(ear.hear(b"{\"type\":\"thread.started\",\"thread_id\":\"--yolo\"}\n"), []);
    }

    #[test]
    fn a_line_without_end_costs_no_more_than_its_bound() {
        let mut ear = ear("claude");
        for _ in 0..5 {
            ear.hear(&vec![b'x'; 1024 * 1024]);
        }
        assert!(ear.pending.is_empty());
        assert_eq!(ear.hear(b"x\n{\"type\":\"result\",\"result\":\"ok\"}\n").len(), 1);
    }

    #[test]
    fn of_text_the_end_is_kept() {
        let backend = Backend { output: Format::Text, events: Vec::new(), ..Backend::presets()["codex"].clone() };
        let mut ear = Ear::new(&backend);
        ear.hear(&vec![b'a'; ANSWER_BYTES_MAX]);
        ear.hear("end ü\n".as_bytes());
        let answer = ear.end().answer.unwrap();
        assert!(answer.len() <= ANSWER_BYTES_MAX && answer.ends_with("aend ü"));
    }
}
