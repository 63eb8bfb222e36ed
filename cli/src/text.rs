//! Text that others wrote, made safe to show in a terminal.
//!
//! A message body or an agent's description may hold escape sequences that recolour, retitle or rewrite a terminal, and
//! invisible characters that make one thing look like another. They are dropped, sequence and all, wherever text is shown to a
//! person. JSON output keeps every character, since JSON escapes them.

use std::{iter::Peekable, str::Chars};

use murmur_core::text::is_hidden;

/// Text of several lines: line feeds and tabs stay.
pub(crate) fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\n' | '\t' => out.push(c),
            '\u{1b}' => skip_escape(&mut rest),
            '\u{9b}' => skip_control_sequence(&mut rest),
            '\u{90}' | '\u{98}' | '\u{9d}' | '\u{9e}' | '\u{9f}' => skip_string(&mut rest),
            c if c.is_control() || is_hidden(c) => {}
            c => out.push(c),
        }
    }
    out
}

/// Text for one line of a table or a sentence: line feeds and tabs become spaces.
pub(crate) fn clean_line(text: &str) -> String {
    clean(text).replace(['\n', '\t'], " ")
}

/// One word for a shell.
pub(crate) fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:@".contains(c);
    if text.chars().all(plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// After ESC: a control sequence, a string, or one more character.
fn skip_escape(rest: &mut Peekable<Chars<'_>>) {
    match rest.next() {
        Some('[') => skip_control_sequence(rest),
        Some(']' | 'P' | 'X' | '^' | '_') => skip_string(rest),
        Some(' '..='/') => {
            rest.next();
        }
        _ => {}
    }
}

/// Parameters and intermediates up to the final byte (ECMA-48 §5.4).
fn skip_control_sequence(rest: &mut Peekable<Chars<'_>>) {
    while rest.next_if(|c| matches!(c, ' '..='?')).is_some() {}
    rest.next_if(|c| matches!(c, '@'..='~'));
}

/// A string up to BEL or ST, when it has an end; else nothing more is dropped, so that a text cannot hide the rest of itself.
fn skip_string(rest: &mut Peekable<Chars<'_>>) {
    let mut ahead = rest.clone();
    while let Some(c) = ahead.next() {
        if matches!(c, '\u{7}' | '\u{9c}') || (c == '\u{1b}' && ahead.next_if_eq(&'\\').is_some()) {
            *rest = ahead;
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_vanish_whole() {
        assert_eq!(clean("a\u{1b}[31;1mred\u{1b}[0m b"), "ared b");
        assert_eq!(clean("\u{1b}]0;title\u{7}x\u{1b}]8;;http://a\u{1b}\\y"), "xy");
        assert_eq!(clean("\u{9b}2Jx\u{9d}52;c;AAAA\u{9c}y"), "xy");
        assert_eq!(clean("\u{1b}(Bx\u{1b}cy"), "xy");
    }

    #[test]
    fn a_path_is_one_word() {
        assert_eq!(quoted("/a/b-c.d"), "/a/b-c.d");
        assert_eq!(quoted("/a b/it's"), r"'/a b/it'\''s'");
    }

    #[test]
    fn an_endless_sequence_hides_nothing() {
        assert_eq!(clean("\u{1b}]0;rm -rf\nall of it"), "0;rm -rf\nall of it");
    }

    #[test]
    fn controls_and_invisible_characters_vanish() {
        assert_eq!(clean("pay\u{202e}load\r\u{8}\0\u{200b}!\n\tünï✓"), "payload!\n\tünï✓");
        assert_eq!(clean_line("two\nlines\tand\r a tab"), "two lines and a tab");
    }
}
