//! GitLab's webhooks (docs.gitlab.com, "Webhook events"). The type stands in the body itself, as `object_kind`, so the header is not asked.

use murmur_core::event::EventKind;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    moment::unix_ms,
    report::{Push, Report, Told},
};
use crate::db::pull_request::{PullRequest, State};

/// The body is not what its `object_kind` says.
#[derive(Debug, thiserror::Error)]
#[error("the body is no {kind}: {source}")]
pub(super) struct Unlike {
    kind: String,
    source: serde_json::Error,
}

#[derive(Deserialize)]
struct Project {
    path_with_namespace: String,
}

#[derive(Deserialize)]
struct User {
    username: String,
}

#[derive(Deserialize)]
struct Note {
    user: User,
    project: Project,
    object_attributes: NoteAttributes,
    merge_request: Option<Merge>,
}

#[derive(Deserialize)]
struct NoteAttributes {
    id: u64,
    note: String,
    noteable_type: String,
    updated_at: String,
    url: Option<String>,
    action: Option<String>,
    #[serde(default)]
    system: bool,
    position: Option<Position>,
}

#[derive(Deserialize)]
struct Position {
    new_path: Option<String>,
    new_line: Option<u64>,
}

/// A merge request, in its own type and in those that refer to one.
#[derive(Deserialize)]
struct Merge {
    iid: u64,
    source_branch: String,
    source_project_id: Option<u64>,
    target_project_id: Option<u64>,
    state: Option<String>,
    url: Option<String>,
    updated_at: Option<String>,
}

#[derive(Deserialize)]
struct OfMerge {
    user: User,
    project: Project,
    object_attributes: MergeAttributes,
}

#[derive(Deserialize)]
struct MergeAttributes {
    #[serde(flatten)]
    merge: Merge,
    id: u64,
    action: Option<String>,
}

#[derive(Deserialize)]
struct Pipeline {
    project: Project,
    object_attributes: PipelineAttributes,
    merge_request: Option<Merge>,
}

#[derive(Deserialize)]
struct PipelineAttributes {
    id: u64,
    name: Option<String>,
    #[serde(rename = "ref")]
    branch: String,
    #[serde(default)]
    tag: bool,
    sha: String,
    status: String,
    finished_at: Option<String>,
    url: Option<String>,
}

#[derive(Deserialize)]
struct PushBody {
    #[serde(rename = "ref")]
    name: String,
    before: String,
    after: String,
    project: Project,
    commits: Vec<Commit>,
}

#[derive(Deserialize)]
struct Commit {
    timestamp: Option<String>,
    #[serde(default)]
    added: Vec<String>,
    #[serde(default)]
    modified: Vec<String>,
    #[serde(default)]
    removed: Vec<String>,
}

/// The type, as the body says it.
pub(super) fn kind(body: &Map<String, Value>) -> &str {
    body.get("object_kind").and_then(Value::as_str).unwrap_or_default()
}

/// Reads the body of a type that is understood; `None` for another type.
pub(super) fn read(kind: &str, body: Map<String, Value>) -> Option<Result<Report, Unlike>> {
    let body = Value::Object(body);
    let read = match kind {
        "note" => note(body),
        "merge_request" => merge(body),
        "pipeline" => pipeline(body),
        "push" => push(body),
        _ => return None,
    };
    Some(read.map_err(|source| Unlike { kind: kind.to_owned(), source }))
}

impl Merge {
    /// The branch that it brings, when that is one of the project's own.
    fn own_branch(&self) -> Option<&str> {
        (self.source_project_id == self.target_project_id).then_some(self.source_branch.as_str())
    }

    fn standing(&self) -> Option<PullRequest> {
        let state = match self.state.as_deref()? {
            "opened" => State::Open,
            "closed" => State::Closed,
            "merged" => State::Merged,
            _ => return None,
        };
        Some(PullRequest {
            number: self.iid,
            branch: self.own_branch().unwrap_or_default().to_owned(),
            state,
            url: self.url.clone().unwrap_or_default(),
            updated_ms: self.updated_at.as_deref().and_then(unix_ms).unwrap_or_default(),
        })
    }
}

fn note(body: Value) -> Result<Report, serde_json::Error> {
    let Note { user, project, object_attributes: note, merge_request } = serde_json::from_value(body)?;
    let repo = project.path_with_namespace;
    let Some(merge) = merge_request.filter(|_| note.noteable_type == "MergeRequest") else {
        return Ok(Report::silent(repo, "a comment on something that is no merge request"));
    };
    let pull = merge.standing();
    if note.system {
        return Ok(Report { pull, ..Report::silent(repo, "a note of GitLab's own") });
    }
    let at_ms = unix_ms(&note.updated_at);
    let position = note.position.unwrap_or(Position { new_path: None, new_line: None });
    let told = Told::new(EventKind::PrComment, &format!("gl-note-{}-{}", note.id, at_ms.unwrap_or_default()), &repo)
        .at(at_ms)
        .pr(merge.iid)
        .branch(merge.own_branch())
        .with("comment_id", note.id.to_string())
        .by(&user.username, false)
        .some("path", position.new_path)
        .some("line", position.new_line.map(|line| line.to_string()))
        .some("url", note.url)
        .some("action", note.action)
        .text(&note.note);
    Ok(Report { pull, ..Report::of(repo, told) })
}

fn merge(body: Value) -> Result<Report, serde_json::Error> {
    let OfMerge { user, project, object_attributes } = serde_json::from_value(body)?;
    let MergeAttributes { merge, id, action } = object_attributes;
    let repo = project.path_with_namespace;
    let pull = merge.standing();
    let action = action.unwrap_or_default();
    let at_ms = merge.updated_at.as_deref().and_then(unix_ms);
    let event_id = format!("gl-merge-{id}-{action}-{}", at_ms.unwrap_or_default());
    let told = |kind: EventKind| {
        Told::new(kind, &event_id, &repo)
            .at(at_ms)
            .pr(merge.iid)
            .branch(merge.own_branch())
            .some("url", merge.url.clone())
    };
    let changed = |word: &str| {
        told(EventKind::Notify)
            .with("from", "gitlab")
            .with("from_kind", "webhook")
            .with("state", word)
            .with("by", &user.username)
            .text(&format!("Merge request {repo}!{} was {word} by {}.", merge.iid, user.username))
    };
    let told = match action.as_str() {
        "approved" | "approval" => told(EventKind::PrReview).with("state", "approved").by(&user.username, false),
        "unapproved" | "unapproval" => told(EventKind::PrReview).with("state", "dismissed").by(&user.username, false),
        "merge" => changed("merged"),
        "close" => changed("closed"),
        "reopen" => changed("reopened"),
        _ => {
            let silent = Report::silent(repo, "a merge request that was neither approved nor ended");
            return Ok(Report { pull, ..silent });
        }
    };
    Ok(Report { pull, ..Report::of(repo.clone(), told) })
}

fn pipeline(body: Value) -> Result<Report, serde_json::Error> {
    let Pipeline { project, object_attributes: run, merge_request } = serde_json::from_value(body)?;
    let repo = project.path_with_namespace;
    let conclusion = match run.status.as_str() {
        "success" => "success",
        "failed" => "failure",
        "canceled" => "cancelled",
        "skipped" => "skipped",
        _ => return Ok(Report::silent(repo, "a pipeline that has not ended")),
    };
    // For a merge request's pipeline the name is no branch but a ref of GitLab's own.
    let branch = match &merge_request {
        Some(merge) => merge.own_branch(),
        None => (!run.tag).then_some(run.branch.as_str()),
    };
    let mut told = Told::new(EventKind::CiResult, &format!("gl-pipeline-{}-{conclusion}", run.id), &repo)
        .at(run.finished_at.as_deref().and_then(unix_ms))
        .branch(branch)
        .with("sha", &run.sha)
        .with("check", run.name.as_deref().unwrap_or("pipeline"))
        .with("conclusion", conclusion)
        .some("branch", branch)
        .some("url", run.url);
    if let Some(merge) = &merge_request {
        told = told.pr(merge.iid);
    }
    Ok(Report::of(repo, told))
}

fn push(body: Value) -> Result<Report, serde_json::Error> {
    let PushBody { name, before, after, project, commits } = serde_json::from_value(body)?;
    let repo = project.path_with_namespace;
    let Some(branch) = name.strip_prefix("refs/heads/") else {
        return Ok(Report::silent(repo, "a push of something that is no branch"));
    };
    let at_ms = commits.iter().filter_map(|commit| commit.timestamp.as_deref().and_then(unix_ms)).max();
    let files = |commit: Commit| [commit.added, commit.modified, commit.removed].into_iter().flatten();
    let push = Push::new(("gl", branch), (before, after), commits.into_iter().flat_map(files), at_ms);
    Ok(Report { push, ..Report::silent(repo, "a push without changed files") })
}

#[cfg(test)]
mod tests;
