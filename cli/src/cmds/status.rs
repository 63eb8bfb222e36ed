//! `status`: what runs here, and how the node is doing. Exits 5 when the node does not answer.

use murmur_proto::node::v1::{Finding, GetStatusResponse, finding::Severity};
use serde_json::{Map, Value, json};

use crate::{
    connect::Target,
    exit::Exit,
    failure::Failure,
    network::{broker, node, process::Process, server},
    output::{self, Outcome, Output},
    text, time,
    view::some,
};

pub(crate) async fn run(target: &Target, output: Output) -> Outcome {
    let parts = parts(target)?;
    let socket = target.socket();
    let status = node::status(&socket).await;
    let value = json!({
        "data_dir": target.layout.root(),
        "parts": parts.iter().map(|(part, pid)| json!({"part": part, "pid": pid, "running": pid.is_some()})).collect::<Vec<Value>>(),
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

/// The local network's parts with their pids; none when this data directory has no network.
fn parts(target: &Target) -> Result<Vec<(&'static str, Option<i32>)>, Failure> {
    if target.plan.is_none() {
        return Ok(Vec::new());
    }
    let pid = |part| Process::find(&target.layout, part).map(|process| (part, process.map(|process| process.pid)));
    [broker::PART, server::PART, node::PART].into_iter().map(pid).collect()
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

fn text_of(target: &Target, parts: &[(&str, Option<i32>)], status: Result<&GetStatusResponse, &Failure>) -> String {
    let mut blocks = Vec::new();
    if !parts.is_empty() {
        let rows = parts.iter().map(|(part, pid)| match pid {
            Some(pid) => vec![(*part).to_owned(), "runs".into(), pid.to_string()],
            None => vec![(*part).to_owned(), "is down".into(), String::new()],
        });
        blocks.push(output::table(&["PART", "", "PID"], rows));
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
