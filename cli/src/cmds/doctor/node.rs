//! The node: its socket, connections, clock, keys, and what it finds itself.

use murmur_proto::node::v1::{GetStatusResponse, finding::Severity};

use super::{Check, Level};
use crate::{
    connect::Target,
    exit::Exit,
    network::{node, ready},
    time,
};

/// Half of what the protocol tolerates.
const SKEW_WARNING_MS: u64 = murmur_core::limits::CLOCK_SKEW_MS / 2;

pub(super) async fn check(target: &Target) -> Vec<Check> {
    let mut checks: Vec<_> = control_plane(target).await.into_iter().collect();
    let socket = target.socket();
    match node::status(&socket).await {
        Ok(status) => {
            checks.push(Check::ok("socket", format!("a node answers on {}", socket.display())));
            checks.extend(connections(&status));
            checks.extend([clock(&status), keys(&status)]);
            checks.extend(status.findings.iter().map(finding));
        }
        Err(failure) => {
            let level =
                if failure.exit == Exit::Unavailable && target.plan.is_none() { Level::Warning } else { Level::Error };
            checks.push(Check::new(level, "socket", failure.what, failure.remedy.unwrap_or_default()));
        }
    }
    checks
}

async fn control_plane(target: &Target) -> Option<Check> {
    let url = target.server_url().ok()?;
    Some(if ready::server_serves(&url).await {
        Check::ok("control plane", format!("healthy at {url}"))
    } else {
        let remedy = "Run `murmurctl up`. Until then, messages between known agents still flow.";
        Check::new(Level::Error, "control plane", format!("not healthy at {url}"), remedy)
    })
}

fn connections(status: &GetStatusResponse) -> Vec<Check> {
    let check = |connected: bool, about, to: &str, remedy| {
        if connected {
            Check::ok(about, format!("the node is connected to {to}"))
        } else {
            Check::new(Level::Error, about, format!("the node is not connected to {to}"), remedy)
        }
    };
    let broker = status.broker_urls.join(", ");
    vec![
        check(
            status.control_plane_connected,
            "node → control plane",
            &status.control_plane_url,
            "See that it runs and is reachable.",
        ),
        check(
            status.broker_connected,
            "node → broker",
            &broker,
            "See that it runs and is reachable; messages wait on disk.",
        ),
        versions(status),
    ]
}

fn versions(status: &GetStatusResponse) -> Check {
    let own = env!("CARGO_PKG_VERSION");
    if status.version == own {
        return Check::ok("version", format!("the running node is {own}, as murmurctl"));
    }
    let what = format!("the running node is {}, and murmurctl is {own}", status.version);
    Check::new(Level::Warning, "version", what, "Run `murmurctl down` and `murmurctl up` after an upgrade.")
}

fn clock(status: &GetStatusResponse) -> Check {
    let skew = status.clock_skew_ms;
    if skew.unsigned_abs() < SKEW_WARNING_MS {
        return Check::ok("clock", format!("{skew} ms from the control plane's"));
    }
    Check::new(
        Level::Warning,
        "clock",
        format!("{skew} ms from the control plane's, by which the node counts"),
        "Set the clock, by NTP best of all: without the control plane the node would be wrong.",
    )
}

fn keys(status: &GetStatusResponse) -> Check {
    let expires = time::rfc3339(status.broker_credential_expire_time.as_ref()).unwrap_or_else(|| "unknown".into());
    let what = format!("private keys come from `{}`; the broker credential is good until {expires}", status.key_source);
    // The node itself finds what is to be said about its key source.
    Check::ok("keys", what)
}

fn finding(finding: &murmur_proto::node::v1::Finding) -> Check {
    let level = match finding.severity() {
        Severity::Error => Level::Error,
        Severity::Warning => Level::Warning,
        Severity::Info | Severity::Unspecified => Level::Info,
    };
    Check::new(level, "node", &finding.what, &finding.remedy)
}
