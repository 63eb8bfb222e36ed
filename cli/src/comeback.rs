//! Coming back to what is watched: a node and a control plane restart under those who follow something, and are there again soon.

use std::time::Duration;

use crate::{exit::Exit, failure::Failure, text::clean_line};

const RETRY_MIN: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// How a command follows a stream over the restarts of whoever sends it.
pub(crate) struct Comeback {
    delay: Duration,
    is_told: bool,
    is_silent: bool,
}

impl Comeback {
    pub(crate) const fn new() -> Self {
        Self { delay: RETRY_MIN, is_told: false, is_silent: false }
    }

    /// For what is followed beside something else, which says that it is away.
    pub(crate) const fn silent() -> Self {
        Self { is_silent: true, ..Self::new() }
    }

    /// Something came: it is there again.
    pub(crate) const fn arrived(&mut self) {
        *self = Self { is_silent: self.is_silent, ..Self::new() };
    }

    /// What `open` makes, tried until it can be made: at once for a person who reads on, ever rarer for what stays away.
    ///
    /// # Errors
    /// The first refusal: what is away comes back, and a refusal stays one.
    pub(crate) async fn reopen<S>(
        &mut self,
        mut failure: Failure,
        open: impl AsyncFn() -> Result<S, Failure>,
    ) -> Result<S, Failure> {
        loop {
            self.wait(failure).await?;
            match open().await {
                Ok(stream) => return Ok(stream),
                Err(again) => failure = again,
            }
        }
    }

    /// Waits before the next try, and tells a person once why.
    ///
    /// # Errors
    /// The failure, when it is a refusal.
    pub(crate) async fn wait(&mut self, failure: Failure) -> Result<(), Failure> {
        if !is_away(&failure) {
            return Err(failure);
        }
        if !self.is_told && !self.is_silent {
            note(&format!("{}; coming back by itself", failure.what));
            self.is_told = true;
        }
        tokio::time::sleep(self.delay).await;
        self.delay = (self.delay * 2).min(RETRY_MAX);
        Ok(())
    }
}

/// Whether something was away, and comes back: every refusal of ours has a reason, and what dies under a call has none.
pub(crate) fn is_away(failure: &Failure) -> bool {
    failure.exit == Exit::Unavailable || (failure.exit == Exit::Failed && failure.reason.is_none())
}

/// Beside what is shown: standard output is for what was asked.
pub(crate) fn note(text: &str) {
    eprintln!("-- {}", clean_line(text));
}

#[cfg(test)]
mod tests {
    use murmur_core::reason::Reason;

    use super::*;

    #[test]
    fn what_dies_under_a_call_comes_back_and_a_refusal_does_not() {
        let broke = tonic::Status::internal("h2 protocol error: error reading a body from connection");
        assert!(is_away(&broke.into()) && is_away(&tonic::Status::unavailable("gone").into()));
        for reason in [Reason::AgentNotFound, Reason::ScopeMissing, Reason::Internal] {
            assert!(!is_away(&murmur_proto::status::status(reason, "no").into()), "{reason}");
        }
    }
}
