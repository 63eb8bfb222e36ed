//! Supervision: a process of its own that starts what `up` wants, and starts it again when it crashes.
//!
//! `up` writes what it wants into `run/<part>.wanted` and rings with SIGHUP; the supervisor, alone, starts it. So no part is ever
//! started by two. Parts are no less alive without a supervisor: when that is killed they go on, and the next one adopts them by
//! their pid files. What it knows stands in `run/supervisor.json`, which `status` and `doctor` read. `down` ends the supervisor
//! first, so that no end by `down` is taken for a crash.

mod keep;
mod policy;
mod report;
mod run;
mod stuck;
mod watch;

use std::{
    env,
    ffi::OsString,
    fs, io,
    process::Command,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use super::{
    binaries,
    layout::{self, Layout},
    process::{self, GRACE, OURS, Process, Spec, log_hint, mark_log},
};
use crate::{
    exit::Exit,
    failure::{Context as _, Failure},
    time::now_ms,
};

pub(crate) use policy::Policy;
pub(crate) use report::{LastExit, PartReport, Phase, Report};
pub(crate) use run::run;

/// The supervisor's name among the parts.
pub(crate) const PART: &str = "supervisor";
/// What is supervised, in the order of who needs whom.
pub(crate) const SUPERVISED: [&str; 3] = [super::broker::PART, super::server::PART, super::node::PART];

/// A supervisor, or a process that it was asked to start, is there within this time.
const STARTED_WITHIN: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(10);
const RING_EVERY: Duration = Duration::from_millis(200);

/// Who starts a part.
#[derive(Debug, Clone)]
pub(crate) enum Starter {
    /// This command; nobody watches over the part afterwards.
    Alone,
    /// The supervisor.
    Supervisor(Process),
}

/// What a part is started with, as kept on disk.
#[derive(Debug, Serialize, Deserialize)]
struct Wanted {
    program: OsString,
    args: Vec<OsString>,
    /// The settings in the environment of the `up` that wanted it: the supervisor's own are of the first one.
    #[serde(default)]
    settings: Option<Settings>,
}

/// Variables with their values.
type Settings = Vec<(OsString, OsString)>;

/// The variables of this process that set something of a part.
fn settings() -> Settings {
    let is_setting = |name: &OsString| {
        let name = name.to_string_lossy();
        (name.starts_with("MURMUR_") || name.starts_with("OTEL_")) && !OURS.contains(&name.as_ref())
    };
    env::vars_os().filter(|(name, _)| is_setting(name)).collect()
}

impl Starter {
    /// The supervisor of a data directory, started unless it runs. The caller holds the network's lock.
    ///
    /// # Errors
    /// [`Failure`] when it cannot be started.
    pub(crate) async fn supervisor(layout: &Layout, policy: Policy) -> Result<(Self, bool), Failure> {
        if let Some(process) = Process::find(layout, PART)? {
            return Ok((Self::Supervisor(process), false));
        }
        // What ran before and does not now is started by `up`, in order, and not by the supervisor all at once.
        for part in SUPERVISED {
            if Process::find(layout, part)?.is_none() {
                forget(layout, part)?;
            }
        }
        let args = vec![
            "supervise".into(),
            "--data-dir".into(),
            layout.root().into(),
            "--crashes-max".into(),
            policy.crashes_max.to_string().into(),
        ];
        let process = Process::spawn(layout, Spec { part: PART.into(), program: binaries::own()?, args })?;
        wait(layout, PART, &process, "it watches", || {
            Ok(Report::load(layout)?.is_some_and(|report| report.supervisor == process.pid).then_some(()))
        })
        .await?;
        Ok((Self::Supervisor(process), true))
    }

    /// Ends the supervisor of an `up` that failed before it wanted any part: it would watch over nothing.
    ///
    /// # Errors
    /// [`Failure`] when it does not end.
    pub(crate) async fn end_if_idle(&self, layout: &Layout) -> Result<(), Failure> {
        let is_wanted = SUPERVISED.iter().any(|part| layout.wanted_file(part).exists());
        if let (Self::Supervisor(_), false) = (self, is_wanted) {
            process::end_part(layout, PART, GRACE).await?;
            remove(&layout.supervisor_report())?;
        }
        Ok(())
    }

    /// Starts a part that does not run.
    ///
    /// # Errors
    /// [`Failure`] when it cannot be started, or ends at once.
    pub(crate) async fn spawn(&self, layout: &Layout, spec: Spec) -> Result<Process, Failure> {
        let Self::Supervisor(supervisor) = self else { return Process::spawn(layout, spec) };
        let (part, asked_ms, mut bell) = (spec.part.clone(), now_ms(), Bell::of(supervisor));
        want(layout, &spec)?;
        wait(layout, &part, supervisor, "the supervisor has started it", || {
            if let Some(process) = Process::find(layout, &part)? {
                return Ok(Some(process));
            }
            bell.ring()?;
            let report = Report::load(layout)?.and_then(|mut report| report.parts.remove(&part));
            // The end of the one before may be seen only now.
            let since = report.filter(|report| report.started_ms >= asked_ms);
            match since.and_then(|report| report.last_exit.filter(|exit| exit.at_ms >= report.started_ms)) {
                Some(LastExit { how, .. }) => {
                    Err(Failure::failed(format!("the {part} ended at once: {how}")).remedy(log_hint(layout, &part)))
                }
                None => Ok(None),
            }
        })
        .await
    }

    /// Ends a part that runs and is of no use, and has it started again.
    ///
    /// # Errors
    /// [`Failure`] when it does not end, or cannot be started.
    pub(crate) async fn restart(&self, layout: &Layout, spec: Spec, before: &Process) -> Result<Process, Failure> {
        let Self::Supervisor(supervisor) = self else {
            before.end(GRACE).await?;
            return Process::spawn(layout, spec);
        };
        want(layout, &spec)?;
        before.end(GRACE).await?;
        let mut bell = Bell::of(supervisor);
        wait(layout, &spec.part, supervisor, "the supervisor has started it again", || {
            bell.ring()?;
            Process::find(layout, &spec.part)
        })
        .await
    }
}

/// Tells the supervisor that something is wanted, now and then: it takes an end for a crash, and does not hear what rings before it has seen
/// that.
struct Bell<'a> {
    supervisor: &'a Process,
    rung: Option<Instant>,
}

impl<'a> Bell<'a> {
    const fn of(supervisor: &'a Process) -> Self {
        Self { supervisor, rung: None }
    }

    fn ring(&mut self) -> Result<(), Failure> {
        if self.rung.is_none_or(|rung| rung.elapsed() >= RING_EVERY) {
            self.rung = Some(Instant::now());
            self.supervisor.signal(Signal::SIGHUP)?;
        }
        Ok(())
    }
}

/// Asks until there is an answer, as long as a process lives.
async fn wait<T>(
    layout: &Layout,
    part: &str,
    process: &Process,
    until: &str,
    mut ask: impl FnMut() -> Result<Option<T>, Failure>,
) -> Result<T, Failure> {
    let deadline = Instant::now() + STARTED_WITHIN;
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if !process.is_alive() {
            let what = format!("the supervisor ended before {until}");
            return Err(Failure::failed(what).remedy(log_hint(layout, PART)));
        }
        if Instant::now() >= deadline {
            let what = format!("{part}: waited {} s in vain until {until}", STARTED_WITHIN.as_secs());
            return Err(Failure::new(Exit::Timeout, what).remedy(log_hint(layout, PART)));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Notes what a part is to be started with from now on.
pub(crate) fn want(layout: &Layout, spec: &Spec) -> Result<(), Failure> {
    mark_log(layout, &spec.part)?;
    let wanted = Wanted { program: spec.program.clone().into(), args: spec.args.clone(), settings: Some(settings()) };
    let text = serde_json::to_string(&wanted).context("encoding what is wanted")?;
    layout::write_private(&layout.wanted_file(&spec.part), text.as_bytes())
}

/// The command that starts a part as it is wanted; `None` when it is not wanted.
fn wanted(layout: &Layout, part: &str) -> Result<Option<Command>, Failure> {
    let path = layout.wanted_file(part);
    let Some(text) = layout::read_optional(&path)? else { return Ok(None) };
    let Wanted { program, args, settings: theirs } =
        serde_json::from_str(&text).context(format!("reading `{}`", path.display()))?;
    let mut command = Process::command(layout, &Spec { part: part.to_owned(), program: program.into(), args })?;
    if let Some(theirs) = theirs {
        for (name, _) in settings() {
            command.env_remove(name);
        }
        command.envs(theirs);
    }
    Ok(Some(command))
}

/// A part is not wanted any more.
pub(crate) fn forget(layout: &Layout, part: &str) -> Result<(), Failure> {
    remove(&layout.wanted_file(part))
}

/// Nothing is supervised any more.
pub(crate) fn forget_all(layout: &Layout) -> Result<(), Failure> {
    SUPERVISED.into_iter().try_for_each(|part| forget(layout, part))?;
    remove(&layout.supervisor_report())
}

fn remove(path: &std::path::Path) -> Result<(), Failure> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).context(format!("removing `{}`", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_gets_the_settings_of_who_wanted_it_and_not_the_supervisors() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        layout.create().unwrap();
        let theirs = Some(vec![("MURMUR_NODE_DRAIN_MS".into(), "7".into())]);
        let text = serde_json::to_string(&Wanted { program: "x".into(), args: Vec::new(), settings: theirs }).unwrap();
        layout::write_private(&layout.wanted_file("node"), text.as_bytes()).unwrap();
        let command = wanted(&layout, "node").unwrap().unwrap();
        assert!(command.get_envs().any(|set| set == ("MURMUR_NODE_DRAIN_MS".as_ref(), Some("7".as_ref()))));
    }

    #[test]
    fn what_is_wanted_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        layout.create().unwrap();
        assert!(wanted(&layout, "node").unwrap().is_none());
        let spec = Spec { part: "node".into(), program: "/bin/x y".into(), args: vec!["--a".into(), "ü".into()] };
        want(&layout, &spec).unwrap();
        let read = wanted(&layout, "node").unwrap().unwrap();
        let args: Vec<_> = read.get_args().skip_while(|arg| *arg != "--").skip(1).collect();
        assert_eq!(args, ["/bin/x y", "--a", "ü"]);
        forget(&layout, "node").unwrap();
        assert!(wanted(&layout, "node").unwrap().is_none());
    }
}
