//! The broker of a local network: finding or fetching a nats-server, starting it, asking how it is.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde::Deserialize;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    net::TcpStream,
    process::Command,
};

use super::{
    binaries,
    layout::{self, Layout},
    plan::Plan,
    process::{Process, Spec},
    progress::Step,
    ready::Wait,
    supervise::Starter,
};
use crate::{
    exit::Exit,
    failure::{Context as _, Failure},
};

/// The part's name.
pub(crate) const PART: &str = "broker";
/// The fetcher is part of the program, so that an installed one needs no checkout.
const FETCHER: &str = include_str!("../../../deploy/fetch-nats-server.sh");
/// A store of some gigabytes is read again within this time.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// The broker greets at once; a stranger on its port may never.
const GREETING_WITHIN: Duration = Duration::from_secs(2);
const GREETING_BYTES_MAX: u64 = 16 * 1024;

/// What the broker says of itself when somebody connects.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Greeting {
    pub(crate) version: String,
    #[serde(default)]
    pub(crate) jetstream: bool,
}

/// The fetcher's exit code when `NATS_SERVER` names no program that can be used.
const NAMED_WRONGLY: i32 = 64;

/// Finds a nats-server or fetches one, and shows what it does.
pub(crate) async fn find_program(step: &Step) -> Result<PathBuf, Failure> {
    let doing = "running the nats-server fetcher";
    // As an argument, not on stdin, where pip or docker could read it away.
    let mut child = Command::new("sh")
        .args(["-c", FETCHER, "fetch-nats-server"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context(doing)?;
    let mut said = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        let mut lines = BufReader::new(stderr).lines();
        while let Some(line) = lines.next_line().await.context(doing)? {
            let line = line.strip_prefix("fetch-nats-server: ").unwrap_or(&line).to_owned();
            step.detail(&line);
            said.push(line);
        }
    }
    let output = child.wait_with_output().await.context(doing)?;
    let path = String::from_utf8_lossy(&output.stdout).lines().last().unwrap_or_default().to_owned();
    if output.status.success() && !path.is_empty() {
        return Ok(PathBuf::from(path));
    }
    if output.status.code() == Some(NAMED_WRONGLY) {
        let what = said.pop().unwrap_or_default();
        return Err(Failure::usage(what.replacen("error: ", "", 1))
            .remedy("Correct NATS_SERVER, or unset it: then one is found or fetched."));
    }
    Err(Failure::new(Exit::Unavailable, "no nats-server could be found or fetched")
        .remedy(said.join("\n    ").replacen("error: ", "", 1)))
}

/// Writes the broker's keys and configuration, once. Where the data directory was moved or copied since, its paths are corrected: a broker
/// would go on with the store of the other folder. Returns that one then.
pub(crate) async fn prepare(layout: &Layout, plan: &Plan) -> Result<Option<PathBuf>, Failure> {
    if let Some(text) = layout::read_optional(&layout.broker_config())? {
        return correct(layout, &text);
    }
    let mut command = Command::new(binaries::find(binaries::SERVER)?);
    command.arg("broker-init").arg("--dir").arg(layout.broker()).arg("--listen").arg(plan.broker.to_string());
    let output = command.stdin(Stdio::null()).output().await.context("running murmur-server broker-init")?;
    if output.status.success() {
        return Ok(None);
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Failure::failed(format!("murmur-server broker-init failed: {said}")))
}

/// Rewrites a configuration that was made in another folder; keys and accounts stay.
fn correct(layout: &Layout, text: &str) -> Result<Option<PathBuf>, Failure> {
    let path = layout.broker_config();
    // As `broker-init` writes paths.
    let dir = fs::canonicalize(layout.broker()).context(format!("finding `{}`", layout.broker().display()))?;
    // One in the server's own language was made by hand, and is its maker's.
    let Ok(mut config) = serde_json::from_str::<Value>(text) else { return Ok(None) };
    let Some(before) = made_in(&config).filter(|before| *before != dir) else { return Ok(None) };
    relocate(&mut config, &before, &dir);
    let text = serde_json::to_string_pretty(&config).context("encoding the broker's configuration")?;
    layout::write_private(&path, text.as_bytes())?;
    Ok(Some(before))
}

/// The folder that a configuration was made in: its process id file lies there.
fn made_in(config: &Value) -> Option<PathBuf> {
    Path::new(config.get("pid_file")?.as_str()?).parent().map(Path::to_owned)
}

/// Moves every path below one folder to another one; a store that somebody put elsewhere stays there.
fn relocate(value: &mut Value, from: &Path, to: &Path) {
    match value {
        Value::String(text) => {
            if let Ok(rest) = Path::new(text.as_str()).strip_prefix(from) {
                *text = to.join(rest).display().to_string();
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| relocate(item, from, to)),
        Value::Object(entries) => entries.values_mut().for_each(|entry| relocate(entry, from, to)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Starts the broker and waits until it greets.
pub(crate) async fn start(
    layout: &Layout,
    plan: &Plan,
    program: PathBuf,
    starter: &Starter,
) -> Result<Process, Failure> {
    refuse_stranger(plan.broker, "broker").await?;
    let spec = Spec { part: PART.into(), program, args: vec!["-c".into(), layout.broker_config().into()] };
    let process = starter.spawn(layout, spec).await?;
    let wait = Wait { layout, part: PART, process: &process, until: "it accepts connections", bound: READY_WITHIN };
    wait.ask(|| async { greeting(plan.broker).await.filter(|greeting| greeting.jetstream) }).await?;
    Ok(process)
}

/// The greeting of whatever listens there, if it is a broker.
pub(crate) async fn greeting(address: SocketAddr) -> Option<Greeting> {
    let read = async {
        let stream = TcpStream::connect(address).await.ok()?;
        let mut line = String::new();
        BufReader::new(stream.take(GREETING_BYTES_MAX)).read_line(&mut line).await.ok()?;
        serde_json::from_str(line.strip_prefix("INFO ")?).ok()
    };
    tokio::time::timeout(GREETING_WITHIN, read).await.ok()?
}

/// Our ports are remembered; somebody else may have taken one meanwhile.
pub(crate) async fn refuse_stranger(address: SocketAddr, part: &str) -> Result<(), Failure> {
    if TcpStream::connect(address).await.is_err() {
        return Ok(());
    }
    Err(Failure::failed(format!("another program listens on {address}, the address of this network's {part}"))
        .remedy("End that program, or make another network with --data-dir."))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_configuration_that_came_with_a_copy_is_made_this_folders() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        fs::create_dir(layout.broker()).unwrap();
        let config = |at: &str| {
            json!({
                "listen": "127.0.0.1:4222",
                "operator": "of before",
                "resolver": {"dir": format!("{at}/accounts"), "type": "full"},
                "jetstream": {"store_dir": format!("{at}/store")},
                "pid_file": format!("{at}/nats-server.pid"),
                "tls": {"cert_file": "/old/brokerage/cert.pem"},
            })
        };
        let written = || serde_json::from_str::<Value>(&fs::read_to_string(layout.broker_config()).unwrap()).unwrap();
        let here = fs::canonicalize(layout.broker()).unwrap();
        let moved = correct(&layout, &config("/old/broker").to_string()).unwrap();
        assert_eq!(moved.as_deref(), Some(Path::new("/old/broker")));
        assert_eq!(written(), config(here.to_str().unwrap()), "what lies elsewhere stays there");

        assert_eq!(correct(&layout, &written().to_string()).unwrap(), None);
        assert_eq!(correct(&layout, "listen: 127.0.0.1:4222").unwrap(), None);
    }
}
