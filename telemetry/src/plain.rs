//! Log lines that stay lines: names, subjects and errors come from strangers, and a terminal obeys what it is shown.

use std::{
    fmt::Write as _,
    io::{self, Write},
};

/// Writes log events as text, whatever stands in them: nothing in an event ends its line, steers a terminal, or turns or hides
/// text. Such characters are shown as Rust escapes them, as `\u{1b}`.
///
/// It expects a whole event with one call, its line feed at the end, as `tracing_subscriber::fmt` does.
#[derive(Debug)]
pub(crate) struct Plain<W>(pub(crate) W);

impl<W: Write> Write for Plain<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let (line, end) = text.strip_suffix('\n').map_or((&*text, ""), |line| (line, "\n"));
        let mut shown = String::with_capacity(text.len());
        for character in line.chars() {
            if is_unseen(character) {
                // Writing to a string does not fail.
                let _ = write!(shown, "{}", character.escape_default());
            } else {
                shown.push(character);
            }
        }
        shown.push_str(end);
        self.0.write_all(shown.as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Controls, line and paragraph separators, marks that turn text, and characters without width.
fn is_unseen(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{AD}' | '\u{61C}' | '\u{180E}' | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}'
            | '\u{FEFF}' | '\u{FFF9}'..='\u{FFFB}' | '\u{E0000}'..='\u{E0FFF}')
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(subject: &str) -> String {
        let kept = Kept::default();
        let writer = kept.clone();
        let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(move || Plain(writer.clone()));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let _span = tracing::warn_span!("call", peer = %subject).entered();
            tracing::warn!(%subject, "an arrival from {subject}");
        });
        String::from_utf8(kept.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn a_strangers_name_neither_ends_the_line_nor_steers_the_terminal() {
        let log = logged("mm.\u{1b}]0;pwn\u{7}\u{9b}31m\u{202e}x\r\n2026-11-20 INFO all is well");
        assert_eq!(log.matches('\n').count(), 1, "{log}");
        assert!(log.ends_with('\n'));
        assert!(!log.trim_end_matches('\n').chars().any(is_unseen), "{log}");
        assert!(log.contains(r"subject=mm.\u{1b}]0;pwn\u{7}\u{9b}31m\u{202e}x\r\n2026"), "{log}");
    }

    #[test]
    fn what_can_be_seen_stays_as_it_is() {
        assert!(logged("naïve 日本 👍").contains("subject=naïve 日本 👍"));
    }
}
