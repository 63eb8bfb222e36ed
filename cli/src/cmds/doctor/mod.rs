//! `doctor`: looks at everything that a network needs, and says what to do. Exits 1 when something is wrong.

mod broker;
mod host;
mod node;

use serde::Serialize;
use serde_json::json;

use crate::{
    connect::Target,
    exit::Exit,
    output::{self, Outcome, Output},
    text,
};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Ok,
    Info,
    Warning,
    Error,
}

/// One thing looked at.
#[derive(Debug, Serialize)]
struct Check {
    level: Level,
    /// What was looked at, such as `broker`.
    about: &'static str,
    /// What was found.
    what: String,
    /// What to do; absent when nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

impl Check {
    fn ok(about: &'static str, what: impl Into<String>) -> Self {
        Self { level: Level::Ok, about, what: what.into(), remedy: None }
    }

    fn new(level: Level, about: &'static str, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { level, about, what: what.into(), remedy: Some(remedy.into()) }
    }
}

pub(crate) async fn run(target: &Target, output: Output) -> Outcome {
    let mut checks = host::binaries();
    checks.extend(host::processes(target)?);
    checks.extend(broker::check(target).await);
    checks.extend(node::check(target).await);
    checks.extend(host::files(target));
    let worst = checks.iter().map(|check| check.level).max().unwrap_or(Level::Ok);
    output.show(&json!({"healthy": worst < Level::Error, "checks": checks}), || report(&checks))?;
    Ok(if worst == Level::Error { Exit::Failed } else { Exit::Ok })
}

fn report(checks: &[Check]) -> String {
    let count = |level| checks.iter().filter(|check| check.level == level).count();
    let mut lines: Vec<_> = checks.iter().map(line).collect();
    let (errors, warnings) = (count(Level::Error), count(Level::Warning));
    lines.push(match (errors, warnings) {
        (0, 0) => output::good("all is well"),
        (0, _) => output::warn(&format!("{warnings} warning(s)")),
        _ => output::bad(&format!("{errors} error(s), {warnings} warning(s)")),
    });
    lines.join("\n")
}

fn line(check: &Check) -> String {
    let Check { level, about, what, remedy } = check;
    let mark = match level {
        Level::Ok => output::good("ok     "),
        Level::Info => "note   ".into(),
        Level::Warning => output::warn("warning"),
        Level::Error => output::bad("error  "),
    };
    let remedy = remedy.as_ref().map(|remedy| format!("\n         → {}", text::clean_line(remedy))).unwrap_or_default();
    format!("{mark}  {about}: {}{remedy}", text::clean_line(what))
}
