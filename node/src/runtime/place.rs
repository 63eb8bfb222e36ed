//! The folders and files of an agent, all of them its owner's alone.
//!
//! ```text
//! agents/<id>/work          where it works; a worktree for each of its repositories
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
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use murmur_core::id::AgentId;
use serde::Serialize;

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
    pub(super) fn drop_runs_before(&self, number: u32) {
        let Ok(entries) = fs::read_dir(self.dir.join("runs")) else { return };
        for entry in entries.flatten() {
            let is_old =
                entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()).is_some_and(|n| n < number);
            if is_old {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
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
    pub(super) fn copy_from(&self, other: &Self) -> io::Result<()> {
        match fs::copy(other.history(), self.history()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        copy_dir(&other.work(), &self.work())
    }
}

fn copy_dir(from: &Path, to: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(from) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    crate::identity::create_private_dir(to)?;
    for entry in entries {
        let entry = entry?;
        let (kind, target) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_dir() {
            // A worktree belongs to its agent: the other one gets its own.
            if !entry.path().join(".git").exists() {
                copy_dir(&entry.path(), &target)?;
            }
        } else if kind.is_file() {
            fs::copy(entry.path(), target)?;
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(entry.path())?, target)?;
        }
    }
    Ok(())
}
