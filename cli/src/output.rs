//! How results reach stdout: tables and sentences for people, JSON for programs.

use std::io::{self, IsTerminal, Write};

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;

use crate::{
    exit::Exit,
    failure::{Context as _, Failure},
    text,
};

/// What a command ends with.
pub(crate) type Outcome = Result<Exit, Failure>;

/// Where results go, and in which form.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    json: bool,
}

impl Output {
    pub(crate) const fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether the caller wants JSON.
    pub(crate) const fn is_json(self) -> bool {
        self.json
    }

    /// Shows a result: `value` for programs, what `text` makes for people. Either is one write, ended by a line feed.
    pub(crate) fn show(self, value: &Value, text: impl FnOnce() -> String) -> Outcome {
        self.is_shown(value, text).map(|_| Exit::Ok)
    }

    /// The same, and whether somebody still reads.
    pub(crate) fn is_shown(self, value: &Value, text: impl FnOnce() -> String) -> Result<bool, Failure> {
        if self.json { is_read(&value.to_string()) } else { is_read(&text()) }
    }
}

/// Writes one text and a line feed to stdout. A reader that has gone, such as `head`, is no failure.
pub(crate) fn line(text: &str) -> Outcome {
    is_read(text).map(|_| Exit::Ok)
}

/// The same, and whether somebody still reads: whoever follows something ends with its reader.
pub(crate) fn is_read(text: &str) -> Result<bool, Failure> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{}", text.trim_end()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        written => written.context("writing to stdout").map(|()| true),
    }
}

/// A table with a header; every cell is cleaned.
pub(crate) fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header.iter().copied());
    for row in rows {
        table.add_row(row.iter().map(|cell| text::clean_line(cell)));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let lines: Vec<_> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n")
}

/// Names and values, one pair a line; pairs without a value are left out.
pub(crate) fn pairs<'a>(rows: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let rows: Vec<_> = rows.into_iter().filter(|(_, value)| !value.is_empty()).collect();
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    let lines: Vec<_> =
        rows.iter().map(|(name, value)| format!("{name:width$}  {}", text::clean_line(value))).collect();
    lines.join("\n")
}

/// Whether colours may be used: a terminal, and NO_COLOR (no-color.org) unset or empty.
pub(crate) fn colours() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// A word in bold, when colours are on.
pub(crate) fn bold(text: &str) -> String {
    paint("1", text)
}

/// Something good in green, when colours are on.
pub(crate) fn good(text: &str) -> String {
    paint("32", text)
}

/// Something that wants attention in yellow, when colours are on.
pub(crate) fn warn(text: &str) -> String {
    paint("33", text)
}

/// Something bad in red, when colours are on.
pub(crate) fn bad(text: &str) -> String {
    paint("31", text)
}

fn paint(code: &str, text: &str) -> String {
    if colours() { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_clean() {
        let shown = table(&["slug", "what"], [vec!["a".into(), "x\u{1b}[2J\ny".into()]]);
        assert_eq!(shown.lines().last().map(str::trim), Some("a     x y"));
    }
}
