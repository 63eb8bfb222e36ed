//! Server-sent events as lines: what each event carries, on one line (HTML, "Server-sent events", §9.2.6).

/// An event that is longer than this is dropped.
const EVENT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Reads a stream of events.
#[derive(Debug, Default)]
pub(super) struct Events {
    line: Vec<u8>,
    data: Vec<u8>,
    after_cr: bool,
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
            }
        }
        out
    }

    fn end_line(&mut self, line: &[u8], out: &mut Vec<u8>) {
        if line.is_empty() {
            let mut data = std::mem::take(&mut self.data);
            data.pop();
            // A line for each event, whatever lines it came in: white space in JSON.
            data.iter_mut().filter(|byte| **byte == b'\n').for_each(|byte| *byte = b' ');
            if !data.is_empty() {
                data.push(b'\n');
                out.extend_from_slice(&data);
            }
        } else if let Some(data) = line.strip_prefix(b"data").and_then(|rest| rest.strip_prefix(b":").or(Some(rest))) {
            let data = data.strip_prefix(b" ").unwrap_or(data);
            if self.data.len() + data.len() < EVENT_BYTES_MAX {
                self.data.extend_from_slice(data);
                self.data.push(b'\n');
            }
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
}
