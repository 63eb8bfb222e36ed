//! What people write about a pull request: comments and reviews.

use murmur_core::event::EventKind;
use serde::Deserialize;
use serde_json::Value;

use super::{Common, Pull, User, code, is_member};
use crate::webhooks::{
    moment::unix_ms,
    report::{Report, Told},
};

#[derive(Deserialize)]
struct Comment {
    id: u64,
    html_url: String,
    user: Option<User>,
    body: Option<String>,
    updated_at: String,
    author_association: Option<String>,
    path: Option<String>,
    line: Option<u64>,
    original_line: Option<u64>,
}

#[derive(Deserialize)]
struct OfIssue {
    issue: Issue,
    comment: Comment,
}

#[derive(Deserialize)]
struct Issue {
    number: u64,
    /// There for pull requests alone.
    pull_request: Option<Value>,
}

#[derive(Deserialize)]
struct OfReview {
    pull_request: Pull,
    review: Review,
}

#[derive(Deserialize)]
struct Review {
    id: u64,
    html_url: String,
    user: Option<User>,
    body: Option<String>,
    state: String,
    submitted_at: Option<String>,
    author_association: Option<String>,
}

#[derive(Deserialize)]
struct OfCode {
    pull_request: Pull,
    comment: Comment,
}

pub(super) fn issue_comment(common: &Common, body: Value) -> Result<Report, serde_json::Error> {
    let OfIssue { issue, comment } = serde_json::from_value(body)?;
    let repo = common.repo.clone();
    if issue.pull_request.is_none() {
        return Ok(Report::silent(repo, "a comment on an issue that is no pull request"));
    }
    Ok(commented(common, comment, ("gh-comment", issue.number), None))
}

pub(super) fn review_comment(common: &Common, body: Value) -> Result<Report, serde_json::Error> {
    let OfCode { pull_request, comment } = serde_json::from_value(body)?;
    let branch = pull_request.own_branch(&common.repo).map(str::to_owned);
    let report = commented(common, comment, ("gh-line", pull_request.number), branch.as_deref());
    Ok(Report { pull: code::standing(&common.repo, &pull_request), ..report })
}

/// `name` tells the two kinds of comments apart, which GitHub numbers each on its own.
fn commented(common: &Common, comment: Comment, (name, number): (&str, u64), branch: Option<&str>) -> Report {
    let repo = common.repo.clone();
    let Comment { id, html_url, user, body, updated_at, author_association, path, line, original_line } = comment;
    if !matches!(common.action.as_str(), "created" | "edited") {
        return Report::silent(repo, "a comment that was neither written nor changed");
    }
    let at_ms = unix_ms(&updated_at);
    let told = Told::new(EventKind::PrComment, &format!("{name}-{id}-{}", at_ms.unwrap_or_default()), &repo)
        .at(at_ms)
        .pr(number)
        .branch(branch)
        .with("comment_id", id.to_string())
        .by(&login(user), is_member(author_association.as_deref()))
        .some("path", path)
        .some("line", line.or(original_line).map(|line| line.to_string()))
        .with("url", html_url)
        .with("action", common.action.as_str())
        .text(&body.unwrap_or_default());
    Report::of(repo, told)
}

pub(super) fn review(common: &Common, body: Value) -> Result<Report, serde_json::Error> {
    let OfReview { pull_request, review } = serde_json::from_value(body)?;
    let Review { id, html_url, user, body, state, submitted_at, author_association } = review;
    let (repo, state) = (common.repo.clone(), state.to_ascii_lowercase());
    let text = body.unwrap_or_default();
    let pull = code::standing(&repo, &pull_request);
    let silence = match common.action.as_str() {
        "submitted" if state == "commented" && text.trim().is_empty() => "a review that only holds comments",
        "submitted" | "edited" | "dismissed" => "",
        _ => "a review that was neither given, changed nor dismissed",
    };
    if !silence.is_empty() {
        return Ok(Report { pull, ..Report::silent(repo, silence) });
    }
    // An edit says nothing of its own time, and the pull request's moves with it.
    let at_ms = if common.action == "submitted" { submitted_at.as_deref().and_then(unix_ms) } else { None };
    let at_ms = at_ms.or_else(|| unix_ms(&pull_request.updated_at));
    let told = Told::new(EventKind::PrReview, &format!("gh-review-{id}-{state}-{}", at_ms.unwrap_or_default()), &repo)
        .at(at_ms)
        .pr(pull_request.number)
        .branch(pull_request.own_branch(&repo))
        .with("review_id", id.to_string())
        .by(&login(user), is_member(author_association.as_deref()))
        .with("state", state)
        .with("url", html_url)
        .with("action", common.action.as_str())
        .text(&text);
    Ok(Report { pull, ..Report::of(repo, told) })
}

/// GitHub shows deleted accounts as this one.
fn login(user: Option<User>) -> String {
    user.map_or_else(|| "ghost".into(), |user| user.login)
}
