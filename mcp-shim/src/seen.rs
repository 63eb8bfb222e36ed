//! Messages and events are marked as read when the answer that shows them is written, and not before: one that is cancelled, or dies with
//! this process, has shown nothing (PROTOCOL §5.6, R6).

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use murmur_proto::node::v1::{AckEventsRequest, MarkReadRequest};
use rmcp::{
    RoleServer,
    model::{JsonRpcMessage, RequestId},
    service::{RxJsonRpcMessage, TxJsonRpcMessage},
    transport::Transport,
};

use crate::{errors::Failure, shared::Shared};

/// Answers that may be on their way. Past that the mark of some other one is forgotten: what it shows is shown again.
const EXPECTED_MAX: usize = 64;
/// What marks may take, of a node that does not answer: what they are for is shown again.
const MARK_MAX: Duration = Duration::from_secs(2);

/// What an answer shows.
pub(crate) struct Shown {
    /// Who is shown it.
    pub(crate) agent: String,
    /// Cursors of messages.
    pub(crate) messages: Vec<u64>,
    /// Cursors of events.
    pub(crate) events: Vec<u64>,
}

/// What answers show that are not written yet.
#[derive(Default)]
pub(crate) struct Seen {
    expected: Mutex<HashMap<RequestId, Shown>>,
    /// Held from before an answer is written until its marks are made.
    marking: Arc<tokio::sync::Mutex<()>>,
}

impl Seen {
    /// Notes what the answer to a call is going to show.
    pub(crate) fn expect(&self, call: RequestId, shown: Shown) {
        let mut expected = self.expected();
        if expected.len() >= EXPECTED_MAX {
            let other = expected.keys().next().cloned();
            other.and_then(|other| expected.remove(&other));
        }
        expected.insert(call, shown);
    }

    /// Waits for the marks of answers that are being written.
    pub(crate) async fn settled(&self) {
        drop(self.marking.lock().await);
    }

    /// A call begins: an earlier one of the same id had no answer.
    pub(crate) fn begin(&self, call: &RequestId) {
        drop(self.take(call));
    }

    fn take(&self, call: &RequestId) -> Option<Shown> {
        self.expected().remove(call)
    }

    fn expected(&self) -> MutexGuard<'_, HashMap<RequestId, Shown>> {
        self.expected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A transport that marks what was written.
pub(crate) struct Marking<T> {
    inner: T,
    shared: Arc<Shared>,
}

impl<T> Marking<T> {
    pub(crate) const fn new(inner: T, shared: Arc<Shared>) -> Self {
        Self { inner, shared }
    }
}

impl<T: Transport<RoleServer, Error = io::Error>> Transport<RoleServer> for Marking<T> {
    type Error = io::Error;

    fn send(&mut self, message: TxJsonRpcMessage<RoleServer>) -> impl Future<Output = io::Result<()>> + Send + 'static {
        let shown = match &message {
            JsonRpcMessage::Response(response) => self.shared.seen.take(&response.id),
            _ => None,
        };
        let (writing, shared) = (self.inner.send(message), Arc::clone(&self.shared));
        async move {
            let Some(shown) = shown else { return writing.await };
            let marking = Arc::clone(&shared.seen.marking).lock_owned().await;
            writing.await?;
            // Not waited for: other answers are to be written.
            tokio::spawn(async move {
                let marked = tokio::time::timeout(MARK_MAX, mark(&shared, shown)).await;
                if !matches!(marked, Ok(Ok(()))) {
                    tracing::warn!("what was shown could not be marked as read, and is shown again");
                }
                drop(marking);
            });
            Ok(())
        }
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleServer>> {
        self.inner.receive().await
    }

    async fn close(&mut self) -> io::Result<()> {
        self.inner.close().await
    }
}

async fn mark(shared: &Shared, shown: Shown) -> Result<(), Failure> {
    let Shown { agent, messages, events } = shown;
    let mut node = shared.node.client()?;
    if !messages.is_empty() {
        let request = MarkReadRequest { agent: agent.clone(), cursors: messages };
        shared.node.answer(node.messages.mark_read(request)).await?;
    }
    if !events.is_empty() {
        let request = AckEventsRequest { agent, read: events, ..Default::default() };
        shared.node.answer(node.events.ack_events(request)).await?;
    }
    Ok(())
}
