//! This machine: programs, processes, files, disk.

use std::{fs, os::unix::fs::PermissionsExt as _};

use nix::sys::statvfs::statvfs;

use super::{Check, Level};
use crate::{
    connect::Target,
    failure::Failure,
    network::{
        binaries, broker, node,
        process::Process,
        server,
        supervise::{self, PartReport, Phase, Report},
    },
    owner::Owner,
    time,
};

const GIB: f64 = (1_u64 << 30) as f64;
const DISK_ERROR_GIB: f64 = 0.2;
const DISK_WARNING_GIB: f64 = 2.0;

/// Our programs are there and of one version.
pub(super) fn binaries() -> Vec<Check> {
    [binaries::SERVER, binaries::NODE, binaries::SHIM].into_iter().map(binary).collect()
}

fn binary(name: &'static str) -> Check {
    let own = env!("CARGO_PKG_VERSION");
    let path = match binaries::find(name) {
        Ok(path) => path,
        Err(failure) => return Check::new(Level::Error, name, failure.what, failure.remedy.unwrap_or_default()),
    };
    match binaries::version(&path) {
        Some(version) if version.split_whitespace().last() == Some(own) => {
            Check::ok(name, format!("{} {own}", path.display()))
        }
        Some(version) => {
            let what = format!("{} is `{version}`, and murmurctl is {own}", path.display());
            Check::new(Level::Warning, name, what, "Install all of one version.")
        }
        None => Check::new(Level::Error, name, format!("{} does not run", path.display()), "Install it again."),
    }
}

/// What `up` started still runs.
pub(super) fn processes(target: &Target) -> Result<Vec<Check>, Failure> {
    if target.plan.is_none() {
        let what = format!("`{}` holds no network", target.layout.root().display());
        return Ok(vec![Check::new(
            Level::Info,
            "network",
            what,
            "Start one with `murmurctl up`, if this machine should have one.",
        )]);
    }
    let report = Report::load(&target.layout)?.unwrap_or_default();
    let parts = [(broker::PART, Level::Error), (server::PART, Level::Warning), (node::PART, Level::Error)];
    let checks = parts.into_iter().map(|(part, level)| process(target, part, level, report.parts.get(part)));
    checks.chain([supervisor(target)]).collect()
}

fn process(target: &Target, part: &'static str, level: Level, report: Option<&PartReport>) -> Result<Check, Failure> {
    let process = Process::find(&target.layout, part)?;
    let exit = report.and_then(|report| report.last_exit.as_ref());
    let log = target.layout.log(part);
    let look = format!("Run `murmurctl up`; its log is `{}`.", log.display());
    Ok(match (process, report.map(|report| (report.phase, report.restarts)), exit) {
        (Some(process), Some((_, restarts @ 1..)), Some(exit)) => Check::new(
            Level::Info,
            part,
            format!(
                "runs as process {}, restarted {restarts} time(s), the last one {} {}",
                process.pid,
                exit.how,
                time::ago_ms(exit.at_ms)
            ),
            format!("If you did not end it, look into `{}`.", log.display()),
        ),
        (Some(process), ..) => Check::ok(part, format!("runs as process {}", process.pid)),
        (None, Some((Phase::GivenUp { crashes, within_s }, _)), Some(exit)) => Check::new(
            Level::Error,
            part,
            format!(
                "crashed {crashes} times within {within_s} s and is left down but for a try a minute; the last time: {}; its log ends: {}",
                exit.how,
                if exit.last_line.is_empty() { "(empty)" } else { &exit.last_line }
            ),
            format!("Mend what the log says, `{}`, then run `murmurctl up`.", log.display()),
        ),
        (None, Some((Phase::Waiting { .. }, _)), Some(exit)) => {
            let what =
                format!("is down ({}) and about to be started again; its log ends: {}", exit.how, exit.last_line);
            Check::new(level, part, what, format!("Wait a moment; its log is `{}`.", log.display()))
        }
        (None, ..) => Check::new(level, part, "is not running", look),
    })
}

fn supervisor(target: &Target) -> Result<Check, Failure> {
    Ok(match Process::find(&target.layout, supervise::PART)? {
        Some(process) => Check::ok(supervise::PART, format!("runs as process {}", process.pid)),
        None => Check::new(
            Level::Warning,
            supervise::PART,
            "is not running: a part that crashes stays down",
            "Run `murmurctl up`; what runs stays.",
        ),
    })
}

/// The root key and the disk.
pub(super) fn files(target: &Target) -> Vec<Check> {
    let root_key = target.plan.as_ref().and_then(|plan| root_key(target, &plan.workspace));
    root_key.into_iter().chain(disk(target)).collect()
}

fn root_key(target: &Target, workspace: &str) -> Option<Check> {
    let path = Owner::path(&target.layout, workspace);
    let mode = fs::metadata(&path).ok()?.permissions().mode() & 0o777;
    let shown = path.display();
    Some(if mode & 0o077 == 0 {
        let what = format!("the workspace's root key is a plain file, `{shown}`, mode {mode:o}");
        Check::new(
            Level::Info,
            "root key",
            what,
            "Fine for one machine. Keep a copy offline: whoever has it can add nodes to the workspace.",
        )
    } else {
        let what = format!("others can read the workspace's root key `{shown}`, mode {mode:o}");
        Check::new(
            Level::Error,
            "root key",
            what,
            format!("Run `chmod 600 {shown}`; make a new workspace if somebody may have read it."),
        )
    })
}

fn disk(target: &Target) -> Option<Check> {
    // The folder may not exist yet; one above it does.
    let stat = target.layout.root().ancestors().find_map(|folder| statvfs(folder).ok())?;
    // The types of these two differ between systems.
    let free = stat.blocks_available() as f64 * stat.fragment_size() as f64 / GIB;
    let what = format!("{free:.1} GiB are free");
    let remedy = "Free some space: messages are refused when nothing can be written.";
    Some(match free {
        ..DISK_ERROR_GIB => Check::new(Level::Error, "disk", what, remedy),
        ..DISK_WARNING_GIB => Check::new(Level::Warning, "disk", what, remedy),
        _ => Check::ok("disk", what),
    })
}
