//! Clears the folders of agents that ended some time ago, and deletes what is left of those that can no longer be resurrected.
//!
//! Prompts and answers stay until the control plane has let the agent go: an agent that is resurrected finds its history. What is not
//! committed, or lies in a repository of the agent's own that was pushed nowhere, is never deleted.

use std::{
    ffi::OsStr,
    fs, io,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    process::Output,
    sync::Arc,
    time::Duration,
};

use murmur_core::id::AgentId;
use murmur_proto::v1::Phase;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tracing::{info, warn};

use super::{Runtime, Workshop, keeper::plan, place::Place, state::State};
use crate::store::{StoreError, runtime as table};

/// So often it is looked again at what could not be cleared, and asked what can be deleted.
const ROUND: Duration = Duration::from_secs(24 * 3600);
/// Ends that fall into so long a time are cleared together.
const TOGETHER_MS: u64 = 60_000;
/// Agents that the control plane is asked about in one go.
const ASKED_MAX: usize = 1_000;

/// The working directory itself, as a name of what stays.
const WHOLE: &str = ".";

/// What is written into a folder that was cleared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cleared {
    /// Unix milliseconds.
    pub(super) at_ms: u64,
    /// Names of what stayed, because something in it is nowhere else.
    pub(super) kept: Vec<String>,
}

impl Runtime {
    /// Works until the node goes down.
    pub(super) async fn keep_clear(self: &Arc<Self>) {
        let keep_ms = self.shop.config.keep_ms;
        if keep_ms == 0 {
            return;
        }
        let together_ms = TOGETHER_MS.min(keep_ms);
        let cleared = async {
            loop {
                let next = self.clear_due(keep_ms).await.unwrap_or_else(|error| {
                    warn!(%error, "folders of agents that have ended cannot be cleared");
                    None
                });
                let left = next.map(|at_ms| at_ms.saturating_sub(self.shop.clock.now_ms()) + together_ms);
                let mut at = Instant::now() + left.map_or(ROUND, Duration::from_millis).min(ROUND);
                loop {
                    tokio::select! {
                        () = tokio::time::sleep_until(at) => break,
                        () = self.shop.ended.notified() => {
                            at = at.min(Instant::now() + Duration::from_millis(keep_ms + together_ms));
                        }
                    }
                }
            }
        };
        tokio::select! { () = cleared => {} () = self.shop.stop.cancelled() => {} }
    }

    /// Clears what is due, and says when the next one is.
    async fn clear_due(&self, keep_ms: u64) -> Result<Option<u64>, StoreError> {
        let before_ms = self.shop.clock.now_ms().saturating_sub(keep_ms);
        let (mut next, mut is_asked) = (None, false);
        for (agent, ended_ms) in self.shop.ended().await? {
            if ended_ms > before_ms {
                next = next.or(Some(ended_ms + keep_ms));
                continue;
            }
            if self.shop.clear(agent, before_ms).await? {
                is_asked = true;
            }
        }
        if is_asked {
            // Whether something of these is to stay at all.
            self.shop.tell_again.notify_one();
        }
        Ok(next)
    }
}

impl Workshop {
    /// Agents that have ended and whose folders were cleared, the longest ended first.
    pub(super) async fn cleared(&self) -> Result<Vec<String>, StoreError> {
        let ended = self.ended().await?;
        let is_cleared = |agent: &AgentId| Place::new(&self.dir, *agent).cleared().is_some();
        let cleared = ended.into_iter().map(|(agent, _)| agent).filter(is_cleared);
        Ok(cleared.take(ASKED_MAX).map(|agent| agent.to_string()).collect())
    }

    /// Clears the folder of an agent that ended before a time. Says whether there is something left of it.
    async fn clear(&self, agent: AgentId, before_ms: u64) -> Result<bool, StoreError> {
        let place = Place::new(&self.dir, agent);
        let before = place.cleared();
        if before.as_ref().is_some_and(|cleared| cleared.kept.is_empty()) {
            return Ok(true);
        }
        // Nobody begins to live there meanwhile.
        let _alone = self.clearing.write().await;
        let Some(slug) = self.ended_before(agent, before_ms).await? else { return Ok(false) };
        let kept = self.unsaved_work(&place).await;
        let cleared = Cleared { at_ms: self.clock.now_ms(), kept };
        if before.as_ref().is_some_and(|before| before.kept == cleared.kept) {
            return Ok(true);
        }
        if let Err(error) = place.clear(&cleared) {
            warn!(agent.id = %agent, %error, "the folder of {slug} cannot be cleared");
            return Ok(false);
        }
        match cleared.kept.as_slice() {
            [] => info!(agent.id = %agent, "the folder of {slug}, which has ended, is cleared"),
            kept => info!(
                agent.id = %agent,
                "the folder of {slug}, which has ended, is cleared; what is saved nowhere else stays in {}: {}",
                place.work().display(),
                kept.join(", ")
            ),
        }
        Ok(true)
    }

    /// Deletes what is left of an agent that nobody can resurrect any more; what is nowhere else stays.
    pub(super) async fn forget(&self, agent: AgentId) -> Result<(), StoreError> {
        let place = Place::new(&self.dir, agent);
        let _alone = self.clearing.write().await;
        let Some(slug) = self.ended_before(agent, u64::MAX).await? else { return Ok(()) };
        if !self.unsaved_work(&place).await.is_empty() {
            return Ok(());
        }
        if let Err(error) = place.remove() {
            warn!(agent.id = %agent, %error, "what is left of {slug} cannot be deleted");
            return Ok(());
        }
        self.store.write(move |tx| table::forget(tx, agent)).await?;
        info!(agent.id = %agent, "what was left of {slug} is deleted");
        Ok(())
    }

    /// Agents that have ended here, with when, Unix milliseconds, the longest ended first.
    async fn ended(&self) -> Result<Vec<(AgentId, u64)>, StoreError> {
        let resting = self.store.read(table::resting).await?;
        let ended = resting.into_iter().filter(|row| Phase::try_from(row.phase).is_ok_and(is_end));
        Ok(ended.map(|row| (row.agent_id, row.updated_ms)).collect())
    }

    /// The slug of an agent that ended before a time, as it is now.
    async fn ended_before(&self, agent: AgentId, before_ms: u64) -> Result<Option<String>, StoreError> {
        let resting = self.store.read(move |tx| table::resting_one(tx, agent)).await?;
        let is_due = |row: &table::Resting| Phase::try_from(row.phase).is_ok_and(is_end) && row.updated_ms <= before_ms;
        if !resting.as_ref().is_some_and(is_due) {
            return Ok(None);
        }
        let row = self.store.read(move |tx| table::get(tx, agent)).await?;
        Ok(row.map(|row| serde_json::from_str::<State>(&row.state).map(|state| state.slug).unwrap_or_default()))
    }

    /// Folders of an agent in which something is that is nowhere else.
    async fn unsaved_work(&self, place: &Place) -> Vec<String> {
        let mut kept = Vec::new();
        for folder in folders(&place.work()) {
            if self.is_unsaved(&folder).await {
                let name = folder.strip_prefix(place.work()).unwrap_or(&folder).display().to_string();
                kept.push(if name.is_empty() { WHOLE.to_owned() } else { name });
            }
        }
        kept.sort();
        kept
    }

    /// Whether a working copy has what nobody committed, or a repository of its own has what nobody pushed. One that git cannot read
    /// stays, too.
    async fn is_unsaved(&self, folder: &Path) -> bool {
        let says = |output: io::Result<Output>| {
            let output = output.ok().filter(|output| output.status.success())?;
            Some(!output.stdout.trim_ascii().is_empty())
        };
        let status = ["status", "--porcelain", "--ignore-submodules=dirty"];
        let is_changed = says(self.mirrors.git_on_files(folder, None, &status).await).unwrap_or(true);
        // The commits of a worktree of ours are in the mirror.
        let is_own = folder.join(".git").is_dir();
        let log = ["log", "--all", "--not", "--remotes", "-1", "--format=%H"];
        is_changed
            || self.has_repository_inside(folder).await
            || is_own && says(self.mirrors.git(folder, &log).await).unwrap_or(true)
    }

    /// Whether a submodule is checked out. Git would look into it by its own configuration, which an agent may have written, so it is not asked.
    async fn has_repository_inside(&self, folder: &Path) -> bool {
        let listed = self.mirrors.git(folder, &["ls-files", "--stage", "-z"]).await;
        let Some(listed) = listed.ok().filter(|listed| listed.status.success()) else { return true };
        let paths = listed.stdout.split(|byte| *byte == 0).filter(|entry| entry.starts_with(b"160000 "));
        let mut paths = paths.filter_map(|entry| entry.splitn(2, |byte| *byte == b'\t').nth(1));
        paths.any(|path| folder.join(OsStr::from_bytes(path)).join(".git").exists())
    }
}

/// Working copies at the top of a folder.
fn folders(work: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(work).into_iter().flatten().flatten();
    let inside = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path());
    std::iter::once(work.to_owned()).chain(inside).filter(|folder| folder.join(".git").exists()).collect()
}

/// Whether a phase is an end.
fn is_end(phase: Phase) -> bool {
    matches!(phase, Phase::Completed | Phase::Failed | Phase::Canceled)
}

impl Place {
    /// When the folder was cleared, if it was since the agent lived last.
    pub(super) fn cleared(&self) -> Option<Cleared> {
        plan::read(&self.cleared_file()).ok().flatten()
    }

    /// The agent lives there again.
    pub(super) fn settle(&self) {
        // One that stays is overwritten with the next clearing.
        let _ = fs::remove_file(self.cleared_file());
    }

    /// Leaves nothing but the history and what is to be kept.
    fn clear(&self, cleared: &Cleared) -> io::Result<()> {
        let is_kept = |path: &Path| {
            let name = path.strip_prefix(self.work()).unwrap_or(path).display().to_string();
            cleared.kept.contains(&name)
        };
        for dir in [self.runs(), self.output(), self.notes()] {
            remove(&dir)?;
        }
        for file in [self.token(), self.mcp_config(), self.prompt(), self.request()] {
            remove(&file)?;
        }
        if !cleared.kept.iter().any(|name| name == WHOLE) {
            for entry in fs::read_dir(self.work()).into_iter().flatten() {
                let path = entry?.path();
                if !is_kept(&path) {
                    remove(&path)?;
                }
            }
        }
        let rest = match cleared.kept.as_slice() {
            [] => String::new(),
            kept => format!("; what is saved nowhere else stays in {}: {}", self.work().display(), kept.join(", ")),
        };
        // Before the marker: a crash between them repeats the note, which tells where unsaved work is, rather than losing it.
        crate::identity::create_private_dir(&self.notes())?;
        self.note(cleared.at_ms, &format!("its folder was cleared some time after its end, with its output{rest}"));
        plan::write(&self.cleared_file(), cleared)
    }

    fn remove(&self) -> io::Result<()> {
        remove(&self.dir())
    }
}

/// Removes a file or folder; links are not followed, and what is not there is removed.
fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(there) if there.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
