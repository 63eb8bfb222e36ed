//! The keeper's own work. It runs in a process of its own and knows nothing of Murmur but its folder.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::{SystemTime, UNIX_EPOCH},
};

use nix::{
    errno::Errno,
    sys::{
        resource::{Resource, setrlimit},
        signal::{Signal, kill, killpg},
        wait::{WaitPidFlag, waitpid},
    },
    unistd::{Pid, setsid},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    process::{Child, Command},
    signal::unix::{SignalKind, signal},
};

use super::{
    log::{FRAME_BYTES_MAX, LogWriter, Source},
    plan::{self, Claimant, Exit, Plan, Run, Started, Stdin},
};

/// What is left behind is looked for so often at most: each look ends one generation of processes.
const SWEEPS_MAX: u32 = 1_000;

/// Runs the program of a folder's plan to its end. Says on standard output how that began.
///
/// # Errors
/// When the folder cannot be used; the node hears why.
pub fn keep(dir: &Path) -> anyhow::Result<()> {
    // Away from the terminal and the process group of the node: their signals are not meant for the agent.
    let _ = setsid();
    // Whatever the program starts and leaves alone becomes a child of the keeper, which ends it.
    #[cfg(target_os = "linux")]
    nix::sys::prctl::set_child_subreaper(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let kept = runtime.block_on(run(dir));
    if let Err(error) = &kept {
        say(&Started::Failed(format!("{error:#}")));
    }
    kept
}

async fn run(dir: &Path) -> anyhow::Result<()> {
    let plan: Plan = plan::read(&dir.join("plan.json"))?.ok_or_else(|| anyhow::anyhow!("there is no plan"))?;
    // Held for reading, too, so that a node that is away makes no error of it.
    let bell = OpenOptions::new().read(true).write(true).custom_flags(nix::libc::O_NONBLOCK).open(dir.join("bell"))?;
    let mut stdin = Input::open(&plan.stdin, &dir.join("stdin"))?;
    let (mut terminate, mut close) = (signal(SignalKind::terminate())?, signal(SignalKind::user_defined1())?);
    let (mut interrupt, mut hang_up) = (signal(SignalKind::interrupt())?, signal(SignalKind::hangup())?);
    let mut orphans = signal(SignalKind::child())?;

    limit(&plan)?;
    let input = stdin.for_program()?;
    // Before the log is touched, which the program of a later run may be writing.
    let is_ours = plan::claim_start(dir, Claimant::Keeper)?;
    anyhow::ensure!(is_ours, "the node was started again, and begins it elsewhere");
    let begun = || anyhow::Ok((LogWriter::open(&plan.log, plan.log_bytes_max)?, start(&plan, input)?));
    let (log, mut child) = match begun() {
        Ok(begun) => begun,
        Err(error) => {
            // A node that was started again meanwhile is to hear the reason by trying itself.
            let _ = plan::release_start(dir);
            return Err(error);
        }
    };
    let pid =
        child.id().and_then(|id| i32::try_from(id).ok()).ok_or_else(|| anyhow::anyhow!("it has no process id"))?;
    let run = Run {
        keeper_pid: nix::unistd::getpid().as_raw(),
        pid,
        start_ticks: plan::start_ticks(pid).unwrap_or(0),
        boot_id: plan::boot_id(),
    };
    if let Err(error) = plan::write(&dir.join("run.json"), &run) {
        end_group(pid);
        return Err(error.into());
    }
    let mut output = Output { log, bell };
    output.ring();
    say(&Started::Running(run));

    let (mut out, mut err) = (child.stdout.take(), child.stderr.take());
    let (mut out_data, mut err_data) = (vec![0; FRAME_BYTES_MAX], vec![0; FRAME_BYTES_MAX]);
    let mut ended: Option<ExitStatus> = None;
    while ended.is_none() || out.is_some() || err.is_some() {
        tokio::select! {
            status = child.wait(), if ended.is_none() => {
                // What the program leaves behind holds its output open; it ends with it.
                ended = Some(status?);
                end_all(pid);
            }
            read = read(&mut out, &mut out_data), if out.is_some() => output.take(Source::Stdout, &read, &out_data, &mut out),
            read = read(&mut err, &mut err_data), if err.is_some() => output.take(Source::Stderr, &read, &err_data, &mut err),
            _ = orphans.recv() => reap(pid),
            _ = close.recv() => stdin = Input::Closed,
            // Nobody ends the keeper and leaves the program.
            _ = terminate.recv() => forward(pid, Signal::SIGTERM),
            _ = interrupt.recv() => forward(pid, Signal::SIGINT),
            _ = hang_up.recv() => forward(pid, Signal::SIGHUP),
        }
    }
    drop(stdin);
    end_all(pid);
    plan::write(&dir.join("exit.json"), &exit(ended))?;
    Ok(())
}

fn exit(status: Option<ExitStatus>) -> Exit {
    use std::os::unix::process::ExitStatusExt as _;
    let code = status.and_then(|status| status.code());
    Exit { code, signal: status.and_then(|status| status.signal()), time_ms: now_ms() }
}

/// The program's standard input.
enum Input {
    Null,
    File(File),
    /// Our end is for writing, so that the program sees no end while the node is away.
    Pipe {
        _ours: File,
        path: PathBuf,
    },
    Closed,
}

impl Input {
    fn open(stdin: &Stdin, pipe: &Path) -> io::Result<Self> {
        Ok(match stdin {
            Stdin::Null => Self::Null,
            Stdin::File(path) => Self::File(File::open(path)?),
            Stdin::Pipe => {
                let _ours = OpenOptions::new().read(true).write(true).open(pipe)?;
                Self::Pipe { _ours, path: pipe.to_owned() }
            }
        })
    }

    fn for_program(&self) -> io::Result<Stdio> {
        Ok(match self {
            Self::Null | Self::Closed => Stdio::null(),
            Self::File(file) => file.try_clone()?.into(),
            // Opens at once, since there is a writer.
            Self::Pipe { _ours: _, path } => File::open(path)?.into(),
        })
    }
}

struct Output {
    log: LogWriter,
    bell: File,
}

impl Output {
    fn take<R>(&mut self, source: Source, read: &io::Result<usize>, data: &[u8], reader: &mut Option<R>) {
        match read {
            Ok(0) | Err(_) => *reader = None,
            Ok(length) => {
                // A full disk loses output; the agent goes on.
                let _ = self.log.write(source, now_ms(), &data[..*length]);
                self.ring();
            }
        }
    }

    fn ring(&mut self) {
        // A full pipe has rung enough.
        let _ = self.bell.write(&[1]);
    }
}

async fn read<R: AsyncRead + Unpin>(reader: &mut Option<R>, data: &mut [u8]) -> io::Result<usize> {
    match reader {
        Some(reader) => reader.read(data).await,
        None => Ok(0),
    }
}

fn start(plan: &Plan, stdin: Stdio) -> anyhow::Result<Child> {
    let mut command = Command::new(&plan.program);
    command.args(&plan.args).env_clear().envs(&plan.env).current_dir(&plan.dir).process_group(0);
    command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().map_err(|error| anyhow::anyhow!("cannot run `{}`: {error}", plan.program))
}

/// Limits hold for the keeper and, by inheritance from before its first instruction, for the program.
fn limit(plan: &Plan) -> nix::Result<()> {
    let limits = plan.limits;
    let wanted = [
        (Resource::RLIMIT_CORE, Some(0)),
        (Resource::RLIMIT_AS, limits.memory_bytes),
        (Resource::RLIMIT_CPU, limits.cpu_seconds),
        (Resource::RLIMIT_NOFILE, limits.open_files),
        (Resource::RLIMIT_FSIZE, limits.file_bytes),
        (Resource::RLIMIT_NPROC, limits.processes),
    ];
    for (resource, limit) in wanted {
        if let Some(limit) = limit {
            let (_, hard) = nix::sys::resource::getrlimit(resource)?;
            setrlimit(resource, limit.min(hard), limit.min(hard))?;
        }
    }
    Ok(())
}

fn forward(pid: i32, signal: Signal) {
    let _ = killpg(Pid::from_raw(pid), signal);
}

fn end_group(pid: i32) {
    forward(pid, Signal::SIGKILL);
}

/// Ends what is left: the process group, then whatever has come to the keeper from sessions and groups of their own.
fn end_all(pid: i32) {
    end_group(pid);
    for _ in 0..SWEEPS_MAX {
        let children = children();
        if children.is_empty() {
            return;
        }
        for child in children {
            let _ = kill(child, Signal::SIGKILL);
            // Their own children come to the keeper with their end. The program itself is waited for elsewhere.
            while waitpid(child, Some(WaitPidFlag::empty())) == Err(Errno::EINTR) {}
        }
    }
}

/// Forgets orphans that have ended.
fn reap(program: i32) {
    for child in children().into_iter().filter(|child| child.as_raw() != program) {
        let _ = waitpid(child, Some(WaitPidFlag::WNOHANG));
    }
}

/// The keeper's children, as Linux tells them.
fn children() -> Vec<Pid> {
    let own = nix::unistd::getpid();
    let text = std::fs::read_to_string(format!("/proc/{own}/task/{own}/children")).unwrap_or_default();
    text.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).map(Pid::from_raw).collect()
}

/// Tells the node, and nothing after it.
fn say(started: &Started) {
    let Ok(line) = serde_json::to_string(started) else { return };
    let mut stdout = io::stdout();
    // The node has waited for the end of this pipe, or is gone.
    let _ = writeln!(stdout, "{line}");
    let _ = stdout.flush();
    let Ok(null) = OpenOptions::new().write(true).open("/dev/null") else { return };
    let _ = nix::unistd::dup2_stdout(null);
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
