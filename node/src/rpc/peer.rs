//! Whether the process at the other end of the socket is an agent's (DESIGN §8.4): such a one shows its token, or it would be the owner.
//!
//! Whatever an agent's process starts stays below its keeper, which takes in orphans; and every keeper is told on its command line which
//! folder of which node it is for. So the ancestors of a process tell whose it is.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

/// Ancestors that are looked at; a process further down than this is nobody's session.
pub(super) const ANCESTORS_MAX: usize = 64;
/// Answers that are remembered before all are forgotten.
const KNOWN_MAX: usize = 1024;

/// Tells processes of this node's agents from all others.
#[derive(Debug)]
pub(super) struct Peers {
    data_dir: PathBuf,
    /// By process number and start, which together are never used twice.
    known: Mutex<HashMap<(i32, u64), bool>>,
}

impl Peers {
    pub(super) fn new(data_dir: &Path) -> Self {
        let data_dir = data_dir.canonicalize().unwrap_or_else(|_| data_dir.to_owned());
        Self { data_dir, known: Mutex::default() }
    }

    /// Whether a process belongs to an agent of this node. One that is gone already could have been anybody's, and counts as one.
    pub(super) fn is_agents(&self, pid: i32) -> bool {
        let Some(stat) = Stat::of(pid) else { return cfg!(target_os = "linux") };
        let key = (pid, stat.start);
        if let Some(known) = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return *known;
        }
        let answer = self.is_below_keeper(pid, stat);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(key, answer);
        answer
    }

    fn is_below_keeper(&self, pid: i32, stat: Stat) -> bool {
        let (mut pid, mut stat) = (pid, stat);
        for _ in 0..ANCESTORS_MAX {
            if self.is_keeper(pid) {
                return true;
            }
            if stat.parent <= 1 {
                return false;
            }
            pid = stat.parent;
            stat = match Stat::of(pid) {
                Some(stat) => stat,
                // It ended while we looked: who took its children in is not known.
                None => return true,
            };
        }
        true
    }

    /// `murmur-node keep DIR`, of a folder in this node's data directory.
    fn is_keeper(&self, pid: i32) -> bool {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = line.split(|byte| *byte == 0);
        let (_, verb, dir) = (words.next(), words.next(), words.next());
        let dir = dir.and_then(|dir| std::str::from_utf8(dir).ok()).map(Path::new);
        verb == Some(b"keep") && dir.is_some_and(|dir| self.has(dir))
    }

    fn has(&self, dir: &Path) -> bool {
        dir.starts_with(&self.data_dir) || dir.canonicalize().is_ok_and(|dir| dir.starts_with(&self.data_dir))
    }
}

/// What the kernel tells of a process.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stat {
    pub(super) parent: i32,
    pub(super) start: u64,
}

impl Stat {
    pub(super) fn of(pid: i32) -> Option<Self> {
        Self::read(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// Fields 4 and 22 of `/proc/PID/stat`; the second one, a name, may hold anything.
    fn read(text: &str) -> Option<Self> {
        let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
        let parent = fields.nth(1)?.parse().ok()?;
        let start = fields.nth(17)?.parse().ok()?;
        Some(Self { parent, start })
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// Ends with the test.
    struct Running(Child);

    impl Drop for Running {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// A program whose command line is `sh keep DIR`, and a child of it that says its number.
    fn below_keeper(script_dir: &Path, dir: &Path) -> Option<(Running, i32)> {
        use std::io::{BufRead as _, BufReader};
        std::fs::write(script_dir.join("keep"), "sh -c 'echo $$; read _' < /dev/fd/0\n:\n").ok()?;
        let mut command = Command::new("sh");
        command.arg("keep").arg(dir).current_dir(script_dir).stdout(Stdio::piped()).stdin(Stdio::piped());
        let mut child = Running(command.spawn().ok()?);
        let mut line = String::new();
        BufReader::new(child.0.stdout.take()?).read_line(&mut line).ok()?;
        Some((child, line.trim().parse().ok()?))
    }

    #[test]
    fn what_a_keeper_of_this_node_started_is_an_agents() {
        let (script, node) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (_running, pid) = below_keeper(script.path(), &node.path().join("agents/1")).unwrap();
        assert!(Peers::new(node.path()).is_agents(pid));
        // To another node it is a process like any other.
        assert!(!Peers::new(script.path()).is_agents(pid));
    }

    #[test]
    fn a_name_with_brackets_does_not_shift_the_fields() {
        let text = "42 (a) b) (c) S 7 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 9000 1 1";
        let stat = Stat::read(text).unwrap();
        assert_eq!((stat.parent, stat.start), (7, 9000));
        assert!(Stat::read("nonsense").is_none());
    }

    #[test]
    fn this_process_is_nobodys_agent_and_one_that_is_gone_could_be() {
        let dir = tempfile::tempdir().unwrap();
        let peers = Peers::new(dir.path());
        assert!(!peers.is_agents(std::process::id().try_into().unwrap()));
        let mut gone = Command::new("true").spawn().unwrap();
        let pid = gone.id().try_into().unwrap();
        gone.wait().unwrap();
        assert!(peers.is_agents(pid));
    }
}
