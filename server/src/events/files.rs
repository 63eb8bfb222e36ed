//! Changed files: what a push brings to agents that have changed the same files, and what wakes dormant items of checklists.
//!
//! A webhook calls [`pushed`] in its own change, as it calls [`super::route::route`]. Nodes tell what the working copies of their agents have
//! changed and pushed ([`copies_told`]); a push that is told by both is one event.

use std::collections::BTreeSet;

use murmur_core::{
    event::{Draft, EventKind, Origin, RepoName, branch},
    id::{AgentId, WorkspaceId},
};
use murmur_proto::v1;

use super::put::put;
use crate::{
    agents::Work,
    db::{
        DbError,
        agent_run::{self, AgentRun},
        event_repo::{self, Copy, Registration, Source},
    },
    tasks::files_changed,
};

/// Files of one copy or push that are looked at.
pub(crate) const FILES_MAX: usize = 2000;
/// Files that an event names.
const FILES_SHOWN: usize = 50;

/// Somebody pushed.
#[derive(Debug, Clone)]
pub(crate) struct Push {
    /// Where.
    pub(crate) repo: RepoName,
    /// Without `refs/heads/`.
    pub(crate) branch: String,
    /// What the branch was before; empty when it is new or not known.
    pub(crate) base_sha: String,
    /// What it is now.
    pub(crate) head_sha: String,
    /// Paths from the repository's root.
    pub(crate) files: Vec<String>,
    /// For people.
    pub(crate) author: String,
    /// Who says so.
    pub(crate) origin: Origin,
    /// Names of files and authors were written by somebody outside of the workspace.
    pub(crate) untrusted: bool,
    /// Unix milliseconds.
    pub(crate) time_ms: u64,
    /// The agent that pushed, when it is known to be one of ours.
    pub(crate) by: Option<AgentId>,
}

/// Tells agents that have changed files which a push changes, too, and wakes the dormant items of all that work in the repository that fit.
/// Nobody is told of pushes to the branch that it works on itself. Says in whose logs it stands.
///
/// # Errors
/// [`DbError`].
pub(crate) async fn pushed(work: &mut Work, workspace_id: WorkspaceId, push: &Push) -> Result<Vec<String>, DbError> {
    let mut slugs = Vec::new();
    let own: BTreeSet<_> =
        event_repo::on_branch(work, workspace_id, &push.repo, &push.branch).await?.into_iter().collect();
    for (id, copy) in event_repo::in_repo(work, workspace_id, &push.repo).await? {
        if push.by == Some(id) || own.contains(&id) {
            continue;
        }
        let Some(run) = agent_run::get(work, workspace_id, id).await? else { continue };
        let woken = wake(work, &run, &push.files).await?;
        let files = copy.map(|copy| both(&copy.files, &push.files)).unwrap_or_default();
        if (!files.is_empty() || !woken.is_empty()) && put(work, &run, told(push, &files, &woken)).await? {
            slugs.push(run.slug.to_string());
        }
    }
    Ok(slugs)
}

/// Paths that stand in both lists.
fn both(changed: &[String], pushed: &[String]) -> Vec<String> {
    let pushed: BTreeSet<&String> = pushed.iter().collect();
    changed.iter().filter(|file| pushed.contains(file)).cloned().collect()
}

fn told(push: &Push, files: &[String], woken: &[String]) -> Draft {
    let Push { repo, branch, base_sha, head_sha, author, origin, untrusted, time_ms, .. } = push;
    let whose = if author.is_empty() { String::new() } else { format!(" by {author}") };
    let mut text = match files.len() {
        0 => format!("A push to {branch} of {repo}{whose} changed files that you wait for."),
        count => format!("{count} of the files that you have changed were changed on {branch} of {repo}{whose}:"),
    };
    for file in files.iter().take(FILES_SHOWN) {
        text.push_str("\n- ");
        text.push_str(file);
    }
    if files.len() > FILES_SHOWN {
        text.push_str(&format!("\n- and {} more", files.len() - FILES_SHOWN));
    }
    if !woken.is_empty() {
        text.push_str(&format!("\nItems of your checklist that it wakes: {}", woken.join(", ")));
    }
    let draft =
        Draft::new(EventKind::FileChanged, format!("murmur:push:{repo}:{branch}:{head_sha}"), origin.clone(), *time_ms)
            .with("repo", repo)
            .with("branch", branch)
            .with("base_sha", base_sha)
            .with("head_sha", head_sha)
            .with("count", files.len())
            .with("author", author)
            .text(text);
    Draft { untrusted: *untrusted, ..draft }
}

/// Wakes the agent's dormant items that one of the files fits.
async fn wake(work: &mut Work, run: &AgentRun, files: &[String]) -> Result<Vec<String>, DbError> {
    let paths: Vec<&str> = files.iter().map(String::as_str).collect();
    let now_ms = work.now_ms();
    let woken = files_changed(work, run.agent_id, &paths, now_ms).await?;
    if !woken.is_empty() {
        work.touch(run);
    }
    Ok(woken.iter().map(ToString::to_string).collect())
}

/// Takes what a node tells of an agent's working copies: where they stand, what they have changed, what was pushed from them.
///
/// # Errors
/// [`DbError`].
pub(crate) async fn copies_told(work: &mut Work, run: &AgentRun, copies: &[v1::WorkingCopy]) -> Result<(), DbError> {
    for told in copies {
        // A folder without a name is nobody else's.
        let Ok(repo) = told.clone_url.parse::<RepoName>() else { continue };
        let on = branch(&told.branch).to_owned();
        let new = Registration { repo: repo.clone(), branch: on.clone(), pr: 0 };
        for old in event_repo::of_source(work, run.agent_id, Source::Node).await? {
            if old.repo == repo && old != new {
                event_repo::remove(work, run.agent_id, Source::Node, &old).await?;
            }
        }
        if !on.is_empty() {
            event_repo::add(work, (run.workspace_id, run.agent_id), Source::Node, &new).await?;
        }
        let files = plain(&told.changed_files);
        let before = event_repo::copy(work, run.agent_id, &repo).await?.map(|copy| copy.files).unwrap_or_default();
        let fresh: Vec<String> = files.iter().filter(|file| !before.contains(file)).cloned().collect();
        wake(work, run, &fresh).await?;
        let copy = Copy {
            repo: repo.clone(),
            branch: on.clone(),
            base_sha: told.base_sha.clone(),
            head_sha: told.head_sha.clone(),
            files,
        };
        event_repo::set_copy(work, run.agent_id, &copy).await?;
        if !told.pushed_sha.is_empty() {
            let push = Push {
                repo,
                branch: on,
                base_sha: told.pushed_base_sha.clone(),
                head_sha: told.pushed_sha.clone(),
                files: plain(&told.pushed_files),
                author: run.slug.to_string(),
                origin: Origin::Agent(run.slug.clone()),
                untrusted: false,
                time_ms: work.now_ms(),
                by: Some(run.agent_id),
            };
            pushed(work, run.workspace_id, &push).await?;
        }
    }
    Ok(())
}

/// Names that stay on their lines. Others are no files of anybody's work.
fn plain(files: &[String]) -> Vec<String> {
    let is_plain = |file: &&String| !file.is_empty() && !file.chars().any(char::is_control);
    files.iter().filter(is_plain).take(FILES_MAX).cloned().collect()
}
