//! Tells the control plane what happened, in the order in which it happened, until it has heard.

use std::sync::Arc;

use murmur_core::{id::MessageId, retry::Backoff};
use murmur_proto::v1;
use prost::Message as _;
use tracing::{info, warn};

use super::Runtime;
use crate::{
    delay::Delay,
    rpc::control::ControlError,
    store::{StoreError, runtime as table},
};

/// Reports of one call.
const REPORTS_MAX: u32 = 32;
/// Between two tries while the session is there.
const BACKOFF: Backoff = Backoff { base_ms: 100, cap_ms: 5_000 };

/// What became of the oldest reports.
enum Told {
    /// They are heard.
    Heard,
    /// There are none.
    Nothing,
    /// So many of them, in one call, are refused for good.
    Refused { count: usize },
}

/// Reports could not be told.
#[derive(Debug, thiserror::Error)]
pub(super) enum TellError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Control(#[from] ControlError),
}

impl Runtime {
    /// Tells reports as they come, until the node goes down.
    pub(super) async fn tell_reports(self: &Arc<Self>) {
        let mut delay = Delay::new(BACKOFF);
        let mut state = self.shop.control.state();
        let told = async {
            loop {
                if state.wait_for(|state| state.connected).await.is_err() {
                    return;
                }
                match self.tell_next().await {
                    Ok(Told::Heard | Told::Refused { .. }) => delay.reset(),
                    Ok(Told::Nothing) => self.shop.reports.notified().await,
                    Err(error) => {
                        info!(%error, "reports on agents wait");
                        delay.wait().await;
                    }
                }
            }
        };
        tokio::select! { () = told => {} () = self.shop.stop.cancelled() => {} }
    }

    /// Tells all that has happened so far, and nothing after it while the guard is there.
    pub(super) async fn tell_all(self: &Arc<Self>) -> Result<tokio::sync::MutexGuard<'_, ()>, TellError> {
        let telling = self.telling.lock().await;
        while let Told::Heard = self.tell_one().await? {}
        Ok(telling)
    }

    async fn tell_next(self: &Arc<Self>) -> Result<Told, TellError> {
        let _one_at_a_time = self.telling.lock().await;
        self.tell_one().await
    }

    /// The oldest reports. When a call is refused for good, one of them may have spoilt it for the others: each is told for itself.
    async fn tell_one(self: &Arc<Self>) -> Result<Told, TellError> {
        let mut told = self.tell(REPORTS_MAX).await?;
        if let Told::Refused { count } = told {
            for _ in 0..count {
                told = self.tell(1).await?;
            }
        }
        Ok(told)
    }

    /// One call of `count_max` reports at most, or as many as were in it when it was tried before.
    async fn tell(self: &Arc<Self>, count_max: u32) -> Result<Told, TellError> {
        let new_id = new_id(self.shop.clock.now_ms());
        let batch = self.shop.store.write(move |tx| table::next_reports(tx, &new_id, count_max)).await?;
        let Some(table::ReportBatch { report_id, reports }) = batch else { return Ok(Told::Nothing) };
        let count = reports.len();
        // What cannot be read was written by no version of this program.
        let reports: Vec<_> =
            reports.iter().filter_map(|bytes| v1::AgentReport::decode(bytes.as_slice()).ok()).collect();
        match self.shop.control.report_agents(report_id.clone(), reports.clone()).await {
            Ok(results) => self.heard(&reports, &results),
            Err(ControlError::Refused(refusal)) if !refusal.is_passing() => {
                if count > 1 {
                    self.shop.store.write(move |tx| table::take_apart(tx, &report_id)).await?;
                    return Ok(Told::Refused { count });
                }
                // Told again it is refused again, and hides all that comes after it.
                let whose = reports.first().map_or("", |report| &report.agent_id);
                warn!(agent.id = %whose, "a report is refused: {refusal}");
            }
            Err(error) => return Err(error.into()),
        }
        self.shop.store.write(move |tx| table::reported(tx, &report_id)).await?;
        Ok(Told::Heard)
    }

    fn heard(self: &Arc<Self>, reports: &[v1::AgentReport], results: &[v1::AgentReportResult]) {
        for (report, result) in reports.iter().zip(results) {
            if !result.refused.is_empty() {
                warn!(agent.id = %report.agent_id, "a report is refused: {}", result.refused);
            }
            if result.stale {
                info!(agent.id = %report.agent_id, "incarnation {} is over for the control plane", report.incarnation);
                self.end_stale(&report.agent_id, report.incarnation);
            }
        }
    }

    /// Ends what is not to run.
    pub(super) fn end_stale(self: &Arc<Self>, agent_id: &str, incarnation: u32) {
        let is_running = |agent: &v1::RunningAgent| agent.agent_id == agent_id && agent.incarnation == incarnation;
        if !self.running().iter().any(is_running) {
            return;
        }
        let stop = v1::StopAgent {
            end: v1::Phase::Canceled.into(),
            reason: "the control plane has ended it".to_owned(),
            grace: None,
        };
        self.dispatch(v1::Order {
            agent_id: agent_id.to_owned(),
            incarnation,
            item: Some(v1::order::Item::Stop(stop)),
            ..v1::Order::default()
        });
    }
}

/// A UUID for a call.
fn new_id(now_ms: u64) -> String {
    let mut random = [0; 10];
    // Without randomness the time alone must tell two calls apart.
    let _ = getrandom::fill(&mut random);
    MessageId::new_v7(now_ms, random).to_string()
}
