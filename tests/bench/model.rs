//! What a run found: sections of tables and charts, which print themselves, go into a file and become documentation.

use std::{collections::BTreeMap, fs, path::Path};

use serde::{Deserialize, Serialize};

use crate::samples::Rounds;

/// Everything that was found, in both modes of the broker.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Results {
    /// What it ran on.
    pub(crate) environment: BTreeMap<String, String>,
    /// Sections by the broker's mode and the measure's name.
    pub(crate) modes: BTreeMap<String, BTreeMap<String, Section>>,
}

/// What one measure found.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(crate) struct Section {
    /// Heading.
    pub(crate) title: String,
    /// How it was measured, in a sentence or two.
    pub(crate) text: String,
    /// The figures that the project holds itself to.
    pub(crate) headlines: Vec<Headline>,
    /// The figures.
    pub(crate) tables: Vec<Table>,
    /// The same as curves.
    pub(crate) charts: Vec<Chart>,
}

/// A figure with its goal.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Headline {
    /// What it is, with its unit.
    pub(crate) what: String,
    /// The median over the rounds.
    pub(crate) figure: Cell,
    /// What was to be reached.
    pub(crate) goal: String,
    /// Whether it was.
    pub(crate) is_met: bool,
}

/// Rows of figures; units stand in the column heads.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Table {
    /// Heads; the first is that of the labels.
    pub(crate) columns: Vec<String>,
    /// Labels and cells.
    pub(crate) rows: Vec<(String, Vec<Cell>)>,
}

/// One place in a table.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Cell {
    /// Nothing to say.
    Empty,
    /// One measurement.
    Figure(f64),
    /// Several rounds.
    Spread {
        /// The middle one.
        median: f64,
        /// The smallest.
        low: f64,
        /// The largest.
        high: f64,
    },
    /// In words.
    Text(String),
}

/// Curves over two axes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Chart {
    /// Name of its file, without the mode and `.svg`.
    pub(crate) file: String,
    /// Heading.
    pub(crate) title: String,
    /// The horizontal axis.
    pub(crate) x: Axis,
    /// The vertical axis.
    pub(crate) y: Axis,
    /// The curves.
    pub(crate) curves: Vec<Curve>,
}

/// An axis.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Axis {
    /// What and in which unit.
    pub(crate) label: String,
    /// Decades instead of differences.
    pub(crate) log: bool,
}

/// A curve.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Curve {
    /// What it shows.
    pub(crate) name: String,
    /// A limit that nobody can beat, drawn as such.
    pub(crate) is_limit: bool,
    /// Points, ascending in x.
    pub(crate) points: Vec<(f64, f64)>,
}

impl Results {
    /// Reads a file of results; an absent one is empty.
    pub(crate) fn load(path: &Path) -> Self {
        match fs::read_to_string(path) {
            Ok(text) => serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display())),
            Err(_) => Self::default(),
        }
    }

    /// Writes the file.
    pub(crate) fn save(&self, path: &Path) {
        fs::write(path, serde_json::to_string_pretty(self).unwrap() + "\n").unwrap();
    }
}

impl Table {
    /// An empty table with these heads.
    pub(crate) fn new(columns: &[&str]) -> Self {
        Self { columns: columns.iter().map(|head| (*head).to_owned()).collect(), rows: Vec::new() }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, label: impl Into<String>, cells: Vec<Cell>) {
        self.rows.push((label.into(), cells));
    }
}

impl Curve {
    /// A curve of ours.
    pub(crate) fn ours(name: &str) -> Self {
        Self { name: name.to_owned(), is_limit: false, points: Vec::new() }
    }

    /// A raw limit.
    pub(crate) fn limit(name: &str) -> Self {
        Self { name: name.to_owned(), is_limit: true, points: Vec::new() }
    }
}

impl Axis {
    /// A linear axis.
    pub(crate) fn linear(label: &str) -> Self {
        Self { label: label.to_owned(), log: false }
    }

    /// A logarithmic axis.
    pub(crate) fn log(label: &str) -> Self {
        Self { label: label.to_owned(), log: true }
    }
}

impl From<&Rounds> for Cell {
    fn from(rounds: &Rounds) -> Self {
        match rounds.range() {
            None => Self::Empty,
            Some((low, high)) if low == high => Self::Figure(low),
            Some((low, high)) => Self::Spread { median: rounds.median(), low, high },
        }
    }
}

impl From<f64> for Cell {
    fn from(figure: f64) -> Self {
        if figure.is_finite() { Self::Figure(figure) } else { Self::Empty }
    }
}

impl std::fmt::Display for Cell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Empty => Ok(()),
            Self::Figure(figure) => f.write_str(&digits(*figure)),
            Self::Spread { median, low, high } => {
                write!(f, "{} ({} – {})", digits(*median), digits(*low), digits(*high))
            }
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// Three digits that matter, thousands set apart.
pub(crate) fn digits(figure: f64) -> String {
    let size = figure.abs();
    if size >= 1000.0 {
        let whole = format!("{figure:.0}");
        let (sign, whole) = whole.strip_prefix('-').map_or(("", whole.as_str()), |rest| ("-", rest));
        let groups: Vec<&str> =
            whole.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).unwrap()).collect();
        return format!("{sign}{}", groups.join(","));
    }
    let decimals = match size {
        100.0.. => 0,
        10.0.. => 1,
        1.0.. => 2,
        0.0 => 0,
        _ => 3,
    };
    format!("{figure:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_show_the_digits_that_matter() {
        let shown = [0.0, 0.1234, 1.5, 12.34, 123.4, 999.9, 1234.5, 1_234_567.0, -4321.0].map(digits);
        assert_eq!(shown, ["0", "0.123", "1.50", "12.3", "123", "1000", "1,234", "1,234,567", "-4,321"]);
    }

    #[test]
    fn results_read_back_as_they_were_written() {
        let mut rounds = Rounds::default();
        rounds.add(1.0);
        rounds.add(2.0);
        for cell in [Cell::Empty, Cell::Figure(1.5), Cell::from(&rounds), Cell::Text("x".to_owned())] {
            let text = serde_json::to_string(&cell).unwrap();
            assert_eq!(serde_json::from_str::<Cell>(&text).unwrap().to_string(), cell.to_string());
        }
    }
}
