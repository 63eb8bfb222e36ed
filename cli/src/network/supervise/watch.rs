//! Learning that a process has ended, and how.

use std::{os::unix::process::ExitStatusExt as _, process::ExitStatus};

use nix::sys::signal::Signal;

use super::super::process::Process;

/// A process that is watched.
#[derive(Debug)]
pub(super) enum Watched {
    /// Started by this supervisor, which is told how it ends.
    Own(tokio::process::Child),
    /// Found running: somebody else started it.
    Adopted(Process),
}

impl Watched {
    /// Waits until it has ended, and says how.
    pub(super) async fn ended(&mut self) -> String {
        match self {
            Self::Own(child) => match child.wait().await {
                Ok(status) => said(status),
                Err(error) => format!("ended, and how cannot be told: {error}"),
            },
            Self::Adopted(process) => {
                gone(process).await;
                "ended; how is known only to whoever started it".to_owned()
            }
        }
    }
}

fn said(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(number)) => {
            let name =
                Signal::try_from(number).map_or_else(|_| format!("signal {number}"), |signal| signal.to_string());
            format!("killed by {name}")
        }
        (None, None) => "ended".to_owned(),
    }
}

/// Waits for the end of a process that is no child of ours.
#[cfg(target_os = "linux")]
async fn gone(process: &Process) {
    use rustix::{
        event::{PollFd, PollFlags, poll},
        process::{Pid, PidfdFlags, pidfd_open},
    };

    let opened = Pid::from_raw(process.pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    // The pid may have become somebody else's between the file and the descriptor.
    let Some(fd) = opened.filter(|_| process.is_alive()) else { return gone_by_looking(process).await };
    // Readable means that it has ended. A thread of the pool waits, and does not hold up the end of this process.
    let waited =
        tokio::task::spawn_blocking(move || while poll(&mut [PollFd::new(&fd, PollFlags::IN)], None).is_err() {});
    if waited.await.is_err() {
        gone_by_looking(process).await;
    }
}

#[cfg(not(target_os = "linux"))]
async fn gone(process: &Process) {
    gone_by_looking(process).await;
}

/// For kernels that do not tell.
async fn gone_by_looking(process: &Process) {
    while process.is_alive() {
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_way_of_the_end_is_told() {
        let run = |script: &str| Watched::Own(tokio::process::Command::new("sh").args(["-c", script]).spawn().unwrap());
        assert_eq!(run("exit 3").ended().await, "ended with exit code 3");
        assert_eq!(run("kill -9 $$").ended().await, "killed by SIGKILL");
    }
}
