//! What node and keeper tell each other in files.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::runtime::config::Limits;

/// What to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The program.
    pub program: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// All of its environment.
    pub env: BTreeMap<String, String>,
    /// Where it starts.
    pub dir: PathBuf,
    /// What it reads.
    pub stdin: Stdin,
    /// What it may use.
    pub limits: Limits,
    /// The folder of the log.
    pub log: PathBuf,
    /// Bytes that the log may have.
    pub log_bytes_max: u64,
}

/// What a program reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stdin {
    /// Nothing.
    Null,
    /// A file.
    File(PathBuf),
    /// The pipe `stdin` of the run, until the keeper gets SIGUSR1.
    Pipe,
}

/// Which processes run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The keeper.
    pub keeper_pid: i32,
    /// The program, which leads its process group.
    pub pid: i32,
    /// When the program started, in the kernel's ticks since the boot; 0 where the kernel does not tell.
    pub start_ticks: u64,
    /// Which boot of the machine that was.
    pub boot_id: String,
}

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// What it returned, if it ended by itself.
    pub code: Option<i32>,
    /// Which signal ended it.
    pub signal: Option<i32>,
    /// Unix time in milliseconds.
    pub time_ms: u64,
}

/// What the keeper says when it has started the program, or could not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Started {
    /// It runs.
    Running(Run),
    /// It does not.
    Failed(String),
}

impl Exit {
    /// Whether the program says that all is well.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.code == Some(0)
    }

    /// For people.
    #[must_use]
    pub fn describe(&self) -> String {
        match (self.code, self.signal) {
            (Some(code), _) => format!("exit code {code}"),
            (None, Some(signal)) => match nix::sys::signal::Signal::try_from(signal) {
                Ok(name) => format!("ended by {name}"),
                Err(_) => format!("ended by signal {signal}"),
            },
            (None, None) => "ended".to_owned(),
        }
    }
}

/// Writes a file of mode 0600, whole or not at all, and on the disk when this returns.
///
/// # Errors
/// [`io::Error`].
pub fn write(path: &Path, value: &impl Serialize) -> io::Result<()> {
    write_bytes(path, &serde_json::to_vec(value)?)
}

/// As [`write`], for bytes.
///
/// # Errors
/// [`io::Error`].
pub fn write_bytes(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    let draft = PathBuf::from(draft);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

/// Reads what [`write`] wrote; `None` when it is not there.
///
/// # Errors
/// [`io::Error`].
pub fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Who decides whether the program of a run is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claimant {
    /// The keeper, which is about to start it. It holds the bell before: a claim of a keeper, and nobody at the bell, says that it has ended.
    Keeper,
    /// A node that found nobody at the bell. The program is never started by this run.
    Node,
}

/// Claims the start of a run's program; false when that was done before. On the disk when this returns.
///
/// # Errors
/// [`io::Error`]; nothing is claimed then.
pub fn claim_start(run: &Path, claimant: Claimant) -> io::Result<bool> {
    let word = if claimant == Claimant::Keeper { KEEPER } else { NODE };
    // A link is there whole or not at all.
    match std::os::unix::fs::symlink(word, claim_path(run)) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
        Err(error) => return Err(error),
    }
    let synced = File::open(run).and_then(|folder| folder.sync_all());
    if synced.is_err() {
        let _ = release_start(run);
    }
    synced.map(|()| true)
}

/// Who has claimed the start of a run's program.
///
/// # Errors
/// [`io::Error`].
pub fn claimed(run: &Path) -> io::Result<Option<Claimant>> {
    match fs::read_link(claim_path(run)) {
        Ok(word) if word == Path::new(NODE) => Ok(Some(Claimant::Node)),
        Ok(_) => Ok(Some(Claimant::Keeper)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Takes back a claim whose holder started nothing.
///
/// # Errors
/// [`io::Error`].
pub fn release_start(run: &Path) -> io::Result<()> {
    fs::remove_file(claim_path(run))
}

const KEEPER: &str = "keeper";
const NODE: &str = "node";

fn claim_path(run: &Path) -> PathBuf {
    run.join("claim")
}

/// When a process started, in the kernel's ticks since the boot.
#[must_use]
pub fn start_ticks(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold anything; what counts comes after its last bracket.
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// Which boot of the machine this is; empty where the kernel does not tell.
#[must_use]
pub fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}
