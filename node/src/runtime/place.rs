//! The folders and files of an agent, all of them its owner's alone.
//!
//! ```text
//! agents/<id>/work          where it works; a worktree for each of its repositories
//! agents/<id>/work.part     a copy of another agent's that is not whole yet
//! agents/<id>/token         its token (0600)
//! agents/<id>/mcp.json      the MCP servers that it has
//! agents/<id>/prompt        the prompt of the turn
//! agents/<id>/request       the call that the turn is, of a hosted agent
//! agents/<id>/history.jsonl prompts and answers, one turn a line
//! agents/<id>/runs/<n>/     a process: see `keeper`
//! agents/<id>/output/       what its processes said
//! agents/<id>/notes/        what the node notes
//! agents/<id>/cleared       when all but the history was deleted
//! ```

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use murmur_core::id::AgentId;
use serde::Serialize;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use super::keeper::log::{LogWriter, Source};

/// Notes take no more than this.
const NOTES_BYTES_MAX: u64 = 256 * 1024;

/// Where an agent is on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    dir: PathBuf,
}

/// A turn in `history.jsonl`.
#[derive(Debug, Serialize)]
pub(super) struct Past<'a> {
    pub(super) incarnation: u32,
    pub(super) turn: u32,
    pub(super) time_ms: u64,
    pub(super) prompt: &'a str,
    pub(super) answer: &'a str,
}

impl Place {
    pub(super) fn new(runtime: &Path, agent: AgentId) -> Self {
        Self { dir: runtime.join("agents").join(agent.to_string()) }
    }

    pub(super) fn make(&self) -> io::Result<()> {
        for dir in [self.dir.clone(), self.work(), self.dir.join("runs"), self.output(), self.notes()] {
            crate::identity::create_private_dir(&dir)?;
        }
        Ok(())
    }

    pub(super) fn work(&self) -> PathBuf {
        self.dir.join("work")
    }

    pub(super) fn token(&self) -> PathBuf {
        self.dir.join("token")
    }

    pub(super) fn mcp_config(&self) -> PathBuf {
        self.dir.join("mcp.json")
    }

    pub(super) fn prompt(&self) -> PathBuf {
        self.dir.join("prompt")
    }

    pub(super) fn request(&self) -> PathBuf {
        self.dir.join("request")
    }

    pub(super) fn history(&self) -> PathBuf {
        self.dir.join("history.jsonl")
    }

    pub(super) fn run(&self, number: u32) -> PathBuf {
        self.dir.join("runs").join(number.to_string())
    }

    pub(super) fn dir(&self) -> PathBuf {
        self.dir.clone()
    }

    pub(super) fn runs(&self) -> PathBuf {
        self.dir.join("runs")
    }

    pub(super) fn cleared_file(&self) -> PathBuf {
        self.dir.join("cleared")
    }

    pub(super) fn output(&self) -> PathBuf {
        self.dir.join("output")
    }

    pub(super) fn notes(&self) -> PathBuf {
        self.dir.join("notes")
    }

    /// Forgets all processes but the newest.
    pub(super) async fn drop_runs_before(&self, number: u32) {
        let runs = self.runs();
        // What could not be deleted is tried again before the next process.
        drop(spawn_blocking(move || drop_runs(&runs, number)).await);
    }

    /// Adds a turn to the history.
    pub(super) fn remember(&self, past: &Past<'_>) -> io::Result<()> {
        let mut line = serde_json::to_vec(past)?;
        line.push(b'\n');
        let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(self.history())?;
        file.write_all(&line)
    }

    /// Notes something for whoever reads the output.
    pub(super) fn note(&self, time_ms: u64, text: &str) {
        let noted = LogWriter::append(&self.notes(), NOTES_BYTES_MAX)
            .and_then(|mut log| log.write(Source::Note, time_ms, format!("{text}\n").as_bytes()));
        if let Err(error) = noted {
            tracing::warn!(%error, "a note is lost");
        }
    }

    /// Begins with a copy of what another agent left: its history and what lies in its folder beside the working copies of repositories.
    /// What a node that was killed has left of such a copy is replaced; one that is whole stays as it is.
    ///
    /// # Errors
    /// [`io::Error`].
    pub(super) async fn copy_from(&self, other: Self) -> io::Result<()> {
        let (place, stop) = (self.clone(), CancellationToken::new());
        // A copy that nobody waits for any more is not gone on with.
        let _given_up = stop.clone().drop_guard();
        spawn_blocking(move || place.copy_here(&other, &stop)).await.map_err(io::Error::other)?
    }

    /// Blocks on the disk. The folder appears whole, and the history last: where it is, there is nothing left to copy.
    ///
    /// # Errors
    /// [`io::Error`]; `Interrupted` when it was stopped.
    fn copy_here(&self, other: &Self, stop: &CancellationToken) -> io::Result<()> {
        // An earlier copy that was given up may not have ended yet.
        let alone = File::open(&self.dir)?;
        alone.lock()?;
        if self.history().exists() {
            return Ok(());
        }
        let part = self.dir.join("work.part");
        if part.exists() {
            fs::remove_dir_all(&part)?;
        }
        // With something in it, it was copied already: nothing else puts anything there before.
        if fs::read_dir(self.work())?.next().is_none() {
            crate::identity::create_private_dir(&part)?;
            copy_dir(&other.work(), &part, stop)?;
            fs::rename(&part, self.work())?;
        }
        self.copy_history(other)
    }

    fn copy_history(&self, other: &Self) -> io::Result<()> {
        let part = self.dir.join("history.part");
        match fs::copy(other.history(), &part) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(_) => fs::rename(part, self.history()),
        }
    }
}

fn drop_runs(runs: &Path, before: u32) {
    let Ok(entries) = fs::read_dir(runs) else { return };
    for entry in entries.flatten() {
        let is_old = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()).is_some_and(|n| n < before);
        if is_old {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn copy_dir(from: &Path, to: &Path, stop: &CancellationToken) -> io::Result<()> {
    let entries = match fs::read_dir(from) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    crate::identity::create_private_dir(to)?;
    for entry in entries {
        if stop.is_cancelled() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let entry = entry?;
        let (kind, target) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_dir() {
            // A worktree belongs to its agent: the other one gets its own.
            if !entry.path().join(".git").exists() {
                copy_dir(&entry.path(), &target, stop)?;
            }
        } else if kind.is_file() {
            fs::copy(entry.path(), target)?;
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(entry.path())?, target)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::symlink, sync::mpsc};

    use super::*;

    /// An agent that left a file, a link, a folder and a working copy, and the place of a fork of it.
    fn places(home: &Path, has_history: bool) -> (Place, Place) {
        let [other, place] = [1, 2].map(|n| Place::new(home, AgentId::from_bytes([n; 16])));
        other.make().unwrap();
        place.make().unwrap();
        fs::create_dir_all(other.work().join("folder")).unwrap();
        fs::create_dir_all(other.work().join("copy/.git")).unwrap();
        fs::write(other.work().join("folder/file"), "text").unwrap();
        symlink("folder/file", other.work().join("link")).unwrap();
        if has_history {
            fs::write(other.history(), "{}\n").unwrap();
        }
        (other, place)
    }

    fn assert_whole(place: &Place, has_history: bool) {
        assert_eq!(fs::read_to_string(place.work().join("link")).unwrap(), "text");
        assert!(!place.work().join("copy").exists(), "a working copy is its agent's own");
        assert_eq!(place.history().exists(), has_history);
        let part = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().ends_with(".part");
        assert_eq!(fs::read_dir(place.dir()).unwrap().flatten().filter(part).count(), 0);
    }

    #[tokio::test]
    async fn a_copy_that_was_cut_short_anywhere_is_made_whole() {
        for has_history in [true, false] {
            let home = tempfile::tempdir().unwrap();
            let (other, place) = places(home.path(), has_history);
            let stop = CancellationToken::new();
            stop.cancel();
            let ended = place.copy_here(&other, &stop).unwrap_err();
            assert_eq!(ended.kind(), io::ErrorKind::Interrupted);
            assert!(!place.history().exists(), "it would pass for a whole copy");
            // Killed while it was copying.
            fs::create_dir_all(place.dir().join("work.part")).unwrap();
            symlink("half", place.dir().join("work.part/link")).unwrap();
            if has_history {
                fs::write(place.dir().join("history.part"), "{").unwrap();
            }
            place.copy_from(other.clone()).await.unwrap();
            assert_whole(&place, has_history);
            // Killed between the folder and the history.
            let _ = fs::remove_file(place.history());
            place.copy_from(other).await.unwrap();
            assert_whole(&place, has_history);
        }
    }

    #[tokio::test]
    async fn what_an_agent_has_done_since_is_not_copied_over() {
        let home = tempfile::tempdir().unwrap();
        let (other, place) = places(home.path(), false);
        place.copy_from(other.clone()).await.unwrap();
        fs::write(place.work().join("folder/file"), "mine").unwrap();
        place.copy_from(other).await.unwrap();
        assert_eq!(fs::read_to_string(place.work().join("link")).unwrap(), "mine");
    }

    #[test]
    fn a_folder_is_copied_and_deleted_by_no_thread_that_serves_others() {
        let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
        let home = tempfile::tempdir().unwrap();
        let (other, place) = places(home.path(), true);
        fs::create_dir_all(place.run(1)).unwrap();
        fs::create_dir_all(place.run(2)).unwrap();
        runtime.block_on(async {
            // As long as the only thread that may block is busy, nothing happens, and this one goes on.
            let (free, busy) = mpsc::channel::<()>();
            let held = spawn_blocking(move || busy.recv().is_ok());
            let mut working = Box::pin(async { tokio::join!(place.copy_from(other), place.drop_runs_before(2)) });
            assert!(futures::poll!(&mut working).is_pending());
            assert!(place.run(1).exists() && !place.work().join("link").exists());
            drop(free);
            held.await.unwrap();
            working.await.0.unwrap();
        });
        assert_whole(&place, true);
        assert!(!place.run(1).exists() && place.run(2).exists());
    }
}
