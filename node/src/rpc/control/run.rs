//! Keeps the node's session with the control plane for as long as the process lives.

use std::{sync::Arc, time::Duration};

use murmur_core::{id::Incarnation, reason::Reason, retry::Backoff};
use nkeys::KeyPair;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Control, ControlError, broker};
use crate::{agents::Agents, bus::Bus, clock::Clock, delay::Delay, directory::Directory, identity::IdentityDir};

/// Between tries to open a session. A node that was killed is expected back at once, so it begins short.
const BACKOFF: Backoff = Backoff { base_ms: 200, cap_ms: 15_000 };

/// How long the control plane may take before the node manages without it.
const ANSWER_WAIT: Duration = Duration::from_secs(2);

/// What the tasks work with.
#[derive(Clone)]
pub struct Parts {
    /// The client.
    pub control: Arc<Control>,
    /// Takes what the watch says.
    pub directory: Arc<Directory>,
    /// Whose keys are published.
    pub agents: Arc<Agents>,
    /// Takes broker credentials.
    pub bus: Arc<Bus>,
    /// Where credentials are kept.
    pub dir: IdentityDir,
    /// The broker key that credentials are for.
    pub broker_key: Arc<KeyPair>,
    /// What time it is.
    pub clock: Clock,
    /// This start of the node.
    pub incarnation: Incarnation,
}

/// The tasks that talk to the control plane.
pub struct ControlTasks {
    pub(super) parts: Parts,
}

/// How a session ended.
pub(super) enum Ended {
    /// The stream broke, or it went silent.
    Lost(ControlError),
    /// The control plane is going down.
    Draining,
    /// Another process has taken over.
    Fenced(String),
}

impl ControlTasks {
    /// Tasks that do nothing until [`ControlTasks::run`].
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self { parts }
    }

    /// Opens the session again and again until the token is cancelled.
    pub async fn run(self, token: CancellationToken) {
        tokio::join!(self.keep_session(token.clone()), async {
            tokio::select! {
                () = token.cancelled() => {}
                () = self.manage_alone() => {}
            }
        });
    }

    /// When the control plane cannot be asked at the start, messages flow with the credentials of an earlier run. A node that
    /// another process runs as, too, must not touch the consumer, which only the control plane can tell.
    async fn manage_alone(&self) {
        let mut state = self.parts.control.state();
        let is_known = |state: &super::ControlState| state.connected || state.trouble.is_some();
        let heard = async { drop(state.wait_for(is_known).await) };
        // Silence is no news either way, and long silence means that nobody answers.
        let _ = tokio::time::timeout(ANSWER_WAIT, heard).await;
        let is_alone = {
            let state = self.parts.control.state.borrow();
            !state.connected && state.fenced.is_none()
        };
        if is_alone {
            broker::use_saved(&self.parts).await;
        }
    }

    async fn keep_session(&self, token: CancellationToken) {
        let mut delay = Delay::new(BACKOFF);
        loop {
            let ended = tokio::select! {
                () = token.cancelled() => return,
                ended = super::session::run(&self.parts, &mut delay) => ended,
            };
            self.parts.directory.set_live(false);
            self.note(ended);
            tokio::select! {
                () = token.cancelled() => return,
                () = delay.wait() => {}
            }
        }
    }

    fn note(&self, ended: Ended) {
        let (trouble, fenced) = match ended {
            Ended::Draining => ("it is going down".to_owned(), None),
            Ended::Fenced(by) => (format!("fenced by {by}"), Some(by)),
            Ended::Lost(error) => {
                let fenced = error.reason() == Some(Reason::NodeFenced);
                (error.to_string(), fenced.then(|| "another process".to_owned()))
            }
        };
        self.parts.control.state.send_if_modified(|state| {
            let is_news = state.connected || state.trouble.as_ref() != Some(&trouble) || state.fenced != fenced;
            if is_news && fenced.is_some() {
                warn!("another process runs as this node: nothing is consumed here until it ends");
            } else if is_news {
                info!("the session with the control plane ended: {trouble}");
            }
            (state.connected, state.trouble, state.fenced) = (false, Some(trouble), fenced);
            is_news
        });
    }
}
