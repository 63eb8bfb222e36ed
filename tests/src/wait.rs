//! Waiting for conditions.

use std::{future::Future, time::Duration};

use tokio::time::{Instant, sleep};

/// Far beyond what any condition takes on a slow machine: reaching it means that the condition never comes.
pub const PATIENCE: Duration = Duration::from_secs(60);
const INTERVAL: Duration = Duration::from_millis(10);

/// Waits until `probe` answers `Some`, and returns that.
///
/// # Panics
/// When the condition, described by `what`, never comes.
pub async fn until<T, F, Fut>(what: &str, mut probe: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = probe().await {
            return value;
        }
        assert!(Instant::now() < deadline, "never happened: {what}");
        sleep(INTERVAL).await;
    }
}
