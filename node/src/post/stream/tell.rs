//! What one end of a stream says to the other: credits and ends, signed, in acknowledgement frames of their own.
//!
//! For each stream only the newest word counts, so what comes while a frame is under way is merged into the next one.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use murmur_core::{
    code::Code,
    id::{AgentId, MessageId, StreamId},
    limits::ACK_CREDITS_MAX,
    outbox::PublishAnswer,
    subject::{Destination, Route},
};
use murmur_crypto::{
    ack::{AckBody, AckItem, AckStatus, Credit, CreditState},
    hash::EnvDigest,
};
use tokio::sync::mpsc;

use crate::{
    bus::Outgoing as Publish,
    post::{Post, random},
    store::{
        StoreError,
        stream::{self, End, OutRow},
        transfer::TransferState,
    },
};

/// From one agent to another.
type Pair = (AgentId, AgentId);

/// Something to say about a stream.
#[derive(Debug, Clone)]
pub(super) struct Word {
    /// The local agent that says it.
    pub(super) speaker: AgentId,
    /// Whom it is for.
    pub(super) to: AgentId,
    /// Where to; `None`: where the directory says that it is.
    pub(super) route: Option<Route>,
    /// The credit.
    pub(super) credit: Credit,
    /// What is wrong, about which copy of the message.
    pub(super) trouble: Option<(MessageId, [u8; 32], Code)>,
    /// Which end has ended, when this says so: it is noted as told.
    pub(super) ends: Option<End>,
}

/// That a stream which is sent from here has ended.
pub(super) fn end_of_out(row: &OutRow) -> Word {
    let credit = Credit { stream_id: *row.stream_id.as_bytes(), next_index: 0, window: 0, state: CreditState::Cancel };
    Word { speaker: row.sender, to: row.recipient, route: None, credit, trouble: None, ends: Some(End::Out) }
}

#[derive(Default)]
struct Queue {
    words: HashMap<[u8; 16], Word>,
    busy: bool,
    backoff_ms: u64,
}

impl Queue {
    /// The newer word counts; that chunks are missing stays said until it was.
    fn add(&mut self, mut word: Word) {
        if let Some(before) = self.words.remove(&word.credit.stream_id) {
            if before.credit.state != CreditState::Open {
                word = before;
            } else if word.credit.state == CreditState::Open {
                // That there was no room is old news with the next word.
                let stays = before.trouble.filter(|(_, _, code)| *code != Code::StorageFull);
                word.trouble = word.trouble.or(stays);
            }
        }
        self.words.insert(word.credit.stream_id, word);
    }
}

/// Says everything until it is dropped.
pub(super) async fn run(post: &Arc<Post>, mut words: mpsc::UnboundedReceiver<Word>) {
    let (done, mut results) = mpsc::unbounded_channel();
    let mut connected = post.bus.connected();
    let mut directory = post.directory.changed();
    let mut queues: HashMap<Pair, Queue> = HashMap::new();
    loop {
        tokio::select! {
            Some(word) = words.recv() => {
                let pair = (word.speaker, word.to);
                queues.entry(pair).or_default().add(word);
                start(post, pair, &mut queues, &done);
            }
            Some((pair, said)) = results.recv() => said_or_waited(post, pair, said, &mut queues, &done),
            Ok(()) = connected.changed() => start_all(post, &mut queues, &done),
            Ok(()) = directory.changed() => start_all(post, &mut queues, &done),
        }
    }
}

/// What has to be said again, or that the wait is over.
type Done = mpsc::UnboundedSender<(Pair, Option<Vec<Word>>)>;

fn said_or_waited(
    post: &Arc<Post>,
    pair: Pair,
    said: Option<Vec<Word>>,
    queues: &mut HashMap<Pair, Queue>,
    done: &Done,
) {
    let Some(queue) = queues.get_mut(&pair) else { return };
    match said {
        Some(failed) if !failed.is_empty() => {
            for word in failed {
                // A newer word stands for it.
                if !queue.words.contains_key(&word.credit.stream_id) {
                    queue.add(word);
                }
            }
            return start_later(post, pair, queue, done);
        }
        Some(_) => queue.backoff_ms = 0,
        None => {}
    }
    queue.busy = false;
    start(post, pair, queues, done);
}

fn start_all(post: &Arc<Post>, queues: &mut HashMap<Pair, Queue>, done: &Done) {
    let pairs: Vec<Pair> = queues.keys().copied().collect();
    pairs.into_iter().for_each(|pair| start(post, pair, queues, done));
}

fn start(post: &Arc<Post>, pair: Pair, queues: &mut HashMap<Pair, Queue>, done: &Done) {
    let Some(queue) = queues.get_mut(&pair).filter(|queue| !queue.busy) else { return };
    if queue.words.is_empty() {
        queues.remove(&pair);
        return;
    }
    if !*post.bus.connected().borrow() {
        return;
    }
    queue.busy = true;
    let streams: Vec<_> = queue.words.keys().copied().take(ACK_CREDITS_MAX).collect();
    let words: Vec<Word> = streams.iter().filter_map(|stream| queue.words.remove(stream)).collect();
    let (speaker, done) = (Arc::clone(post), done.clone());
    post.tasks.spawn(async move {
        let failed = speaker.speak(pair, words).await;
        let _ = done.send((pair, Some(failed)));
    });
}

/// Keeps the queue busy until its time has come.
fn start_later(post: &Arc<Post>, pair: Pair, queue: &mut Queue, done: &Done) {
    queue.backoff_ms = post.config.outbox.transport.next(queue.backoff_ms, random::number());
    let (wait, done) = (Duration::from_millis(queue.backoff_ms), done.clone());
    // Nothing is written here, so nobody need wait for it at the end.
    tokio::spawn(async move {
        tokio::time::sleep(wait).await;
        let _ = done.send((pair, None));
    });
}

impl Post {
    /// Signs and publishes one frame; gives back what has to be said again.
    async fn speak(&self, (speaker, to): Pair, words: Vec<Word>) -> Vec<Word> {
        let named = words.iter().find_map(|word| word.route.clone());
        let route = named.or_else(|| self.directory.snapshot().peer(to).and_then(|peer| peer.route.clone()));
        let Some(route) = route else { return words };
        // A forgotten agent has no key to sign with.
        let Some(bytes) = self.sign_words(speaker, to, &words) else { return Vec::new() };
        let publish = Publish {
            subject: route.subject(Destination::Ack, self.identity.node_id),
            nats_msg_id: random::nats_msg_id(),
            traceparent: None,
            bytes,
        };
        match self.bus.publish(publish).await {
            PublishAnswer::Failed | PublishAnswer::LaneFull => return words,
            PublishAnswer::Stored { .. } => {}
            PublishAnswer::Denied | PublishAnswer::TooLarge => {
                tracing::warn!(%route, agent.id = %speaker, %to, "the broker refuses credits for good");
            }
        }
        for word in words {
            if let Some(end) = word.ends {
                let stream_id = StreamId::from_bytes(word.credit.stream_id);
                // Should this be lost, it is told twice, which does no harm.
                drop(self.store.queue_lazily::<_, StoreError, _>(move |tx| stream::note_told(tx, end, stream_id)));
            }
        }
        Vec::new()
    }

    fn sign_words(&self, speaker: AgentId, to: AgentId, words: &[Word]) -> Option<Bytes> {
        let keyring = self.keys.keyring(speaker)?;
        let signer = keyring.signer();
        let item = |(msg_id, env_digest, code): (MessageId, [u8; 32], Code)| AckItem {
            msg_id,
            env_digest: EnvDigest::from_bytes(env_digest),
            status: AckStatus::Failed { code, retry_after_s: None, fresh_prekey: None },
        };
        let body = AckBody {
            acker_agent_id: signer.agent_id,
            acker_cert_fp: signer.cert_fp,
            sender_agent_id: to,
            at_ms: self.clock.now_ms(),
            items: words.iter().filter_map(|word| word.trouble.map(item)).collect(),
            credits: words.iter().map(|word| word.credit).collect(),
        };
        let signed = body.sign(&signer.key, Some(&signer.chain));
        signed.map_err(|error| tracing::error!(%error, agent.id = %speaker, %to, "credits could not be signed")).ok()
    }
}

/// The state of a credit that says how a stream ended.
pub(super) const fn credit_state(state: TransferState) -> CreditState {
    match state {
        TransferState::Waiting | TransferState::Active | TransferState::Stalled => CreditState::Open,
        TransferState::Done => CreditState::Done,
        TransferState::Cancelled | TransferState::Failed => CreditState::Cancel,
    }
}
