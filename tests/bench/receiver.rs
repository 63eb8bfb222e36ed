//! The receiving end, as an agent's program is one: attached, so that messages are pushed to it, and reading its inbox in pages
//! as they come, so that they are marked as read and the inbox has room for more.

use std::time::Instant;

use murmur_proto::{
    client::NodeClient,
    node::v1::{AttachRequest, ListInboxRequest, Message, attach_response},
};
use murmur_tests::network::Node;
use tokio::{sync::mpsc, task::JoinHandle};

use crate::{number_in, stage::Ends};

/// Pushes between two looks into the inbox.
const READ_EVERY: usize = 100;
const PAGE: u32 = 1_000;
const SHARE_CONNECTION: usize = 100;
/// A page must fit into one RPC message of 4 MiB.
const PAGE_BYTES: usize = 3 * 1024 * 1024;

/// A message that was seen, by push or by reading. The same number may come by both ways.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival {
    /// From its body.
    pub(crate) number: u64,
    /// When the program had it.
    pub(crate) at: Instant,
    /// It came in a page of the inbox, and is read.
    pub(crate) is_read: bool,
}

/// An attached program. Ends when it is dropped.
pub(crate) struct Receiver {
    tasks: Vec<JoinHandle<()>>,
}

impl Receiver {
    /// Empties the inbox, then attaches and reads on. `bytes` is the size of a message's body.
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
        let (pushed, pushes) = mpsc::channel(1);
        let every = READ_EVERY.min(page_limit(bytes) as usize);
        let reading = tokio::spawn(reader.read_on(pushes, arrivals.clone()));
        let pushing = tokio::spawn(async move {
            let mut unread = 0;
            while let Ok(Some(answer)) = stream.message().await {
                let at = Instant::now();
                let Some(attach_response::Item::Message(message)) = answer.item else { continue };
                let _ = arrivals.send(Arrival { number: number_in(&message.body), at, is_read: false });
                unread += 1;
                // When it is still busy reading, it comes to these as well.
                if unread >= every && pushed.try_send(()).is_ok() {
                    unread = 0;
                }
            }
        });
        Self { tasks: vec![reading, pushing] }
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
    async fn read_on(self, mut pushes: mpsc::Receiver<()>, arrivals: mpsc::UnboundedSender<Arrival>) {
        while pushes.recv().await.is_some() {
            let arrived = |message: Message| {
                let _ = arrivals.send(Arrival { number: number_in(&message.body), at: Instant::now(), is_read: true });
            };
            self.clone().read_all(arrived).await;
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
