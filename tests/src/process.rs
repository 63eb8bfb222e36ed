//! Child processes that never outlive their test, with their output in a file.

use std::{
    ffi::OsString,
    fs::{self, File},
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::OnceLock,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::wait;

/// What a node's debug build reads the name of its crash point from.
const FAILPOINT: &str = "MURMUR_FAILPOINT";

/// A command line that every [`Process`] is started through: it gets the program and its arguments appended, and becomes that program.
static LAUNCHER: OnceLock<Vec<OsString>> = OnceLock::new();

/// Starts every [`Process`] from now on through a command line, for example one that ties its life to ours before it becomes the
/// program. Only the first call counts.
pub fn launch_through(command: Vec<OsString>) {
    let _ = LAUNCHER.set(command);
}

fn command(program: &Path) -> Command {
    match LAUNCHER.get().map(Vec::as_slice) {
        Some([launcher, args @ ..]) => {
            let mut command = Command::new(launcher);
            command.args(args).arg(program);
            command
        }
        _ => Command::new(program),
    }
}

/// A program with everything that is needed to start it again after it was killed.
pub struct Process {
    program: PathBuf,
    args: Vec<OsString>,
    env: Vec<(String, String)>,
    log: PathBuf,
    child: Option<Child>,
    /// Where in the log its latest start began.
    begun: usize,
}

impl Process {
    /// Describes a program; [`Process::start`] runs it.
    #[must_use]
    pub fn new(program: &Path, args: Vec<OsString>, log: PathBuf) -> Self {
        Self { program: program.to_owned(), args, env: Vec::new(), log, child: None, begun: 0 }
    }

    /// Adds a variable to its environment.
    #[must_use]
    pub fn env(mut self, key: &str, value: impl Into<String>) -> Self {
        self.env.push((key.to_owned(), value.into()));
        self
    }

    /// Sets a variable of its environment from the next start on; `None` takes it away.
    pub fn set_env(&mut self, key: &str, value: Option<&str>) {
        self.env.retain(|(known, _)| known != key);
        self.env.extend(value.map(|value| (key.to_owned(), value.to_owned())));
    }

    /// Runs it; its output is appended to the log.
    ///
    /// # Panics
    /// When it runs already or cannot be started.
    pub fn start(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.program.display());
        self.begun = self.output().len();
        let log = File::options().create(true).append(true).open(&self.log).unwrap();
        let child = command(&self.program)
            .args(&self.args)
            .envs(self.env.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", self.program.display()));
        self.child = Some(child);
    }

    /// Its process id.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("a running process").id()
    }

    /// Sends a signal to it.
    ///
    /// # Panics
    /// When it does not run.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.pid()).unwrap()), signal).unwrap();
    }

    /// Kills it without a chance to clean up, and waits until it is gone.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill_9(&mut self) {
        let mut child = self.child.take().expect("a running process");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Asks it to end, and waits for it.
    ///
    /// # Panics
    /// When it does not run, or never ends.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.exited().await
    }

    /// Waits until it has ended by itself.
    ///
    /// # Panics
    /// When it does not run, or never ends.
    pub async fn exited(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("a running process");
        let what = format!("{} ends", self.program.display());
        wait::until(&what, || {
            let status = child.try_wait().unwrap();
            async move { status }
        })
        .await
    }

    /// Starts it so that it dies at a crash point (`MURMUR_FAILPOINT`, debug builds only).
    ///
    /// # Panics
    /// When it runs already or cannot be started.
    pub fn start_to_die_at(&mut self, point: &str) {
        self.set_env(FAILPOINT, Some(point));
        self.start();
        self.set_env(FAILPOINT, None);
    }

    /// Waits until it has died at the crash point that it was started with, and nowhere else.
    ///
    /// # Panics
    /// When it does not run, never ends, or ends otherwise.
    pub async fn died_at(&mut self, point: &str) {
        let status = self.exited().await;
        assert_eq!(status.signal(), Some(Signal::SIGKILL as i32), "it was to die at {point}, and ended with {status}");
        let last_words = format!("failpoint {}", point.split(':').next().unwrap());
        assert!(self.output_of_latest().lines().any(|line| line == last_words), "it was to die at {point}, not before");
    }

    /// Whether it is still running.
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    /// What it has printed since it was started last.
    #[must_use]
    pub fn output_of_latest(&self) -> String {
        self.output().get(self.begun..).unwrap_or_default().to_owned()
    }

    /// Everything it has printed so far.
    #[must_use]
    pub fn output(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- {} ({})\n{}", self.program.display(), self.log.display(), self.output());
        }
    }
}

/// One of our own binaries, from the target directory that the running test was built into.
///
/// # Panics
/// When it has not been built: `make test` builds the workspace first.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let running = std::env::current_exe().unwrap();
    let folder = running.parent().unwrap();
    let folder = if folder.ends_with("deps") { folder.parent().unwrap() } else { folder };
    let path = folder.join(name);
    assert!(path.exists(), "{} is not built: run `cargo build --workspace` first", path.display());
    path
}

/// The broker's binary: `$NATS_SERVER`, or found or fetched by the project's own script.
///
/// # Panics
/// When there is none and none can be fetched.
#[must_use]
pub fn nats_server() -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/fetch-nats-server.sh");
    let output = Command::new("sh").arg(script).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "no nats-server: see the message above");
    let text = String::from_utf8(output.stdout).unwrap();
    PathBuf::from(text.lines().last().expect("a path"))
}
