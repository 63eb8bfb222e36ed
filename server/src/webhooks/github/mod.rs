//! GitHub's webhooks (docs.github.com, "Webhook events and payloads").
//!
//! The type of a delivery stands in a header that no signature covers. So the body must have what its type has, and nothing that only
//! another type has: a signed push cannot be passed off as a review.

mod checks;
mod code;
mod talk;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::report::Report;

/// What the body of a type has at its top, and what it never has.
struct Shape {
    event: &'static str,
    needs: &'static [&'static str],
    never: &'static [&'static str],
    read: fn(&Common, Value) -> Result<Report, serde_json::Error>,
}

const SHAPES: [Shape; 9] = [
    Shape {
        event: "check_run",
        needs: &["action", "check_run"],
        never: &["check_suite", "workflow_run", "pull_request"],
        read: checks::check_run,
    },
    Shape {
        event: "check_suite",
        needs: &["action", "check_suite"],
        never: &["check_run", "workflow_run", "pull_request"],
        read: checks::check_suite,
    },
    Shape {
        event: "issue_comment",
        needs: &["action", "issue", "comment"],
        never: &["pull_request", "review", "discussion"],
        read: talk::issue_comment,
    },
    Shape {
        event: "pull_request",
        needs: &["action", "number", "pull_request"],
        never: &["review", "comment", "thread", "issue"],
        read: code::pull_request,
    },
    Shape {
        event: "pull_request_review",
        needs: &["action", "review", "pull_request"],
        never: &["comment", "thread", "issue"],
        read: talk::review,
    },
    Shape {
        event: "pull_request_review_comment",
        needs: &["action", "comment", "pull_request"],
        never: &["review", "thread", "issue", "discussion"],
        read: talk::review_comment,
    },
    Shape {
        event: "push",
        needs: &["ref", "before", "after", "commits", "pusher"],
        never: &["action", "pull_request", "comment", "review"],
        read: code::push,
    },
    Shape {
        event: "status",
        needs: &["sha", "state", "context", "branches"],
        never: &["action", "check_run", "deployment_status", "pull_request"],
        read: checks::status,
    },
    Shape {
        event: "workflow_run",
        needs: &["action", "workflow_run"],
        never: &["workflow_job", "check_run", "check_suite"],
        read: checks::workflow_run,
    },
];

/// What every body says.
struct Common {
    action: String,
    repo: String,
}

/// The body is not what its header says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the body is no {event}: {why}")]
pub(super) struct Unlike {
    event: &'static str,
    why: String,
}

/// Whether it is the first delivery of a hook, which only says hello.
pub(super) fn is_ping(event: &str, body: &Map<String, Value>) -> bool {
    event == "ping" && body.contains_key("zen") && body.contains_key("hook_id")
}

/// Reads the body of a type that is understood; `None` for another type.
pub(super) fn read(event: &str, body: Map<String, Value>) -> Option<Result<Report, Unlike>> {
    let shape = SHAPES.iter().find(|shape| shape.event == event)?;
    Some(shaped(shape, body))
}

fn shaped(shape: &Shape, body: Map<String, Value>) -> Result<Report, Unlike> {
    let unlike = |why: String| Unlike { event: shape.event, why };
    if let Some(missing) = shape.needs.iter().find(|key| body.get(**key).is_none_or(Value::is_null)) {
        return Err(unlike(format!("it has no `{missing}`")));
    }
    if let Some(foreign) = shape.never.iter().find(|key| body.get(**key).is_some_and(|value| !value.is_null())) {
        return Err(unlike(format!("it has `{foreign}`")));
    }
    let repo = body.get("repository").and_then(|repo| repo.get("full_name")).and_then(Value::as_str);
    let repo = repo.ok_or_else(|| unlike("it has no `repository.full_name`".into()))?;
    let action = body.get("action").and_then(Value::as_str).unwrap_or_default();
    let common = Common { action: action.to_owned(), repo: repo.to_owned() };
    (shape.read)(&common, Value::Object(body)).map_err(|error| unlike(error.to_string()))
}

/// Who wrote something.
#[derive(Deserialize)]
struct User {
    login: String,
}

/// One end of a pull request.
#[derive(Deserialize)]
struct End {
    #[serde(rename = "ref")]
    branch: String,
    #[serde(default)]
    sha: String,
    /// Absent when the fork was deleted.
    repo: Option<RepoName>,
}

#[derive(Deserialize)]
struct RepoName {
    #[serde(default)]
    full_name: String,
}

/// A pull request, as far as every type that has one tells.
#[derive(Deserialize)]
struct Pull {
    id: u64,
    number: u64,
    html_url: String,
    head: End,
    state: String,
    merged_at: Option<String>,
    updated_at: String,
}

impl Pull {
    /// The branch that it brings, when that is one of the repository's own: a fork may call its branch whatever it likes.
    fn own_branch(&self, repo: &str) -> Option<&str> {
        let is_own = self.head.repo.as_ref().is_some_and(|head| head.full_name.eq_ignore_ascii_case(repo));
        is_own.then_some(self.head.branch.as_str())
    }
}

/// Whether GitHub says that somebody belongs to the repository.
fn is_member(association: Option<&str>) -> bool {
    matches!(association, Some("OWNER" | "MEMBER" | "COLLABORATOR"))
}

#[cfg(test)]
mod tests;
