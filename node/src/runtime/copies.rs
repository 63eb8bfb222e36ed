//! What an agent has made of its working copies, by git's own word: what it changed against its base, what it committed and pushed.
//!
//! An agent may have written anything into its copy: only git's plain commands are used, which run no hook, no pager and no program that
//! shows differences, and with the few variables that [`Mirrors`] gives them.

use std::{collections::BTreeSet, io, path::Path, process::Output, time::Duration};

use murmur_proto::v1::{TimelineEntry, TimelineKind, WorkingCopy};
use tokio::time::timeout;
use tracing::warn;

use super::{git::Mirrors, life::Life, prepare::folders, state::Stand};

/// Of one list that is told.
const FILES_MAX: usize = 2000;
/// Commits of a turn that the timeline names.
const COMMITS_MAX: usize = 20;
/// A copy that takes longer is told of after another turn.
const LOOK_TIME: Duration = Duration::from_secs(10);
/// The tree of no files: what a history without a base is compared with.
const NOTHING: &str = "4b825dc642cb6eb9a060e54bf8d69288fbee4904";

impl Life {
    /// Remembers where the copies stand before the first turn, so that only what the agent itself does is told.
    pub(super) async fn note_copies(&mut self) {
        for (repo, dir) in self.spec.repos.iter().zip(folders(&self.place, &self.spec)) {
            if !self.state.copies.contains_key(&repo.clone_url)
                && let Ok(Some(stand)) = timeout(LOOK_TIME, self.shop.mirrors.stand(&dir)).await
            {
                self.state.copies.insert(repo.clone_url.clone(), stand.0);
            }
        }
    }

    /// What is to be told of the copies after a turn, and what the timeline says of it.
    pub(super) async fn look_at_copies(&mut self) -> (Vec<WorkingCopy>, Vec<TimelineEntry>) {
        let (mut copies, mut entries) = (Vec::new(), Vec::new());
        for (repo, dir) in self.spec.repos.iter().zip(folders(&self.place, &self.spec)) {
            let before = self.state.copies.get(&repo.clone_url).cloned().unwrap_or_default();
            let looked = timeout(LOOK_TIME, self.shop.mirrors.look(&dir, &repo.base_branch, &before)).await;
            let Ok(Some(Look { stand, copy, commits })) = looked else {
                warn!(agent.slug = %self.whom.slug, "git does not tell what agent {} has changed", self.whom.slug);
                continue;
            };
            let entry = |kind: TimelineKind, text: String| TimelineEntry {
                kind: kind.into(),
                text,
                ..TimelineEntry::default()
            };
            entries.extend(commits.into_iter().map(|commit| entry(TimelineKind::Commit, commit)));
            if !copy.pushed_sha.is_empty() {
                let short = copy.pushed_sha.get(..10).unwrap_or(&copy.pushed_sha);
                entries.push(entry(TimelineKind::Push, format!("{} at {short}", copy.branch)));
            }
            copies.push(WorkingCopy { clone_url: repo.clone_url.clone(), ..copy });
            self.state.copies.insert(repo.clone_url.clone(), stand);
        }
        (copies, entries)
    }
}

/// A look at a copy.
#[derive(Debug)]
struct Look {
    stand: Stand,
    copy: WorkingCopy,
    /// Oldest first.
    commits: Vec<String>,
}

impl Mirrors {
    /// Where a copy stands, and on which branch; `None` when there is none.
    async fn stand(&self, dir: &Path) -> Option<(Stand, String)> {
        // Without it git would look further up, and find what is not the agent's.
        if !dir.join(".git").exists() {
            return None;
        }
        let head = self.line(dir, &["rev-parse", "--verify", "--quiet", "HEAD"]).await?;
        let branch = self.line(dir, &["symbolic-ref", "--quiet", "--short", "HEAD"]).await.unwrap_or_default();
        let theirs = format!("refs/remotes/origin/{branch}");
        let pushed = match branch.is_empty() {
            true => None,
            false => self.line(dir, &["rev-parse", "--verify", "--quiet", &theirs]).await,
        };
        Some((Stand { head, pushed: pushed.unwrap_or_default() }, branch))
    }

    async fn look(&self, dir: &Path, base_branch: &str, before: &Stand) -> Option<Look> {
        let (stand, branch) = self.stand(dir).await?;
        let base = if base_branch.is_empty() { "HEAD" } else { base_branch };
        let base = self.line(dir, &["merge-base", "HEAD", &format!("refs/remotes/origin/{base}")]).await;
        let base_sha = base.unwrap_or_default();
        let mut changed = self.between(dir, &base_sha, &stand.head).await;
        changed.extend(self.names(dir, &["diff-index", "--cached", "--name-only", "-z", "HEAD"]).await);
        // Git would look into a repository inside by that one's own configuration.
        let differ = ["diff-files", "--ignore-submodules=dirty", "--name-only", "-z"];
        changed.extend(names(self.git_on_files(dir, None, &differ).await));
        changed.extend(self.names(dir, &["ls-files", "--others", "--exclude-standard", "-z"]).await);
        let mut copy = WorkingCopy {
            branch,
            base_sha: base_sha.clone(),
            head_sha: stand.head.clone(),
            changed_files: changed.into_iter().take(FILES_MAX).collect(),
            ..WorkingCopy::default()
        };
        // Somebody else's push to the branch is no commit of this copy until it is taken over.
        let is_new = !stand.pushed.is_empty() && stand.pushed != before.pushed;
        if is_new && self.is_ancestor(dir, &stand.pushed, &stand.head).await {
            copy.pushed_sha.clone_from(&stand.pushed);
            copy.pushed_base_sha.clone_from(&before.pushed);
            let from = if before.pushed.is_empty() { &base_sha } else { &before.pushed };
            copy.pushed_files = self.between(dir, from, &stand.pushed).await.into_iter().take(FILES_MAX).collect();
        }
        let commits = self.commits(dir, &before.head, &stand.head).await;
        Some(Look { stand, copy, commits })
    }

    /// Files that differ between two commits; without a first one, all of the second.
    async fn between(&self, dir: &Path, from: &str, to: &str) -> BTreeSet<String> {
        let from = if from.is_empty() { NOTHING } else { from };
        self.names(dir, &["diff-tree", "-r", "--name-only", "--no-renames", "-z", from, to]).await
    }

    async fn commits(&self, dir: &Path, from: &str, to: &str) -> Vec<String> {
        if from.is_empty() || from == to {
            return Vec::new();
        }
        let (count, range) = (format!("--max-count={COMMITS_MAX}"), format!("{from}..{to}"));
        let output = self.git(dir, &["log", "--reverse", "--format=%h %s", &count, &range, "--"]).await;
        let text = output.ok().filter(|output| output.status.success()).map(|output| output.stdout).unwrap_or_default();
        String::from_utf8_lossy(&text).lines().map(str::to_owned).collect()
    }

    async fn is_ancestor(&self, dir: &Path, old: &str, new: &str) -> bool {
        let output = self.git(dir, &["merge-base", "--is-ancestor", old, new]).await;
        output.is_ok_and(|output| output.status.success())
    }

    /// The only line that git answers; `None` when it answers nothing, or fails.
    async fn line(&self, dir: &Path, args: &[&str]) -> Option<String> {
        let output = self.git(dir, args).await.ok().filter(|output| output.status.success())?;
        let text = String::from_utf8(output.stdout).ok()?;
        let line = text.lines().next()?.trim();
        (!line.is_empty()).then(|| line.to_owned())
    }

    async fn names(&self, dir: &Path, args: &[&str]) -> BTreeSet<String> {
        names(self.git(dir, args).await)
    }
}

/// Names that git separates by zeros. One that is no text is nobody's to name.
fn names(output: io::Result<Output>) -> BTreeSet<String> {
    let Some(output) = output.ok().filter(|output| output.status.success()) else { return BTreeSet::new() };
    let names = output.stdout.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    names.filter_map(|name| String::from_utf8(name.to_vec()).ok()).collect()
}
