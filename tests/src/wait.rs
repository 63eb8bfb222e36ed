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
pub async fn until<T, F, Fut>(what: &str, probe: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    within(PATIENCE, what, probe).await
}

/// As [`until`], for what takes long by its nature.
///
/// # Panics
/// When the condition, described by `what`, does not come in this time.
pub async fn within<T, F, Fut>(patience: Duration, what: &str, mut probe: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let deadline = Instant::now() + patience;
    loop {
        if let Some(value) = probe().await {
            return value;
        }
        assert!(Instant::now() < deadline, "never happened: {what}");
        sleep(INTERVAL).await;
    }
}

/// As [`until`], for what takes many steps: patience begins anew with each. While it is not over, `probe` answers how far it has come;
/// only what is further than ever counts, so that going back and forth ends, too.
///
/// # Panics
/// When it, described by `what`, comes no further.
pub async fn step_by_step<T, P, F, Fut>(what: &str, mut probe: F) -> T
where
    P: PartialOrd,
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, P>>,
{
    let (mut furthest, mut deadline) = (None, Instant::now() + PATIENCE);
    loop {
        match probe().await {
            Ok(value) => return value,
            Err(come) if furthest.as_ref().is_none_or(|furthest| come > *furthest) => {
                (furthest, deadline) = (Some(come), Instant::now() + PATIENCE);
            }
            Err(_) => {}
        }
        assert!(Instant::now() < deadline, "comes no further: {what}");
        sleep(INTERVAL).await;
    }
}
