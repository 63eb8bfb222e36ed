//! Waiting until a part is ready: a condition that is asked again soon, a bound, and an early end when its process dies.

use std::{
    future::Future,
    path::Path,
    time::{Duration, Instant},
};

use murmur_proto::client::{connect_server, connect_socket};
use tonic::transport::Channel;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use super::{
    layout::Layout,
    process::{Process, log_hint},
};
use crate::{exit::Exit, failure::Failure};

/// Asked soon at first, and less often when it takes longer.
const ASK_EVERY_MIN: Duration = Duration::from_millis(10);
const ASK_EVERY_MAX: Duration = Duration::from_millis(100);
/// A part that answers so late counts as not answering.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// What is waited for, and whose process it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wait<'a> {
    pub(crate) layout: &'a Layout,
    /// The part, which names the log.
    pub(crate) part: &'a str,
    pub(crate) process: &'a Process,
    /// Completes "waiting until …".
    pub(crate) until: &'a str,
    pub(crate) bound: Duration,
}

impl Wait<'_> {
    /// Asks until there is an answer.
    pub(crate) async fn ask<T, F: Future<Output = Option<T>>>(
        self,
        mut condition: impl FnMut() -> F,
    ) -> Result<T, Failure> {
        let Self { layout, part, process, until, bound } = self;
        let deadline = Instant::now() + bound;
        let mut pause = ASK_EVERY_MIN;
        loop {
            // Asked first, so that a process that answers and then dies is told by the next call, not twice.
            if let Some(answer) = condition().await {
                return Ok(answer);
            }
            if !process.is_alive() {
                return Err(Failure::failed(format!("{part} ended before {until}")).remedy(log_hint(layout, part)));
            }
            if Instant::now() >= deadline {
                let what = format!("{part}: waited {} s in vain until {until}", bound.as_secs());
                return Err(Failure::new(Exit::Timeout, what).remedy(log_hint(layout, part)));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(ASK_EVERY_MAX);
        }
    }
}

/// Whether the health service behind a node's socket says SERVING.
pub(crate) async fn socket_serves(path: &Path) -> bool {
    bounded(async { serves(connect_socket(path).await.ok()?).await }).await
}

/// Whether the health service of a control plane says SERVING.
pub(crate) async fn server_serves(url: &str) -> bool {
    bounded(async { serves(connect_server(url, None).await.ok()?).await }).await
}

async fn bounded(answer: impl Future<Output = Option<()>>) -> bool {
    matches!(tokio::time::timeout(ANSWER_WITHIN, answer).await, Ok(Some(())))
}

async fn serves(channel: Channel) -> Option<()> {
    let request = HealthCheckRequest { service: String::new() };
    let answer = HealthClient::new(channel).check(request).await.ok()?.into_inner();
    (answer.status() == ServingStatus::Serving).then_some(())
}
