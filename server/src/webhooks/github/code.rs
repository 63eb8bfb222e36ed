//! What happens to the code itself: pushes, and pull requests that open and close.

use murmur_core::event::EventKind;
use serde::Deserialize;
use serde_json::Value;

use super::{Common, Pull, User};
use crate::{
    db::pull_request::{PullRequest, State},
    webhooks::{
        moment::unix_ms,
        report::{Push, Report, Told},
    },
};

#[derive(Deserialize)]
struct PushBody {
    #[serde(rename = "ref")]
    name: String,
    before: String,
    after: String,
    #[serde(default)]
    deleted: bool,
    commits: Vec<Commit>,
    head_commit: Option<Commit>,
}

#[derive(Deserialize)]
struct Commit {
    timestamp: Option<String>,
    #[serde(default)]
    added: Vec<String>,
    #[serde(default)]
    removed: Vec<String>,
    #[serde(default)]
    modified: Vec<String>,
}

#[derive(Deserialize)]
struct OfPull {
    pull_request: Pull,
    sender: User,
}

pub(super) fn push(common: &Common, body: Value) -> Result<Report, serde_json::Error> {
    let PushBody { name, before, after, deleted, commits, head_commit } = serde_json::from_value(body)?;
    let repo = common.repo.clone();
    let Some(branch) = name.strip_prefix("refs/heads/") else {
        return Ok(Report::silent(repo, "a push of something that is no branch"));
    };
    let at_ms = head_commit.as_ref().and_then(|commit| commit.timestamp.as_deref()).and_then(unix_ms);
    let files = |commit: Commit| [commit.added, commit.removed, commit.modified].into_iter().flatten();
    let push = Push::new(("gh", branch), (before, after), commits.into_iter().flat_map(files), at_ms);
    Ok(Report { push: push.filter(|_| !deleted), ..Report::silent(repo, "a push without changed files") })
}

pub(super) fn pull_request(common: &Common, body: Value) -> Result<Report, serde_json::Error> {
    let OfPull { pull_request, sender } = serde_json::from_value(body)?;
    let repo = common.repo.clone();
    let Some(pull) = standing(&repo, &pull_request) else {
        return Ok(Report::silent(repo, "a pull request in no known state"));
    };
    let word = match (common.action.as_str(), pull.state) {
        ("closed", State::Merged) => "merged",
        ("closed", _) => "closed",
        ("reopened", _) => "reopened",
        _ => {
            let silent = Report::silent(repo, "a pull request that was neither closed nor reopened");
            return Ok(Report { pull: Some(pull), ..silent });
        }
    };
    let told = Told::new(EventKind::Notify, &format!("gh-pull-{}-{word}-{}", pull_request.id, pull.updated_ms), &repo)
        .at(Some(pull.updated_ms))
        .pr(pull.number)
        .branch(pull_request.own_branch(&repo))
        .with("from", "github")
        .with("from_kind", "webhook")
        .with("state", word)
        .with("by", &sender.login)
        .with("sha", &pull_request.head.sha)
        .with("url", &pull_request.html_url)
        .text(&format!("Pull request {repo}#{} was {word} by {}.", pull.number, sender.login));
    Ok(Report { pull: Some(pull), ..Report::of(repo, told) })
}

/// How a pull request stands; its branch is empty for one of a fork.
pub(super) fn standing(repo: &str, pull: &Pull) -> Option<PullRequest> {
    let state = match (pull.state.as_str(), &pull.merged_at) {
        ("open", _) => State::Open,
        ("closed", Some(_)) => State::Merged,
        ("closed", None) => State::Closed,
        _ => return None,
    };
    Some(PullRequest {
        number: pull.number,
        branch: pull.own_branch(repo).unwrap_or_default().to_owned(),
        state,
        url: pull.html_url.clone(),
        updated_ms: unix_ms(&pull.updated_at).unwrap_or_default(),
    })
}
