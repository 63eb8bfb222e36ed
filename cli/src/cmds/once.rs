//! Handing something to the node once, whatever becomes of the node meanwhile: under a key, so that a call whose answer got lost can be
//! repeated.

use std::time::{Duration, Instant};

use data_encoding::BASE32_NOPAD;
use murmur_core::reason::Reason;
use murmur_proto::client::NodeClient;
use tonic::{Code, Status};

use crate::{
    args::Speaker,
    comeback::{Comeback, is_away},
    connect::Target,
    exit::Exit,
    failure::Failure,
};

/// A node that is started again is back within this time, also after some crashes.
pub(super) const BACK_WITHIN: Duration = Duration::from_secs(30);

/// The caller's key, or one of ours.
pub(super) fn key(given: Option<String>) -> Result<String, Failure> {
    let made = || {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(|error| Failure::failed(format!("no randomness: {error}")))?;
        Ok(BASE32_NOPAD.encode(&bytes))
    };
    given.map_or_else(made, Ok)
}

/// What is handed over.
pub(super) struct Once<'a> {
    pub(super) target: &'a Target,
    pub(super) speaker: &'a Speaker,
    /// The key that every try carries.
    pub(super) key: &'a str,
    /// How long a node that went away is waited for.
    pub(super) until: Instant,
}

impl Once<'_> {
    /// Calls, and calls again when the node is back after it went away under the call.
    ///
    /// # Errors
    /// A refusal as it came; when the node does not come back, that nobody knows whether the call was taken.
    pub(super) async fn call<T>(
        &self,
        node: &mut NodeClient,
        call: impl AsyncFn(&mut NodeClient) -> Result<T, Status>,
    ) -> Result<T, Failure> {
        let mut comeback = Comeback::new();
        loop {
            let failure = match call(node).await {
                Ok(answer) => return Ok(answer),
                // An older node.
                Err(status) if status.code() == Code::Unimplemented => return Err(status.into()),
                Err(status) => Failure::from(status),
            };
            if !went_away(&failure) {
                return Err(failure);
            }
            let reopened = comeback.reopen(failure, async || self.target.node_as(self.speaker).await);
            match tokio::time::timeout_at(self.until.into(), reopened).await {
                Ok(Ok(again)) => *node = again,
                Ok(Err(_)) | Err(_) => return Err(self.unknown()),
            }
        }
    }

    fn unknown(&self) -> Failure {
        Failure::new(Exit::Unavailable, "the node went away before it answered whether it took the message")
            .reason(Reason::NodeDown)
            .remedy(format!("Repeat it with --idempotency-key {}: then it is sent once.", self.key))
    }
}

/// Whether the node died under a call or is about to end. Whatever else is away, the node said that it did not take the call.
fn went_away(failure: &Failure) -> bool {
    is_away(failure) && matches!(failure.reason, None | Some(Reason::NodeDown | Reason::Draining))
}

#[cfg(test)]
mod tests {
    use murmur_proto::status::status;

    use super::*;

    #[test]
    fn what_was_refused_is_not_tried_again() {
        assert!(went_away(&Status::unavailable("gone").into()) && went_away(&status(Reason::Draining, "no").into()));
        for reason in [Reason::ControlPlaneDown, Reason::AgentNotFound, Reason::RateLimited] {
            assert!(!went_away(&status(reason, "no").into()), "{reason}");
        }
    }

    #[test]
    fn a_key_of_ours_is_another_each_time() {
        assert_eq!(key(Some("k".into())).unwrap(), "k");
        assert_ne!(key(None).unwrap(), key(None).unwrap());
    }
}
