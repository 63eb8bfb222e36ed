//! What processes use, from /proc: processor time and resident memory.

use std::{collections::BTreeMap, fs};

/// Clock ticks in a second, as the kernel shows times to programs on every architecture.
const TICKS_PER_SECOND: f64 = 100.0;

/// Processor seconds so far, by process.
#[derive(Debug, Clone)]
pub(crate) struct Cpu {
    processes: Vec<(&'static str, f64)>,
    /// Of the first process, by the name of its threads.
    threads: BTreeMap<String, f64>,
    /// Of the second process.
    other_threads: BTreeMap<String, f64>,
}

impl Cpu {
    /// Reads the clocks of these processes. Of the first two the threads are told apart.
    pub(crate) fn read(processes: &[(&'static str, u32)]) -> Self {
        let threads = |index: usize| processes.get(index).map(|(_, pid)| threads(*pid)).unwrap_or_default();
        Self {
            processes: processes.iter().map(|(name, pid)| (*name, seconds(&format!("/proc/{pid}/stat")))).collect(),
            threads: threads(0),
            other_threads: threads(1),
        }
    }

    /// Processor milliseconds for each of `count` things done since `earlier`, by process.
    pub(crate) fn per(&self, earlier: &Self, count: u64) -> Vec<(&'static str, f64)> {
        let used = self.processes.iter().zip(&earlier.processes);
        used.map(|((name, now), (_, before))| (*name, (now - before) * 1000.0 / count.max(1) as f64)).collect()
    }

    /// The same by thread of the two nodes, in words, the busiest first.
    pub(crate) fn threads_per(&self, earlier: &Self, count: u64) -> [String; 2] {
        let words = |now: &BTreeMap<String, f64>, before: &BTreeMap<String, f64>| {
            let mut used: Vec<(f64, &str)> = now
                .iter()
                .map(|(name, now)| (now - before.get(name).copied().unwrap_or(0.0), name.as_str()))
                .map(|(used, name)| (used * 1000.0 / count.max(1) as f64, name))
                .filter(|(used, _)| *used >= 0.001)
                .collect();
            used.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
            used.iter().map(|(used, name)| format!("{name} {used:.3}")).collect::<Vec<_>>().join(", ")
        };
        [words(&self.threads, &earlier.threads), words(&self.other_threads, &earlier.other_threads)]
    }
}

/// Resident memory of a process in MiB.
pub(crate) fn rss_mib(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

/// Bytes under a folder, in MiB.
pub(crate) fn disk_mib(folder: &std::path::Path) -> f64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => disk_mib(&entry.path()),
            Ok(metadata) => metadata.len() as f64 / 1024.0 / 1024.0,
            Err(_) => 0.0,
        })
        .sum()
}

fn threads(pid: u32) -> BTreeMap<String, f64> {
    let mut threads = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(name) = fs::read_to_string(path.join("comm")) else { continue };
        *threads.entry(name.trim().to_owned()).or_insert(0.0) += seconds(&path.join("stat").to_string_lossy());
    }
    threads
}

/// User and system time; a thread that has just ended has none.
fn seconds(path: &str) -> f64 {
    let Ok(stat) = fs::read_to_string(path) else { return 0.0 };
    // The name in parentheses may hold spaces; utime and stime are the 14th and 15th field.
    let fields = stat.rsplit(") ").next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / TICKS_PER_SECOND
}
