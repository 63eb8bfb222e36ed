//! Progress of long work on stderr: a spinner in a terminal, plain lines elsewhere.

use std::{
    io::{self, IsTerminal as _},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::duration;

/// Where the steps of one command are shown.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    terminal: bool,
    quiet: bool,
}

/// A step that is under way.
#[derive(Debug)]
pub(crate) struct Step {
    bar: ProgressBar,
    name: String,
    since: Instant,
    plain: bool,
}

impl Progress {
    /// For people; with `quiet` nothing is shown, so that a program's stderr holds errors only.
    pub(crate) fn new(quiet: bool) -> Self {
        Self { terminal: io::stderr().is_terminal(), quiet }
    }

    /// Begins a step such as "starting the broker".
    pub(crate) fn step(&self, name: &str) -> Step {
        let bar = if self.terminal && !self.quiet {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            bar.set_style(ProgressStyle::default_spinner());
            bar.set_message(name.to_owned());
            bar.enable_steady_tick(Duration::from_millis(80));
            bar
        } else {
            ProgressBar::hidden()
        };
        Step { bar, name: name.to_owned(), since: Instant::now(), plain: !self.terminal && !self.quiet }
    }

    /// Says one thing.
    pub(crate) fn note(&self, text: &str) {
        if !self.quiet {
            eprintln!("{text}");
        }
    }
}

impl Step {
    /// Shows what the step is doing right now; in plain output nothing.
    pub(crate) fn detail(&self, text: &str) {
        self.bar.set_message(format!("{}: {text}", self.name));
    }

    /// Ends the step and says how long it took.
    pub(crate) fn done(self) {
        self.bar.finish_and_clear();
        if self.plain || !self.bar.is_hidden() {
            eprintln!("{} ({})", self.name, duration::show(self.since.elapsed()));
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
