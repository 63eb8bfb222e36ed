//! Keeps the node's session with the control plane for as long as the process lives.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use murmur_core::{id::Incarnation, reason::Reason, retry::Backoff};
use nkeys::KeyPair;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Control, ControlError, ControlState, broker, session::Before};
use crate::{
    agents::Agents,
    bus::Bus,
    clock::Clock,
    delay::Delay,
    directory::Directory,
    identity::{IdentityDir, NodeIdentity},
    rpc::forward::Forward,
};

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
    /// Speaks for others with the node's token.
    pub forward: Arc<Forward>,
    /// Who it is.
    pub identity: Arc<NodeIdentity>,
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
    /// It is to be opened anew, and stands until then.
    Again(Box<Before>),
    /// This process ends.
    Left,
}

impl ControlTasks {
    /// Tasks that do nothing until [`ControlTasks::run`].
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self { parts }
    }

    /// Opens the session again and again until the token is cancelled.
    pub async fn run(self, token: CancellationToken) {
        self.parts.control.starting.store(true, Ordering::SeqCst);
        tokio::join!(self.keep_session(token.clone()), async {
            tokio::select! {
                () = token.cancelled() => {}
                ((), (), ()) = async { tokio::join!(self.manage_alone(), self.mind_stops(), self.parts.bus.wake().run()) } => {}
            }
        });
    }

    /// After a stop of this process the broker is left until the control plane has said that its place is not taken. When that cannot be
    /// asked, messages must flow: whoever had the place meanwhile has voided what this process would sign in with.
    async fn mind_stops(&self) {
        let Parts { bus, control, .. } = &self.parts;
        loop {
            bus.wake().stopped().await;
            bus.suspend();
            let mut state = control.state();
            let ControlState { opened, failed, .. } = state.borrow_and_update().clone();
            control.again.notify_one();
            let asked = state.wait_for(|state| state.opened > opened || state.failed > failed).await;
            let Ok(is_away) = asked.map(|state| !state.connected && state.fenced.is_none()) else { return };
            if is_away {
                broker::use_saved(&self.parts).await;
            }
            // With a session, or fenced, the credentials come from there.
            bus.wake().clear();
        }
    }

    /// When the control plane cannot be asked at the start, messages flow with the credentials of an earlier run. A node that
    /// another process runs as, too, must not touch the consumer, which only the control plane can tell.
    async fn manage_alone(&self) {
        let mut state = self.parts.control.state();
        let is_known = |state: &ControlState| state.connected || state.trouble.is_some();
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
        let (mut delay, mut before) = (Delay::new(BACKOFF), None);
        loop {
            let ended = super::session::run(&self.parts, before.take(), &mut delay, &token).await;
            self.parts.directory.set_live(false);
            self.note(&ended);
            if let Ended::Again(session) = ended {
                before = Some(*session);
                continue;
            }
            tokio::select! {
                () = token.cancelled() => return,
                () = self.parts.control.again.notified() => {}
                () = delay.wait() => {}
            }
        }
    }

    fn note(&self, ended: &Ended) {
        let is_of_token = |reason| matches!(reason, Reason::TokenRevoked | Reason::TokenExpired | Reason::TokenInvalid);
        let refused = matches!(ended, Ended::Lost(error) if error.reason().is_some_and(is_of_token));
        let has_failed = !matches!(ended, Ended::Again(_) | Ended::Left);
        let (trouble, fenced) = match ended {
            Ended::Again(_) => ("it is asked again".to_owned(), None),
            Ended::Left => ("this node ends".to_owned(), None),
            Ended::Draining => ("it is going down".to_owned(), None),
            Ended::Fenced(by) => (format!("fenced by {by}"), Some(by.clone())),
            Ended::Lost(error) => {
                let fenced = error.reason() == Some(Reason::NodeFenced);
                (error.to_string(), fenced.then(String::new))
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
            state.refused = refused;
            state.failed += u64::from(has_failed);
            is_news || has_failed
        });
    }
}
