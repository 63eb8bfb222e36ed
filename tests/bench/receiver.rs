//! The receiving end, as an agent's program is one: attached, so that messages are pushed to it, and marking what it was shown as read.

use std::time::Instant;

use murmur_proto::{
    client::NodeClient,
    node::v1::{AttachRequest, ListInboxRequest, MarkReadRequest, Message, attach_response},
};
use murmur_tests::network::Node;
use tokio::{sync::mpsc, task::JoinHandle};

use crate::{number_in, stage::Ends};

/// Messages that are marked as read by one call.
const MARK_EVERY: usize = 100;
/// Messages that may wait to be marked before no more are taken: what marking costs is part of what is measured.
const UNMARKED_MAX: usize = 1_000;
const PAGE: u32 = 1_000;
const SHARE_CONNECTION: usize = 100;
/// A page must fit into one RPC message of 4 MiB.
const PAGE_BYTES: usize = 3 * 1024 * 1024;

/// A message that was pushed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival {
    /// From its body.
    pub(crate) number: u64,
    /// When the program had it.
    pub(crate) at: Instant,
}

/// An attached program. Ends when it is dropped.
pub(crate) struct Receiver {
    tasks: Vec<JoinHandle<()>>,
}

impl Receiver {
    /// Empties the inbox, then attaches. `bytes` is the size of a message's body.
    async fn attach(
        mut client: NodeClient,
        agent: &str,
        bytes: usize,
        arrivals: mpsc::UnboundedSender<Arrival>,
    ) -> Self {
        let reader = Reader { agent: agent.to_owned(), limit: page_limit(bytes), client: client.clone() };
        reader.clone().read_all(|_| {}).await;
        let request = AttachRequest { agent: agent.to_owned(), takeover: true, ..Default::default() };
        let mut stream = client.sessions.attach(request).await.unwrap().into_inner();
        stream.message().await.unwrap().expect("attached");
        let (shown, to_mark) = mpsc::channel(UNMARKED_MAX);
        let marking = tokio::spawn(reader.mark_on(to_mark));
        let pushing = tokio::spawn(async move {
            while let Ok(Some(answer)) = stream.message().await {
                let at = Instant::now();
                let Some(attach_response::Item::Message(message)) = answer.item else { continue };
                let _ = arrivals.send(Arrival { number: number_in(&message.body), at });
                let _ = shown.send(message.cursor).await;
            }
        });
        Self { tasks: vec![marking, pushing] }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Attaches every receiver; each hundred share a connection.
pub(crate) async fn attach_all(
    ends: &Ends<'_>,
    bytes: usize,
    arrivals: &mpsc::UnboundedSender<Arrival>,
) -> Vec<Receiver> {
    let mut receivers = Vec::with_capacity(ends.pairs.len());
    for some in ends.pairs.chunks(SHARE_CONNECTION) {
        let client = ends.to.client().await;
        for (_, agent) in some {
            receivers.push(Box::pin(Receiver::attach(client.clone(), agent, bytes, arrivals.clone())).await);
        }
    }
    receivers
}

/// Reads everything that is unread, and says how many messages that were.
pub(crate) async fn read_all(node: &Node, agent: &str, bytes: usize, mut seen: impl FnMut(u64)) {
    let reader = Reader { agent: agent.to_owned(), limit: page_limit(bytes), client: node.client().await };
    reader.read_all(|message| seen(number_in(&message.body))).await;
}

#[derive(Clone)]
struct Reader {
    agent: String,
    limit: u32,
    client: NodeClient,
}

impl Reader {
    /// Marks what was pushed as read.
    async fn mark_on(mut self, mut shown: mpsc::Receiver<u64>) {
        let mut cursors = Vec::with_capacity(MARK_EVERY);
        while let Some(cursor) = shown.recv().await {
            cursors.push(cursor);
            if cursors.len() >= MARK_EVERY {
                let request = MarkReadRequest { agent: self.agent.clone(), cursors: std::mem::take(&mut cursors) };
                self.client.messages.mark_read(request).await.unwrap();
            }
        }
    }

    /// Page by page until one is not full.
    async fn read_all(mut self, mut seen: impl FnMut(Message)) {
        loop {
            let request = ListInboxRequest { agent: self.agent.clone(), limit: self.limit, ..Default::default() };
            let page = self.client.messages.list_inbox(request).await.unwrap().into_inner().messages;
            let is_last = page.len() < self.limit as usize;
            page.into_iter().for_each(&mut seen);
            if is_last {
                return;
            }
        }
    }
}

fn page_limit(bytes: usize) -> u32 {
    u32::try_from(PAGE_BYTES / (bytes + 512)).unwrap_or(PAGE).clamp(1, PAGE)
}
