//! A private network as a user starts it: `murmurctl` in a data directory of its own.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tempfile::TempDir;

use crate::{process::binary, wait};

/// A data directory whose network, if it runs, ends with the test.
pub struct Home {
    dir: TempDir,
}

impl Default for Home {
    fn default() -> Self {
        Self::new()
    }
}

impl Home {
    /// An empty one.
    ///
    /// # Panics
    /// When no temporary folder can be made.
    #[must_use]
    pub fn new() -> Self {
        Self { dir: tempfile::Builder::new().prefix("murmur-home-").tempdir().unwrap() }
    }

    /// The data directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Runs a command on it.
    ///
    /// # Panics
    /// When the program cannot be started.
    #[must_use]
    pub fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new(binary("murmurctl"));
        command.args(args).arg("--data-dir").arg(self.dir.path());
        for name in ["MURMUR_NODE_SOCKET", "MURMUR_SERVER_URL", "MURMUR_TOKEN_FILE", "MURMUR_AGENT", "XDG_RUNTIME_DIR"]
        {
            command.env_remove(name);
        }
        command.output().unwrap()
    }

    /// Runs a command that must succeed, and returns what it printed.
    ///
    /// # Panics
    /// When it fails.
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{args:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
        text
    }

    /// Runs a command that must succeed, and returns its JSON.
    ///
    /// # Panics
    /// When it fails or prints something else.
    #[must_use]
    pub fn json(&self, args: &[&str]) -> Value {
        let mut all = args.to_vec();
        all.push("--json");
        let text = self.ok(&all);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?} printed no JSON ({error}): {text}"))
    }

    /// What a command prints as JSON, whatever it ends with.
    ///
    /// # Panics
    /// When it prints something else.
    #[must_use]
    pub fn answer(&self, args: &[&str]) -> Value {
        let mut all = args.to_vec();
        all.push("--json");
        let output = self.run(&all);
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{args:?} printed no JSON ({error}): {output:?}"))
    }

    /// What `status` says of one part.
    ///
    /// # Panics
    /// When it says nothing of it.
    #[must_use]
    pub fn part(&self, name: &str) -> Value {
        let status = self.answer(&["status"]);
        let parts = status["parts"].as_array().unwrap();
        parts.iter().find(|part| part["part"] == name).unwrap_or_else(|| panic!("no {name} in {status}")).clone()
    }

    /// Sends a signal to a part.
    ///
    /// # Panics
    /// When it does not run.
    pub fn signal(&self, name: &str, signal: Signal) {
        let pid = self.part(name)["pid"].as_i64().unwrap_or_else(|| panic!("{name} is down"));
        kill(Pid::from_raw(pid.try_into().unwrap()), signal).unwrap();
    }

    /// Waits until a part runs under another pid than before.
    pub async fn restarted(&self, name: &str, before: &Value) -> Value {
        wait::until("the part runs again", || async {
            let part = self.part(name);
            (part["running"] == true && part["pid"] != before["pid"]).then_some(part)
        })
        .await
    }

    /// Command lines of everything that still runs on this data directory.
    ///
    /// # Panics
    /// Where there is no `/proc`.
    #[must_use]
    pub fn processes(&self) -> Vec<String> {
        let mine = self.dir.path().to_str().unwrap();
        fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter_map(|entry| fs::read(entry.path().join("cmdline")).ok())
            .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
            .filter(|line| line.contains(mine))
            .collect()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let ended = self.run(&["down"]);
        if std::thread::panicking() {
            eprintln!("down: {}", String::from_utf8_lossy(&ended.stderr));
            for name in ["supervisor", "server", "node"] {
                let log = self.dir.path().join(format!("logs/{name}.log"));
                eprintln!("--- {name}\n{}", fs::read_to_string(log).unwrap_or_default());
            }
        }
    }
}
