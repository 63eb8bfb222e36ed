//! Background processes that outlive the command that started them, and can be found and ended again.
//!
//! Each has a pid file with its pid and a birth mark: the machine's boot id and the process's start time. A pid whose birth mark
//! differs belongs to somebody else by now and is never signalled. The child writes the file itself before it becomes the
//! program, so that a murmurctl killed in between leaves no process that nobody knows.

use std::{
    convert::Infallible,
    env,
    ffi::OsString,
    fs,
    io::{self, Read as _, Seek as _},
    os::unix::{fs::OpenOptionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::{
        signal::{Signal, kill},
        stat::{Mode, umask},
    },
    unistd::{Pid, setsid},
};
use serde::{Deserialize, Serialize};

use super::{
    binaries, broker,
    layout::{self, Layout},
};
use crate::failure::{Context as _, Failure};

/// How long a process may take to end by itself.
pub(crate) const GRACE: Duration = Duration::from_secs(10);
/// A killed process is gone at once, unless the kernel holds it in a system call.
const KILLED_WITHIN: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How much of a log an error shows.
const LOG_TAIL_LINES: usize = 5;
/// How much of a log is read for that.
const LOG_TAIL_BYTES: u64 = 16 * 1024;

/// How much the heap of a Go program grows before it is collected, in percent.
const GO_GC: &str = "GOGC";
/// The broker's live heap is a few MiB: it is collected less often for some tens of MiB more, and messages cost it a sixth less.
const GO_GC_BROKER: &str = "400";

/// This program's own variables. They begin like those of the parts, which refuse what they do not know, and mean other things.
pub(super) const OURS: [&str; 7] = [
    "MURMUR_DATA_DIR",
    "MURMUR_NODE_SOCKET",
    "MURMUR_SERVER_URL",
    "MURMUR_SERVER_CA",
    "MURMUR_TOKEN_FILE",
    "MURMUR_AGENT",
    "MURMUR_AGENT_TOKEN_FILE",
];

/// What to start.
#[derive(Debug)]
pub(crate) struct Spec {
    /// The part's name, which names its pid file and log.
    pub(crate) part: String,
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<OsString>,
}

/// A process known by pid and birth mark.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    birth: String,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// There was none.
    NotRunning,
    /// By itself, after SIGTERM.
    Terminated,
    /// By SIGKILL, after its time was over.
    Killed,
}

impl Process {
    /// The running process of a part, if there is one.
    pub(crate) fn find(layout: &Layout, part: &str) -> Result<Option<Self>, Failure> {
        let Some(text) = layout::read_optional(&layout.pid_file(part))? else { return Ok(None) };
        // A half-written file was the child's that died writing it.
        let process = serde_json::from_str::<Self>(&text).ok();
        Ok(process.filter(Self::is_alive))
    }

    /// Starts a part in a session of its own, its output appended to its log.
    pub(crate) fn spawn(layout: &Layout, spec: Spec) -> Result<Self, Failure> {
        mark_log(layout, &spec.part)?;
        let child = Self::command(layout, &spec)?.spawn().context(format!("starting `{}`", spec.program.display()))?;
        let Spec { part, program, args: _ } = spec;
        let pid = i32::try_from(child.id()).map_err(|_| Failure::failed("the pid is out of range"))?;
        let birth = birth(pid).ok_or_else(|| {
            Failure::failed(format!("{} ended at once", program.display())).remedy(log_hint(layout, &part))
        })?;
        Ok(Self { pid, birth })
    }

    /// The command that becomes a part: it leaves the session and signs the pid file first.
    pub(crate) fn command(layout: &Layout, spec: &Spec) -> Result<Command, Failure> {
        let Spec { part, program, args } = spec;
        let doing = || format!("starting `{}`", program.display());
        let log = layout.log(part);
        let out = fs::OpenOptions::new().create(true).append(true).mode(0o600).open(log).context(doing())?;
        let err = out.try_clone().context(doing())?;
        let mut command = Command::new(binaries::own()?);
        command.arg("internal-detach").arg(layout.pid_file(part)).arg("--").arg(program).args(args);
        for name in OURS {
            command.env_remove(name);
        }
        if part == broker::PART && env::var_os(GO_GC).is_none() {
            command.env(GO_GC, GO_GC_BROKER);
        }
        // A lock or pipe of whoever called stays with them: what is started here lives long.
        close_fds::set_fds_cloexec_threadsafe(3, &[]);
        command.current_dir(layout.root()).stdin(Stdio::null()).stdout(out).stderr(err);
        Ok(command)
    }

    /// Whether it still runs. A zombie does not.
    pub(crate) fn is_alive(&self) -> bool {
        birth(self.pid).as_deref() == Some(self.birth.as_str())
    }

    /// Sends a signal to this process and no other; nothing when it has ended.
    pub(crate) fn signal(&self, signal: Signal) -> Result<(), Failure> {
        if !self.is_alive() {
            return Ok(());
        }
        match kill(Pid::from_raw(self.pid), signal) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(error) => Err(error).context(format!("signalling process {}", self.pid)),
        }
    }

    /// Ends it: SIGTERM, and SIGKILL when it has not ended within `grace`.
    pub(crate) async fn end(&self, grace: Duration) -> Result<Ended, Failure> {
        if !self.is_alive() {
            return Ok(Ended::NotRunning);
        }
        self.signal(Signal::SIGTERM)?;
        // A stopped process would not see it otherwise.
        self.signal(Signal::SIGCONT)?;
        if self.gone_within(grace).await {
            return Ok(Ended::Terminated);
        }
        self.signal(Signal::SIGKILL)?;
        if self.gone_within(KILLED_WITHIN).await {
            return Ok(Ended::Killed);
        }
        Err(Failure::failed(format!("process {} does not end, not even by SIGKILL", self.pid)))
    }

    async fn gone_within(&self, bound: Duration) -> bool {
        let deadline = Instant::now() + bound;
        while self.is_alive() {
            if Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        true
    }
}

/// Ends the process of a part, if there is one, and forgets it.
pub(crate) async fn end_part(layout: &Layout, part: &str, grace: Duration) -> Result<Ended, Failure> {
    let ended = match Process::find(layout, part)? {
        Some(process) => process.end(grace).await?,
        None => Ended::NotRunning,
    };
    match fs::remove_file(layout.pid_file(part)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).context(format!("removing `{}`", layout.pid_file(part).display()))
        }
        _ => Ok(ended),
    }
}

/// The child's side of [`Process::spawn`]: leaves the session, signs the pid file and becomes the program.
pub(crate) fn detach(pid_file: &Path, program: &OsString, args: &[OsString]) -> Result<Infallible, Failure> {
    setsid().context("leaving the session")?;
    umask(Mode::from_bits_truncate(0o077));
    let pid = Pid::this().as_raw();
    let birth = birth(pid).ok_or_else(|| Failure::failed("reading the own start time"))?;
    let text = serde_json::to_string(&Process { pid, birth }).context("encoding the pid file")?;
    layout::write_private(pid_file, text.as_bytes())?;
    Err(Command::new(program).args(args).exec()).context(format!("starting `{}`", program.to_string_lossy()))
}

/// What tells this process from a later one with the same pid; `None` when there is none or it is a zombie.
#[cfg(target_os = "linux")]
fn birth(pid: i32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses and may hold anything; the rest follows the last of them.
    let mut rest = stat.rsplit_once(')')?.1.split_whitespace();
    let state = rest.next()?;
    let start_ticks = rest.nth(18)?;
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    (!matches!(state, "Z" | "X")).then(|| format!("{}/{start_ticks}", boot.trim()))
}

/// As above, for systems without `/proc`.
#[cfg(not(target_os = "linux"))]
fn birth(pid: i32) -> Option<String> {
    let output = Command::new("ps").args(["-o", "stat=,lstart=", "-p", &pid.to_string()]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let (state, start) = text.trim().split_once(char::is_whitespace)?;
    (!state.starts_with('Z')).then(|| start.trim().to_owned())
}

/// From here on a part's log is of the one that is asked for now.
pub(crate) fn mark_log(layout: &Layout, part: &str) -> Result<(), Failure> {
    let length = fs::metadata(layout.log(part)).map(|log| log.len()).unwrap_or_default();
    layout::write_private(&layout.log_mark(part), length.to_string().as_bytes())
}

/// The last lines of a part's log since it was asked for, the youngest first. Indented ones continue another, such as the frames of a
/// backtrace.
fn last_lines(layout: &Layout, part: &str, count: usize) -> Vec<String> {
    let mark = fs::read_to_string(layout.log_mark(part)).ok().and_then(|mark| mark.parse::<u64>().ok());
    let read = || -> io::Result<Vec<u8>> {
        let mut file = fs::File::open(layout.log(part))?;
        let length = file.metadata()?.len();
        // A log that is shorter than its mark was emptied since.
        let begin = mark.filter(|mark| *mark <= length).unwrap_or_default();
        file.seek(io::SeekFrom::Start(begin.max(length.saturating_sub(LOG_TAIL_BYTES))))?;
        let mut bytes = Vec::new();
        file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let text = String::from_utf8_lossy(&read().unwrap_or_default()).into_owned();
    let is_line = |line: &&str| !line.trim().is_empty() && !line.starts_with(' ');
    text.lines().rev().filter(is_line).take(count).map(ToOwned::to_owned).collect()
}

/// The last line of a part's log since it was asked for; empty when there is none.
pub(crate) fn last_line(layout: &Layout, part: &str) -> String {
    last_lines(layout, part, 1).pop().unwrap_or_default()
}

/// The end of a part's log as a hint, for an error about it. What earlier ones left there is not shown.
pub(crate) fn log_hint(layout: &Layout, part: &str) -> String {
    let lines = last_lines(layout, part, LOG_TAIL_LINES);
    let tail: Vec<_> = lines.iter().rev().map(|line| format!("\n      {line}")).collect();
    format!(
        "Look into `{}`, which ends:{}",
        layout.log(part).display(),
        if tail.is_empty() { " (empty)".into() } else { tail.concat() }
    )
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn sleeper() -> (std::process::Child, Process) {
        let child = Command::new("sleep").arg("600").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        (child, Process { pid, birth: birth(pid).unwrap() })
    }

    #[tokio::test]
    async fn a_process_is_ended_once() {
        let (mut child, process) = sleeper();
        assert_eq!(process.end(GRACE).await.unwrap(), Ended::Terminated);
        assert_eq!(process.end(GRACE).await.unwrap(), Ended::NotRunning, "a zombie has ended");
        child.wait().unwrap();
    }

    #[tokio::test]
    async fn a_recycled_pid_is_left_alone() {
        let (mut child, process) = sleeper();
        let older = Process { pid: process.pid, birth: "another boot/1".into() };
        assert_eq!(older.end(Duration::ZERO).await.unwrap(), Ended::NotRunning);
        assert!(process.is_alive());
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_hint_shows_nothing_of_earlier_runs() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        layout.create().unwrap();
        let log = layout.log("x");
        fs::write(&log, "of before the first mark\n").unwrap();
        assert!(log_hint(&layout, "x").contains("of before the first mark"));
        mark_log(&layout, "x").unwrap();
        assert!(log_hint(&layout, "x").ends_with("which ends: (empty)") && last_line(&layout, "x").is_empty());
        fs::write(&log, "of before the first mark\nof this run\n").unwrap();
        let hint = log_hint(&layout, "x");
        assert!(hint.contains("of this run") && !hint.contains("of before"), "{hint}");
        fs::write(&log, "emptied\n").unwrap();
        assert_eq!(last_line(&layout, "x"), "emptied");
    }

    #[test]
    fn no_variable_of_the_command_line_reaches_a_part() {
        let command = crate::args::Cli::command();
        let named = command.get_arguments().filter_map(|arg| arg.get_env()?.to_str());
        for name in named {
            assert!(OURS.contains(&name), "{name} is not held back");
        }
    }

    #[test]
    fn a_torn_pid_file_is_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        layout.create().unwrap();
        fs::write(layout.pid_file("x"), "{\"pid\": 1").unwrap();
        assert_eq!(Process::find(&layout, "x").unwrap(), None);
    }
}
