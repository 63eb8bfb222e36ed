//! `status`: what runs here, and how the node is doing. Exits 5 when the node does not answer. With a slug: all about one agent.

use murmur_proto::node::v1::{Finding, GetStatusRequest, GetStatusResponse, finding::Severity};
use serde_json::{Map, Value, json};

use super::agent_status;
use crate::{
    args::Caller,
    connect::Target,
    duration,
    exit::Exit,
    failure::Failure,
    network::{
        process::Process,
        supervise::{self, PartReport, Phase, Report, SUPERVISED},
    },
    output::{self, Outcome, Output},
    text, time,
    view::some,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// An agent: `self` for the calling one [default: the network on this machine]
    slug: Option<String>,
    #[command(flatten)]
    caller: Caller,
}

pub(crate) async fn run(target: &Target, args: Args, output: Output) -> Outcome {
    match args.slug {
        Some(slug) => agent_status::run(target, slug, &args.caller, output).await,
        None => network(target, &args.caller, output).await,
    }
}

async fn network(target: &Target, caller: &Caller, output: Output) -> Outcome {
    let parts = parts(target)?;
    let socket = target.socket();
    let status = node_status(target, caller).await;
    let value = json!({
        "data_dir": target.layout.root(),
        "parts": parts.iter().map(Part::json).collect::<Vec<Value>>(),
        "socket": socket,
        "node": status.as_ref().ok().map(node_json),
        "trouble": status.as_ref().err().map(|failure| failure.json()["error"].clone()),
    });
    output.show(&value, || text_of(target, &parts, status.as_ref()))?;
    match status {
        Ok(_) => Ok(Exit::Ok),
        Err(failure) => Ok(failure.exit),
    }
}

async fn node_status(target: &Target, caller: &Caller) -> Result<GetStatusResponse, Failure> {
    let mut node = target.node_of(caller).await?;
    Ok(node.host.get_status(GetStatusRequest {}).await?.into_inner())
}

/// One process of the local network.
struct Part {
    name: &'static str,
    pid: Option<i32>,
    /// What the supervisor knows of it; nothing of itself.
    report: PartReport,
}

/// The local network's parts; none when this data directory has no network.
fn parts(target: &Target) -> Result<Vec<Part>, Failure> {
    if target.plan.is_none() {
        return Ok(Vec::new());
    }
    let mut report = Report::load(&target.layout)?.unwrap_or_default();
    let names = SUPERVISED.into_iter().chain([supervise::PART]);
    names
        .map(|name| {
            let pid = Process::find(&target.layout, name)?.map(|process| process.pid);
            Ok(Part { name, pid, report: report.parts.remove(name).unwrap_or_default() })
        })
        .collect()
}

impl Part {
    fn json(&self) -> Value {
        let Self { name, pid, report: PartReport { phase, restarts, started_ms: _, last_exit } } = self;
        let uptime = pid.and(self.report.uptime()).map(|uptime| uptime.as_secs());
        json!({
            "part": name, "pid": pid, "running": pid.is_some(), "uptime_s": uptime, "restarts": restarts,
            "last_exit": last_exit, "given_up": pid.is_none() && matches!(phase, Phase::GivenUp { .. }),
        })
    }

    fn row(&self) -> Vec<String> {
        let Self { name, pid, report } = self;
        let state = match (pid, report.phase) {
            (Some(_), _) => "runs",
            (None, Phase::Waiting { .. }) => "crashed, is started again",
            (None, Phase::GivenUp { .. }) => "crashed too often, tried once a minute",
            (None, Phase::Unwanted | Phase::Running { .. }) => "is down",
        };
        let uptime = pid.and(report.uptime()).map(duration::show);
        let restarts = if report.restarts == 0 { String::new() } else { report.restarts.to_string() };
        let last_exit = report.last_exit.as_ref().map(|exit| format!("{}, {}", exit.how, time::ago_ms(exit.at_ms)));
        let text = |text: Option<String>| text.unwrap_or_default();
        vec![
            (*name).to_owned(),
            state.into(),
            text(pid.map(|pid| pid.to_string())),
            text(uptime),
            restarts,
            text(last_exit),
        ]
    }
}

fn node_json(status: &GetStatusResponse) -> Value {
    let outbox: Map<_, _> = status.outbox.iter().map(|(state, count)| (state.clone(), json!(count))).collect();
    json!({
        "node_id": status.node_id,
        "name": status.node_name,
        "workspace": status.workspace,
        "account": status.account,
        "fingerprint": some(&status.fingerprint),
        "version": status.version,
        "control_plane": {"connected": status.control_plane_connected, "url": status.control_plane_url},
        "broker": {"connected": status.broker_connected, "urls": status.broker_urls},
        "start_time": time::rfc3339(status.start_time.as_ref()),
        "sessions": status.sessions,
        "agents": status.agents,
        "outbox": outbox,
        "oldest_pending_time": time::rfc3339(status.oldest_pending_time.as_ref()),
        "dead_letters": status.dead_letters,
        "quarantined": status.quarantined,
        "key_source": status.key_source,
        "broker_credential_expire_time": time::rfc3339(status.broker_credential_expire_time.as_ref()),
        "clock_skew_ms": status.clock_skew_ms,
        "data_dir": status.data_dir,
        "findings": status.findings.iter().map(finding_json).collect::<Vec<Value>>(),
    })
}

fn finding_json(finding: &Finding) -> Value {
    json!({"severity": severity(finding.severity()), "what": finding.what, "remedy": some(&finding.remedy)})
}

/// The severity's name.
pub(super) const fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Info | Severity::Unspecified => "info",
    }
}

fn text_of(target: &Target, parts: &[Part], status: Result<&GetStatusResponse, &Failure>) -> String {
    let mut blocks = Vec::new();
    if !parts.is_empty() {
        blocks.push(output::table(&["PART", "", "PID", "UP", "RESTARTS", "LAST EXIT"], parts.iter().map(Part::row)));
    }
    match status {
        Ok(status) => blocks.push(node_text(target, status)),
        Err(failure) => blocks.push(failure.to_string()),
    }
    blocks.join("\n\n")
}

fn node_text(target: &Target, status: &GetStatusResponse) -> String {
    let connection =
        |connected: bool, to: &str| format!("{} {to}", if connected { "connected to" } else { "NOT connected to" });
    let waiting: u64 = status.outbox.values().sum();
    let oldest = status.oldest_pending_time.as_ref().map(|time| format!(", the oldest from {}", time::ago(Some(time))));
    let mut out = output::pairs([
        ("node", format!("{} ({})", status.node_name, status.node_id)),
        ("workspace", format!("{}, account {}", status.workspace, status.account)),
        ("fingerprint", status.fingerprint.clone()),
        ("control plane", connection(status.control_plane_connected, &status.control_plane_url)),
        ("broker", connection(status.broker_connected, &status.broker_urls.join(", "))),
        ("agents", format!("{}, {} with a session", status.agents, status.sessions)),
        ("outbox", format!("{waiting} open{}", oldest.unwrap_or_default())),
        ("keys", status.key_source.clone()),
        ("up since", time::ago(status.start_time.as_ref())),
        ("version", status.version.clone()),
        ("socket", target.socket().display().to_string()),
        ("data", status.data_dir.clone()),
    ]);
    for finding in &status.findings {
        out.push_str(&format!(
            "\n\n{}: {}\n  → {}",
            severity(finding.severity()),
            text::clean_line(&finding.what),
            text::clean_line(&finding.remedy)
        ));
    }
    out
}
