//! Keeping one part alive.

use std::{
    fs,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, UNIX_EPOCH},
};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    super::{
        layout::Layout,
        process::{GRACE, Process, last_line},
    },
    policy::{Crashes, Next, Policy},
    report::{LastExit, PartReport, Phase, Report},
    stuck::Looks,
    wanted,
    watch::Watched,
};
use crate::{failure::Failure, time::now_ms};

/// A child signs its pid file at once, or it never does.
const SIGNED_LOOKS: u32 = 400;
const SIGNED_LOOK_EVERY: Duration = Duration::from_millis(5);

/// What the keepers of all parts share.
#[derive(Clone)]
pub(super) struct Keeper {
    pub(super) layout: Layout,
    pub(super) policy: Policy,
    pub(super) stop: CancellationToken,
    /// Moves when `up` rings.
    pub(super) bell: watch::Receiver<u64>,
    pub(super) report: Arc<Mutex<Report>>,
}

impl Keeper {
    /// Starts the part whenever it is wanted and down, until told to stop; the part itself goes on then.
    pub(super) async fn keep(mut self, part: &'static str) {
        let (mut crashes, mut looks) = (Crashes::default(), Looks::of(part));
        while !self.stop.is_cancelled() {
            self.bell.mark_unchanged();
            let mut watched = match self.bring_up(part).await {
                Ok(Some(watched)) => watched,
                Ok(None) => {
                    self.note(part, |report| report.phase = Phase::Unwanted);
                    self.until_rung(None).await;
                    continue;
                }
                Err(failure) => {
                    self.after_crash(part, &mut crashes, Duration::ZERO, failure.what).await;
                    continue;
                }
            };
            let since = Instant::now();
            let Some(how) = self.until_down(part, &mut watched, &mut looks).await else { return };
            self.after_crash(part, &mut crashes, since.elapsed(), how).await;
        }
    }

    /// The part's process: the one that runs, or else a new one. `None` when nobody wants it.
    async fn bring_up(&self, part: &str) -> Result<Option<Watched>, Failure> {
        if let Some(process) = Process::find(&self.layout, part)? {
            tracing::info!(part, pid = process.pid, "adopted the {part}");
            self.note(part, |report| report.phase = Phase::Running { since_ms: started_ms(&self.layout, part) });
            return Ok(Some(Watched::Adopted(process)));
        }
        let Some(command) = wanted(&self.layout, part)? else { return Ok(None) };
        self.note(part, |report| report.started_ms = now_ms());
        let mut child = tokio::process::Command::from(command)
            .spawn()
            .map_err(|error| Failure::failed(format!("cannot be started: {error}")))?;
        self.signed(part, &mut child).await;
        tracing::info!(part, pid = child.id(), "started the {part}");
        self.note(part, |report| report.phase = Phase::Running { since_ms: now_ms() });
        Ok(Some(Watched::Own(child)))
    }

    /// Waits until the child has signed its pid file, so that nobody who comes after us could miss it.
    async fn signed(&self, part: &str, child: &mut tokio::process::Child) {
        for _ in 0..SIGNED_LOOKS {
            let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
            let found = Process::find(&self.layout, part).ok().flatten();
            if found.is_some_and(|found| Some(found.pid) == pid) || !matches!(child.try_wait(), Ok(None)) {
                return;
            }
            tokio::time::sleep(SIGNED_LOOK_EVERY).await;
        }
    }

    /// Waits until a part is down, and ends one that is of no use. How it ended; `None` when we are to stop.
    async fn until_down(&self, part: &str, watched: &mut Watched, looks: &mut Looks) -> Option<String> {
        let is_adopted = matches!(watched, Watched::Adopted(_));
        let why = tokio::select! {
            how = watched.ended() => return Some(how),
            why = looks.until_stuck(&self.layout, is_adopted) => why,
            () = self.stop.cancelled() => return None,
        };
        let ended = async {
            self.end(part, &why).await;
            // One that cannot be ended is waited for.
            watched.ended().await
        };
        tokio::select! {
            _ = ended => Some(format!("ended by the supervisor: {why}")),
            () = self.stop.cancelled() => None,
        }
    }

    /// Ends a part that runs and is of no use.
    async fn end(&self, part: &str, why: &str) {
        tracing::warn!(part, "the {part} is ended, to be started again: {why}");
        let ended = match Process::find(&self.layout, part) {
            Ok(Some(process)) => process.end(GRACE).await.map(drop),
            Ok(None) => Err(Failure::failed("its pid file is gone")),
            Err(failure) => Err(failure),
        };
        if let Err(failure) = ended {
            tracing::error!(part, "the {part} could not be ended: {}", failure.what);
        }
    }

    /// Notes a crash, and waits as long as the rules say.
    async fn after_crash(&mut self, part: &str, crashes: &mut Crashes, lived: Duration, how: String) {
        // What was rung while it ran is served.
        self.bell.mark_unchanged();
        let next = crashes.note(&self.policy, lived, Instant::now(), getrandom::u64().unwrap_or_default());
        let last_line = last_line(&self.layout, part);
        let last_exit = Some(LastExit { how: how.clone(), at_ms: now_ms(), last_line: last_line.clone() });
        match next {
            Next::Wait(wait) => {
                tracing::warn!(
                    part,
                    last_line,
                    "the {part} went down ({how}) and is started again in {} ms",
                    wait.as_millis()
                );
                let until_ms = now_ms().saturating_add(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
                self.note(part, |report| {
                    report.restarts = report.restarts.saturating_add(1);
                    (report.phase, report.last_exit) = (Phase::Waiting { until_ms }, last_exit);
                });
                self.until_rung(Some(wait)).await;
            }
            Next::Rest { crashes: count } => {
                let (within_s, rest_s) = (self.policy.window.as_secs(), self.policy.rest.as_secs());
                tracing::error!(
                    part,
                    last_line,
                    "the {part} went down ({how}). It crashed {count} times within {within_s} s and is tried again in {rest_s} s: see {}, \
                     then run `murmurctl up`",
                    self.layout.log(part).display()
                );
                self.note(part, |report| {
                    report.restarts = report.restarts.saturating_add(1);
                    (report.phase, report.last_exit) = (Phase::GivenUp { crashes: count, within_s }, last_exit);
                });
                if self.until_rung(Some(self.policy.rest)).await {
                    *crashes = Crashes::default();
                }
            }
        }
    }

    /// Waits until `up` rings, at most some time, or until we are to stop. Whether it rang.
    async fn until_rung(&mut self, bound: Option<Duration>) -> bool {
        let bounded = async {
            match bound {
                Some(bound) => tokio::time::sleep(bound).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = bounded => false,
            () = self.stop.cancelled() => false,
            rung = self.bell.changed() => {
                if rung.is_err() {
                    self.stop.cancelled().await;
                }
                rung.is_ok()
            }
        }
    }

    /// Changes what is told about a part.
    fn note(&self, part: &str, change: impl FnOnce(&mut PartReport)) {
        let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        change(report.parts.entry(part.to_owned()).or_default());
        if let Err(failure) = report.save(&self.layout) {
            tracing::error!("what `status` shows is out of date: {}", failure.what);
        }
    }
}

/// When a running part was started: it wrote its pid file then.
fn started_ms(layout: &Layout, part: &str) -> u64 {
    let written = fs::metadata(layout.pid_file(part)).and_then(|file| file.modified()).ok();
    let since = written.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    since.map_or_else(now_ms, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
