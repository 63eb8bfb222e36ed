//! Server-sent events as lines: what each event carries, on one line (HTML, "Server-sent events", §9.2.6).

use serde_json::json;

/// An event that is longer than this is dropped whole, which is told in its place.
const EVENT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Reads a stream of events.
#[derive(Debug, Default)]
pub(super) struct Events {
    line: Vec<u8>,
    data: Vec<u8>,
    after_cr: bool,
    /// The line is longer than what is kept of it.
    is_line_cut: bool,
    /// The event is too long to be kept.
    is_skipped: bool,
}

impl Events {
    /// Takes bytes as they come, and returns the lines that they finish.
    pub(super) fn hear(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        for byte in bytes {
            let is_end = matches!(byte, b'\r' | b'\n');
            // CR, LF, and CR LF each end a line.
            let is_rest = *byte == b'\n' && self.after_cr;
            self.after_cr = *byte == b'\r';
            if is_rest {
                continue;
            }
            if is_end {
                let line = std::mem::take(&mut self.line);
                self.end_line(&line, &mut out);
            } else if self.line.len() < EVENT_BYTES_MAX {
                self.line.push(*byte);
            } else {
                self.is_line_cut = true;
            }
        }
        out
    }

    fn end_line(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let is_cut = std::mem::take(&mut self.is_line_cut);
        if line.is_empty() {
            self.end_event(out);
        } else if let Some(data) = line.strip_prefix(b"data").and_then(|rest| rest.strip_prefix(b":").or(Some(rest))) {
            let data = data.strip_prefix(b" ").unwrap_or(data);
            self.is_skipped |= is_cut || self.data.len() + data.len() >= EVENT_BYTES_MAX;
            if !self.is_skipped {
                self.data.extend_from_slice(data);
                self.data.push(b'\n');
            }
        }
    }

    fn end_event(&mut self, out: &mut Vec<u8>) {
        let mut data = std::mem::take(&mut self.data);
        if std::mem::take(&mut self.is_skipped) {
            let told = json!({ "progress": format!("an event of more than {EVENT_BYTES_MAX} bytes is left out") });
            data = format!("{told}\n").into_bytes();
        }
        data.pop();
        // A line for each event, whatever lines it came in: white space in JSON.
        data.iter_mut().filter(|byte| **byte == b'\n').for_each(|byte| *byte = b' ');
        if !data.is_empty() {
            data.push(b'\n');
            out.extend_from_slice(&data);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_lines_however_they_are_cut() {
        let stream = b": hello\nevent: x\ndata: {\"a\":1}\n\ndata:{\ndata: \"b\":2}\r\n\r\nid: 7\r\rdata: [DONE]\n\ndata: never over";
        let expected = "{\"a\":1}\n{ \"b\":2}\n[DONE]\n";
        for size in [1, 2, 3, 7, stream.len()] {
            let mut events = Events::default();
            let out: Vec<u8> = stream.chunks(size).flat_map(|piece| events.hear(piece)).collect();
            assert_eq!(String::from_utf8(out).unwrap(), expected, "in pieces of {size}");
        }
    }

    #[test]
    fn an_event_without_end_costs_no_more_than_its_bound() {
        let mut events = Events::default();
        for _ in 0..6 {
            events.hear(&vec![b'x'; 1024 * 1024]);
        }
        assert!(events.line.len() <= EVENT_BYTES_MAX);
    }

    #[test]
    fn an_event_that_is_too_long_is_left_out_and_told_of() {
        let half = "x".repeat(EVENT_BYTES_MAX / 2);
        let long = [
            ("one line", format!("data: \"{half}{half}\"\n\n")),
            ("many lines", format!("data: \"{half}\ndata: {half}\"\ndata: end\n\n")),
        ];
        for (what, event) in long {
            let mut events = Events::default();
            let stream = format!("data: 1\n\n{event}: {half}{half}\ndata: 2\n\n");
            let out = String::from_utf8(events.hear(stream.as_bytes())).unwrap();
            let [first, told, last] = out.lines().collect::<Vec<_>>()[..] else {
                panic!("{what}: {} bytes", out.len())
            };
            assert_eq!(
                (first, last),
                ("1", "2"),
                "{what}: what is around it is heard, and a comment may be as long as it likes"
            );
            assert_eq!(told, r#"{"progress":"an event of more than 4194304 bytes is left out"}"#, "{what}");
        }
    }
}
