//! How the story is told: step by step with timings for people, as one object for programs.

use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use crate::{
    duration,
    output::{self, Outcome, Output},
    text, view,
};

/// Shows steps as they happen.
#[derive(Debug)]
pub(super) struct Teller {
    output: Output,
    begin: Instant,
    steps: Vec<Value>,
}

impl Teller {
    pub(super) fn new(output: Output) -> Self {
        Self { output, begin: Instant::now(), steps: Vec::new() }
    }

    pub(super) const fn is_quiet(&self) -> bool {
        self.output.is_json()
    }

    /// One step, with the time since the beginning.
    pub(super) fn part(&mut self, what: &str) {
        let at = self.begin.elapsed();
        self.steps.push(json!({"at_ms": millis(at), "what": what}));
        self.say(&format!("{}  {}", output::bold(&format!("{:>6.2} s", at.as_secs_f64())), text::clean_line(what)));
    }

    /// More about the step.
    pub(super) fn detail(&self, what: &str) {
        self.say(&format!(
            "{}{}",
            " ".repeat(8),
            view::indented(&text::clean(what)).replace('\n', &format!("\n{}", " ".repeat(8)))
        ));
    }

    /// The end: what was measured and shown.
    pub(super) fn finish(self, mut facts: Map<String, Value>) -> Outcome {
        let took = self.begin.elapsed();
        facts.insert("took_ms".into(), millis(took));
        facts.insert("steps".into(), Value::Array(self.steps));
        self.output.show(&Value::Object(facts), || format!("\nAll of it took {}.", duration::show(took)))
    }

    fn say(&self, line: &str) {
        if !self.output.is_json() {
            // A reader that has gone is noticed at the end.
            drop(output::line(line));
        }
    }
}

/// Milliseconds with three decimals.
pub(super) fn millis(duration: Duration) -> Value {
    json!((duration.as_secs_f64() * 1_000_000.0).round() / 1000.0)
}
