//! A process of an agent, as the node holds it: started through a keeper, or found again.

use std::{
    ffi::OsStr,
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::{
        signal::{Signal, kill, killpg},
        stat::Mode,
    },
    unistd::{Pid, mkfifo},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::unix::pipe,
    process::Command,
};

use super::keeper::plan::{self, Claimant, Exit, Plan, Run, Started};
use crate::failpoint::failpoint;

/// A keeper that has not said within this time that the program runs will not. Long: hundreds may be started at once.
const START_WAIT: Duration = Duration::from_secs(120);
/// A killed keeper is gone at once, unless the kernel holds it in a system call.
const KILLED_WAIT: Duration = Duration::from_secs(5);
/// A program that takes nothing from its standard input for so long takes no prompt.
const WRITE_WAIT: Duration = Duration::from_secs(30);

/// A process of an agent that runs, as far as is known.
#[derive(Debug)]
pub struct Process {
    dir: PathBuf,
    run: Run,
    bell: pipe::Receiver,
}

/// What became of a process that was started by an earlier process of the node.
#[derive(Debug)]
pub enum Found {
    /// It runs.
    Running(Process),
    /// It has ended meanwhile.
    Ended(Exit),
    /// The node ended before anything was started, and nothing of it will be.
    Unstarted,
    /// Its keeper is gone without a word, as after a power failure: nothing of it runs any more.
    Lost,
}

/// A process could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its folder cannot be used.
    #[error("its folder {} cannot be used: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The keeper cannot be started.
    #[error("its keeper cannot be started: {0}")]
    Keeper(#[source] io::Error),
    /// The keeper says why not.
    #[error("{0}")]
    Refused(String),
}

impl Process {
    /// Starts what is planned, in a folder that is made for it.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(keeper: &OsStr, dir: &Path, plan: &Plan) -> Result<Self, StartError> {
        let failed = |source| StartError::Folder { path: dir.to_owned(), source };
        if open_bell(dir).is_ok_and(|bell| is_held(&bell).unwrap_or(true)) {
            // The node ended before it could note that it had begun this run.
            return Err(StartError::Refused("a program that was started before still runs".to_owned()));
        }
        prepare(dir, plan).map_err(failed)?;
        // Before anybody can ring: who opens a pipe that had its last writer before is never told of the end (fifo(7), EPOLLHUP), and a
        // short program's keeper is gone soon.
        let bell = open_bell(dir).map_err(failed)?;
        failpoint("A2");
        let mut command = Command::new(keeper);
        command.arg("keep").arg(dir).env_clear().current_dir("/");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        // What the node itself was started with, such as a lock that a script holds, is not for agents that outlive it.
        close_fds::set_fds_cloexec_threadsafe(3, &[]);
        let mut child = command.spawn().map_err(StartError::Keeper)?;
        failpoint("A3");
        let said = match child.stdout.take() {
            Some(stdout) => tokio::time::timeout(START_WAIT, read_line(stdout)).await,
            None => Ok(Ok(Vec::new())),
        };
        let started = match said {
            Ok(Ok(line)) => serde_json::from_slice(&line).ok(),
            Ok(Err(error)) => return Err(StartError::Keeper(error)),
            Err(_) => None,
        };
        let run = match started {
            Some(Started::Running(run)) => run,
            Some(Started::Failed(why)) => return Err(StartError::Refused(why)),
            None => {
                // Whatever it is doing, it is not to start a program that nobody knows, and what it has told of ends with it.
                let _ = child.start_kill();
                let _ = tokio::time::timeout(KILLED_WAIT, child.wait()).await;
                end_rest(dir);
                return Err(StartError::Refused("its keeper ended without a word".to_owned()));
            }
        };
        // Its end is heard by the bell; this is so that it leaves no zombie.
        tokio::spawn(async move { child.wait().await });
        Ok(Self { dir: dir.to_owned(), run, bell })
    }

    /// Looks for what an earlier process of the node started in a folder.
    ///
    /// # Errors
    /// [`io::Error`] when the folder cannot be read.
    pub async fn find(dir: &Path) -> io::Result<Found> {
        let run = || plan::read::<Run>(&dir.join("run.json"));
        loop {
            // Before the look at the bell, which a keeper holds from before its claim to its end.
            let claimed = plan::claimed(dir)?;
            match open_bell(dir) {
                Ok(mut bell) if is_held(&bell)? => {
                    if let Some(run) = run()? {
                        return Ok(Found::Running(Self { dir: dir.to_owned(), run, bell }));
                    }
                    // The keeper is about to start the program, and rings when it has, or ends.
                    let _ = bell.read(&mut [0; 1]).await?;
                    continue;
                }
                Ok(_) => {}
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                // The node ended before it had prepared the folder, and no keeper has anything to go by.
                Err(_) if !dir.join("plan.json").exists() => return Ok(Found::Unstarted),
                Err(_) => {}
            }
            if let Some(exit) = plan::read(&dir.join("exit.json"))? {
                return Ok(Found::Ended(exit));
            }
            let is_lost = match claimed {
                Some(Claimant::Node) => return Ok(Found::Unstarted),
                // Unless it has given up the claim, and then ended.
                Some(Claimant::Keeper) => plan::claimed(dir)? == claimed,
                // A keeper of an earlier version claims nothing.
                None => run()?.is_some(),
            };
            if is_lost {
                end_rest(dir);
                return Ok(Found::Lost);
            }
            // A keeper may be on its way to the bell: whoever claims first has the program.
            if claimed.is_none() && plan::claim_start(dir, Claimant::Node)? {
                return Ok(Found::Unstarted);
            }
        }
    }

    /// The process group of the program.
    #[must_use]
    pub const fn group(&self) -> i32 {
        self.run.pid
    }

    /// Waits for output or the end; false when it has ended.
    ///
    /// # Errors
    /// [`io::Error`].
    pub async fn rings(&mut self) -> io::Result<bool> {
        let mut rung = [0; 4096];
        Ok(self.bell.read(&mut rung).await? > 0)
    }

    /// How it ended; `None` when the keeper was ended by force. To be asked once it has ended.
    ///
    /// # Errors
    /// [`io::Error`].
    pub fn exit(&self) -> io::Result<Option<Exit>> {
        let exit = plan::read(&self.dir.join("exit.json"))?;
        if exit.is_none() {
            end_rest(&self.dir);
        }
        Ok(exit)
    }

    /// Sends a signal to its process group. What has ended hears nothing, which is no error.
    pub fn signal(&self, signal: Signal) {
        // While the keeper lives the number is the program's: the keeper has not let go of it.
        if is_held(&self.bell).unwrap_or(false) {
            let _ = killpg(Pid::from_raw(self.run.pid), signal);
        }
    }

    /// Ends its standard input.
    pub fn close_stdin(&self) {
        if is_held(&self.bell).unwrap_or(false) {
            let _ = kill(Pid::from_raw(self.run.keeper_pid), Signal::SIGUSR1);
        }
    }

    /// Writes to its standard input, all of it or an error.
    ///
    /// # Errors
    /// [`io::Error`]; `TimedOut` when the program takes nothing.
    pub async fn write(&self, data: &[u8]) -> io::Result<()> {
        let mut pipe = pipe::OpenOptions::new().open_sender(self.dir.join("stdin"))?;
        match tokio::time::timeout(WRITE_WAIT, pipe.write_all(data)).await {
            Ok(written) => written,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

fn prepare(dir: &Path, plan: &Plan) -> io::Result<()> {
    crate::identity::create_private_dir(dir)?;
    crate::identity::create_private_dir(&plan.log)?;
    for name in ["claim", "run.json", "exit.json"] {
        match std::fs::remove_file(dir.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    for name in ["bell", "stdin"] {
        match mkfifo(&dir.join(name), Mode::S_IRUSR | Mode::S_IWUSR) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    plan::write(&dir.join("plan.json"), plan)?;
    // A run that was there must not be gone after a power failure.
    dir.parent().map_or(Ok(()), |runs| std::fs::File::open(runs)?.sync_all())
}

fn open_bell(dir: &Path) -> io::Result<pipe::Receiver> {
    let file = std::fs::OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(dir.join("bell"))?;
    pipe::Receiver::from_file(file)
}

/// Whether a keeper holds the other end. Takes what has rung, which is heard by reading the log in any case.
fn is_held(bell: &pipe::Receiver) -> io::Result<bool> {
    let mut rung = [0; 4096];
    loop {
        // Not by readiness, which may not have been noted yet.
        match nix::unistd::read(bell, &mut rung) {
            Ok(0) => return Ok(false),
            Ok(_) => {}
            Err(Errno::EAGAIN) => return Ok(true),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Ends the process group of a program whose keeper is gone, if the number still means it.
fn end_rest(dir: &Path) {
    let Ok(Some(run)) = plan::read::<Run>(&dir.join("run.json")) else { return };
    let is_same =
        run.boot_id == plan::boot_id() && run.start_ticks != 0 && plan::start_ticks(run.pid) == Some(run.start_ticks);
    if is_same {
        let _ = killpg(Pid::from_raw(run.pid), Signal::SIGKILL);
    }
}

async fn read_line(mut stdout: tokio::process::ChildStdout) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    stdout.read_to_end(&mut line).await?;
    Ok(line)
}
