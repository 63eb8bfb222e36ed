//! Nodes that run agents, and `murmurctl` as people and agents call it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;

use crate::{
    network::{Network, Node},
    process::binary,
    wait,
};

/// What runs agents in scenarios: `bash` takes the prompt as a script and forgets it, `echo` answers it, and may be asked again.
pub const RUNTIME: &str = r#"
[runtime]
capacity = 16
grace_ms = 2000
default_backend = "bash"

[runtime.backends.bash]
preset = "command"
program = "bash"
prompt = "argument"
args = ["-c", "{prompt}"]

[runtime.backends.echo]
preset = "command"
program = "bash"
args = ["-c", "echo \"heard: $(cat)\""]
resume_args = ["-c", "echo \"heard: $(cat)\""]
session = "echo"
"#;

impl Network {
    /// A node that runs agents, by the backends `bash` and `echo`.
    ///
    /// # Panics
    /// When it never comes up.
    pub async fn host(&self, name: &str, account: &str) -> Node {
        self.node_configured(name, account, RUNTIME).await
    }
}

impl Node {
    /// Runs `murmurctl` on the node's socket, as the person whose node it is, or as one of its interactive agents. Nobody types.
    pub async fn ctl(&self, agent: Option<&str>, args: &[&str]) -> Output {
        let mut command = Command::new(binary("murmurctl"));
        command.args(args).env_clear().env("PATH", "/usr/bin:/bin").env("MURMUR_NODE_SOCKET", &self.socket);
        command.env("HOME", &self.dir).stdin(Stdio::null());
        if let Some(agent) = agent {
            command.env("MURMUR_AGENT", agent);
        }
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }

    /// As [`Node::ctl`], for a command that must succeed: its JSON.
    ///
    /// # Panics
    /// When it fails or prints something else.
    pub async fn ctl_json(&self, agent: Option<&str>, args: &[&str]) -> Value {
        let output = self.ctl(agent, &[args, &["--json"]].concat()).await;
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{args:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?} printed no JSON ({error}): {text}"))
    }

    /// As [`Node::ctl_json`], from a working directory.
    ///
    /// # Panics
    /// When it fails or prints something else.
    pub async fn ctl_in(&self, dir: &Path, args: &[&str]) -> Value {
        let output = self.run_in(dir, args).await;
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{args:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?} printed no JSON ({error}): {text}"))
    }

    /// As [`Node::ctl_in`], for a command that must fail: the error that it tells.
    ///
    /// # Panics
    /// When it succeeds or prints something else.
    pub async fn ctl_refused(&self, dir: &Path, args: &[&str]) -> Value {
        let output = self.run_in(dir, args).await;
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{args:?} did it: {}", String::from_utf8_lossy(&output.stdout));
        let said: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?}: {error}: {text}"));
        said["error"].clone()
    }

    async fn run_in(&self, dir: &Path, args: &[&str]) -> Output {
        let mut command = Command::new(binary("murmurctl"));
        command.args(args).arg("--json").env_clear().env("PATH", "/usr/bin:/bin").current_dir(dir);
        command.env("MURMUR_NODE_SOCKET", &self.socket).env("HOME", &self.dir).stdin(Stdio::null());
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }

    /// Waits until an agent is in a phase, by looking at it, whoever else waits.
    pub async fn until_phase(&self, slug: &str, phase: &str) -> Value {
        wait::until(&format!("{slug} is {phase}"), || async {
            let output = self.ctl(None, &["status", slug, "--json"]).await;
            let status: Value = serde_json::from_slice(&output.stdout).ok()?;
            (status["phase"] == phase).then_some(status)
        })
        .await
    }

    /// Pids of processes that work inside the node's folder: its agents'.
    #[must_use]
    pub fn agent_processes(&self) -> Vec<PathBuf> {
        let inside =
            |path: &Path| fs::read_link(path.join("cwd")).is_ok_and(|cwd| cwd.starts_with(self.dir.join("runtime")));
        let all = fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path());
        all.filter(|path| inside(path)).collect()
    }
}
