//! Signs of life during a long call: clients give up on a silent one.

use std::{convert::Infallible, time::Duration};

use rmcp::model::ProgressNotificationParam;

use super::Call;

/// How often a client is told.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(20);

/// Tells a client that asked for it how long the call has waited, until it is dropped. `what` completes "waiting for …".
pub(super) async fn report(call: &Call, what: &str, timeout: Duration) -> Infallible {
    let Some(token) = call.context.meta.get_progress_token() else {
        return std::future::pending().await;
    };
    let mut elapsed = Duration::ZERO;
    loop {
        tokio::time::sleep(PROGRESS_INTERVAL).await;
        elapsed += PROGRESS_INTERVAL;
        let progress = ProgressNotificationParam::new(token.clone(), elapsed.as_secs_f64())
            .with_total(timeout.as_secs_f64())
            .with_message(format!("waiting for {what}, {} of {} s", elapsed.as_secs(), timeout.as_secs()));
        if call.context.peer.notify_progress(progress).await.is_err() {
            return std::future::pending().await;
        }
    }
}
