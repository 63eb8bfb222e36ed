//! The broker of a local network: finding or fetching a nats-server, starting it, asking how it is.

use std::{net::SocketAddr, path::PathBuf, process::Stdio, time::Duration};

use serde::Deserialize;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    net::TcpStream,
    process::Command,
};

use super::{
    binaries,
    layout::Layout,
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

/// Writes the broker's keys and configuration, once.
pub(crate) async fn prepare(layout: &Layout, plan: &Plan) -> Result<(), Failure> {
    if layout.broker_config().exists() {
        return Ok(());
    }
    let mut command = Command::new(binaries::find(binaries::SERVER)?);
    command.arg("broker-init").arg("--dir").arg(layout.broker()).arg("--listen").arg(plan.broker.to_string());
    let output = command.stdin(Stdio::null()).output().await.context("running murmur-server broker-init")?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Failure::failed(format!("murmur-server broker-init failed: {said}")))
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
