//! The broker: version, JetStream, durability, and how full it is when its monitoring page is on.

use std::{net::SocketAddr, time::Duration};

use serde::Deserialize;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{Check, Level};
use crate::{
    connect::Target,
    network::{broker, layout},
};

const VERSION_MIN: [u64; 3] = [2, 14, 5];
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
const ANSWER_BYTES_MAX: u64 = 1 << 20;
const FULL_PERCENT: u64 = 80;

/// What matters here of the configuration that `broker-init` writes, which is JSON.
#[derive(Debug, Deserialize)]
struct Config {
    #[serde(default)]
    jetstream: JetStream,
    http: Option<SocketAddr>,
}

#[derive(Debug, Default, Deserialize)]
struct JetStream {
    #[serde(default)]
    sync_interval: Value,
}

pub(super) async fn check(target: &Target) -> Vec<Check> {
    let Some(plan) = &target.plan else { return Vec::new() };
    let mut checks = vec![greeting(plan.broker).await];
    let config = layout::read_optional(&target.layout.broker_config()).ok().flatten();
    if let Some(config) = config.and_then(|text| serde_json::from_str::<Config>(&text).ok()) {
        checks.push(durability(&config.jetstream));
        if let Some(http) = config.http {
            checks.extend(usage(http).await);
        }
    }
    checks
}

async fn greeting(address: SocketAddr) -> Check {
    let Some(greeting) = broker::greeting(address).await else {
        let what = format!("nothing answers on {address}");
        return Check::new(Level::Error, "broker", what, "Run `murmurctl up`; messages wait on disk until then.");
    };
    let version = &greeting.version;
    if numbers(version) < VERSION_MIN {
        let what = format!("nats-server {version} is older than 2.14.5");
        return Check::new(
            Level::Error,
            "broker",
            what,
            "Install a newer nats-server, then `murmurctl down` and `murmurctl up`.",
        );
    }
    if !greeting.jetstream {
        return Check::new(
            Level::Error,
            "broker",
            "JetStream is off",
            "Run `murmurctl down` and `murmurctl up`: they write its configuration.",
        );
    }
    Check::ok("broker", format!("nats-server {version} with JetStream on {address}"))
}

/// The numbers of a version; what is no number counts as zero.
fn numbers(version: &str) -> [u64; 3] {
    let mut parts = version.split(['.', '-']).map(|part| part.parse().unwrap_or_default());
    std::array::from_fn(|_| parts.next().unwrap_or_default())
}

fn durability(jetstream: &JetStream) -> Check {
    if jetstream.sync_interval == "always" {
        return Check::ok("durability", "the broker syncs every write to disk");
    }
    let interval = jetstream.sync_interval.as_str().unwrap_or("2m");
    Check::new(
        Level::Info,
        "durability",
        format!("the broker syncs to disk every {interval}; a power failure can take what is younger"),
        "Nothing is lost for good: senders keep a message until its recipient has signed for it, and publish it again.",
    )
}

/// How full the store is, from `/jsz`.
async fn usage(http: SocketAddr) -> Option<Check> {
    let answer = tokio::time::timeout(ANSWER_WITHIN, get(http, "/jsz")).await.ok()??;
    let used = answer.get("storage")?.as_u64()?;
    let limit = answer.get("config")?.get("max_storage")?.as_u64().filter(|limit| *limit > 0)?;
    let percent = used.saturating_mul(100) / limit;
    let what = format!("the broker's store is {percent} % full ({} of {} MiB)", used >> 20, limit >> 20);
    Some(if percent < FULL_PERCENT {
        Check::ok("broker store", what)
    } else {
        Check::new(
            Level::Warning,
            "broker store",
            what,
            "Find out which node is away: its mail waits there for up to 8 days.",
        )
    })
}

/// The least of HTTP that a monitoring page on loopback needs.
async fn get(address: SocketAddr, path: &str) -> Option<Value> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer).await.ok()?;
    serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        assert!(numbers("2.9.10") < VERSION_MIN);
        assert!(numbers("2.14.5") >= VERSION_MIN);
        assert!(numbers("2.15.1-rc.1") >= VERSION_MIN);
    }
}
