//! Results for people: on the terminal and in Markdown.

use crate::model::{Section, Table};

/// Prints a section.
pub(crate) fn section(section: &Section) {
    println!("\n== {}\n{}", section.title, wrap(&section.text));
    for table in &section.tables {
        println!();
        for line in aligned(table) {
            println!("{line}");
        }
    }
    for headline in &section.headlines {
        let verdict = if headline.is_met { "met" } else { "MISSED" };
        println!("{}: {} (goal {}: {verdict})", headline.what, headline.figure, headline.goal);
    }
}

/// A table in Markdown.
pub(crate) fn markdown(table: &Table) -> String {
    let heads = table.columns.join(" | ");
    let rule = std::iter::once("---").chain(table.columns.iter().skip(1).map(|_| "---:")).collect::<Vec<_>>().join("|");
    let mut text = format!("| {heads} |\n|{rule}|\n");
    for (label, cells) in &table.rows {
        let cells: Vec<String> = cells.iter().map(ToString::to_string).collect();
        text += &format!("| {label} | {} |\n", cells.join(" | "));
    }
    text
}

fn aligned(table: &Table) -> Vec<String> {
    let mut lines = vec![table.columns.clone()];
    for (label, cells) in &table.rows {
        lines.push(std::iter::once(label.clone()).chain(cells.iter().map(ToString::to_string)).collect());
    }
    let width = |column: usize| lines.iter().filter_map(|line| Some(line.get(column)?.chars().count())).max();
    let widths: Vec<usize> = (0..table.columns.len()).filter_map(width).collect();
    let cell = |(column, text): (usize, &String)| {
        let width = widths.get(column).copied().unwrap_or(0);
        if column == 0 { format!("{text:<width$}") } else { format!("{text:>width$}") }
    };
    lines.iter().map(|line| line.iter().enumerate().map(cell).collect::<Vec<_>>().join("  ")).collect()
}

fn wrap(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.len() + word.len() < 110 => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines.join("\n")
}
