//! What the figures were taken on: hardware and versions, no names.

use std::{
    collections::BTreeMap,
    fs,
    process::{Command, Stdio},
};

use murmur_tests::process::nats_server;

/// Reads it from the system.
pub(crate) fn read() -> BTreeMap<String, String> {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let model = line("/proc/cpuinfo", "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let memory = line("/proc/meminfo", "MemTotal").and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let broker = output(Command::new(nats_server()).arg("--version"));
    let mut environment = BTreeMap::from([
        ("processor".to_owned(), format!("{cores} × {model}, shared by everything that is measured")),
        ("memory".to_owned(), format!("{} GiB", memory.unwrap_or(0) / 1024 / 1024)),
        ("Linux".to_owned(), kernel.trim().split('-').next().unwrap_or_default().to_owned()),
        ("nats-server".to_owned(), broker.unwrap_or_default().trim_start_matches("nats-server: ").to_owned()),
        ("SQLite".to_owned(), rusqlite::version().to_owned()),
        ("murmur".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
    ]);
    let root = env!("CARGO_MANIFEST_DIR");
    if let Some(commit) = output(Command::new("git").args(["-C", root, "rev-parse", "--short", "HEAD"])) {
        environment.insert("commit".to_owned(), commit);
    }
    environment
}

fn line(file: &str, key: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn output(command: &mut Command) -> Option<String> {
    let output = command.stderr(Stdio::null()).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
