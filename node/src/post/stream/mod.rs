//! Chunk streams: files of any size from agent to agent (PROTOCOL §4.6).
//!
//! **Sending.** [`offer`] opens the file, copies it into the node's spool and commits the message that announces it, together with
//! the stream's row, as one ordinary outbox message with all its guarantees. From then on the original does not matter: chunk `n`
//! has the same bytes however often it is sent, so that no nonce is ever used for two contents. Every sealed copy of the message
//! gives the stream another key; each is kept beside the row. As soon as the broker has a copy, [`pump`] reads, encrypts and
//! publishes chunks under that copy's key, as many as the recipient allows: four without asking, later ones by credit. When the
//! recipient accepted another copy than the newest, or the message is sealed anew because its key was unknown, the pump changes
//! the key and begins again.
//!
//! **Receiving.** The message arrives through the ordinary pipeline; its transaction adds the stream's row and key. [`receive`]
//! hands each chunk to its stream's own task, so that ordinary mail never waits for a disk: judge, decrypt, write, bring to the
//! disk every megabyte, and only then grant more. The last chunk leads to the digest of the whole; when it is right, one rename
//! makes the file visible, and the transaction after it tells the agent. Anything else ends in a deleted part and a reason.
//!
//! **Credit.** [`tell`] signs credits into acknowledgement frames of their own; [`hear`] believes those of the addressed agent. An
//! item FAILED 602 or 604 beside a credit says that chunks are missing: the sender goes back to `next_index`. A credit in the
//! state "cancel" ends the stream; the sender may say so as well, in a frame of its own. An end is told until the broker has it.
//!
//! **Restarts** need nothing from memory. The receiver cuts its part to what its row says is safe, and asks for the rest; the
//! sender goes on from the last credit that it heard. Between credit and commit a crash makes the receiver ask for chunks that it
//! had; they are sent again (PROTOCOL §5.6, T1). Silence for a minute stalls a stream; it is probed ever less often, and ends after
//! a day (606).
//!
//! **Again.** A message that begins again takes its file along, from the node's copy or the original ([`again`]).
//!
//! The arithmetic of both ends is pure and stands in [`murmur_core::stream`].

mod again;
mod hear;
mod offer;
mod open;
mod pump;
mod receive;
mod source;
mod spool;
mod tell;
mod view;

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use murmur_core::{
    id::{AgentId, MessageId, StreamId},
    limits::{
        SPOOL_BYTES_PER_AGENT_MAX, STREAM_BYTES_MAX_DEFAULT, STREAM_IDLE_MS, STREAM_STALL_MS, STREAM_WINDOW_DEFAULT,
    },
};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;

pub(crate) use self::source::{content_type_of, secret_name};
pub(super) use self::{
    again::{Again, OutTarget},
    hear::Heard,
    offer::{Announced, announced, asks_until, deadline},
    open::{Opening, Refusing},
};
pub use self::{
    offer::{Attachment, FileDraft},
    view::Transfers,
};
use self::{pump::Outgoing, receive::Incoming, spool::Spool, tell::Word};
use super::{Post, transition::Stepped};
use crate::store::{StoreError, stream, transfer::TransferState};

/// Plaintext bytes of a chunk.
const CHUNK_BYTES: u32 = 128 * 1024;
/// Chunks of all streams that wait for the broker's answer: ordinary messages find room between them.
const PUBLISHES_MAX: usize = 8;
/// How often idle streams are looked for.
const IDLE_CHECK: Duration = Duration::from_secs(600);

/// Where files are, and how much of them.
#[derive(Debug, Clone)]
pub struct StreamConfig {
    /// The folder of spool and received files.
    pub dir: PathBuf,
    /// The node's own folder: nothing in it is sent, but what is in `dir`.
    pub data_dir: PathBuf,
    /// Files are sent only from below these; empty means from everywhere.
    pub roots: Vec<PathBuf>,
    /// Largest file, sent or received.
    pub bytes_max: u64,
    /// Bytes of open streams of one agent, each way.
    pub spool_bytes_max: u64,
    /// Chunks that a sender may have on the way to here.
    pub window: u32,
    /// Silence after which a stream counts as stalled, milliseconds.
    pub stall_ms: u64,
    /// Silence after which a stream ends, milliseconds.
    pub idle_ms: u64,
    /// Left free on the disk whatever comes: the store needs room, too.
    pub reserve_bytes: u64,
    /// How long a received file is kept after it came, if its message was read; `None` keeps it until somebody deletes it.
    pub keep_ms: Option<u64>,
}

impl Default for StreamConfig {
    fn default() -> Self {
        Self {
            dir: PathBuf::from("files"),
            data_dir: PathBuf::from("."),
            roots: Vec::new(),
            bytes_max: STREAM_BYTES_MAX_DEFAULT,
            spool_bytes_max: SPOOL_BYTES_PER_AGENT_MAX,
            window: STREAM_WINDOW_DEFAULT,
            stall_ms: STREAM_STALL_MS,
            idle_ms: STREAM_IDLE_MS,
            reserve_bytes: 64 * 1024 * 1024,
            keep_ms: None,
        }
    }
}

/// What of the streams is in memory.
pub(super) struct Streams {
    spool: Spool,
    started_ms: u64,
    open: Mutex<Open>,
    words: mpsc::UnboundedSender<Word>,
    words_end: Mutex<Option<mpsc::UnboundedReceiver<Word>>>,
    publishing: Arc<Semaphore>,
    /// Held while the copy of a stream that begins again is made.
    copying_again: tokio::sync::Mutex<()>,
    /// What was left by an earlier process is taken up or swept: from here on the spool may be used.
    loaded: CancellationToken,
    stop: CancellationToken,
}

#[derive(Default)]
struct Open {
    outgoing: HashMap<StreamId, Arc<Outgoing>>,
    by_message: HashMap<MessageId, StreamId>,
    incoming: HashMap<StreamId, Incoming>,
    /// Streams that hold their messages back until they have ended, each once, with a task or between two.
    awaited: HashSet<StreamId>,
    watchers: HashMap<AgentId, watch::Sender<u64>>,
}

impl Streams {
    pub(super) fn new(config: &StreamConfig, started_ms: u64) -> Self {
        // Not bounded itself: a word follows from a chunk or a call, and for each stream the newest one is enough.
        let (words, words_end) = mpsc::unbounded_channel();
        Self {
            spool: Spool::new(config.dir.clone(), config.reserve_bytes),
            started_ms,
            open: Mutex::default(),
            words,
            words_end: Mutex::new(Some(words_end)),
            publishing: Arc::new(Semaphore::new(PUBLISHES_MAX)),
            copying_again: tokio::sync::Mutex::default(),
            loaded: CancellationToken::new(),
            stop: CancellationToken::new(),
        }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn outgoing(&self, stream: StreamId) -> Option<Arc<Outgoing>> {
        self.open().outgoing.get(&stream).cloned()
    }

    /// A delivery moved on: the pump of its stream, if it has one, looks at it again.
    pub(super) fn stepped(&self, stepped: &Stepped) {
        let open = self.open();
        if open.by_message.is_empty() {
            return;
        }
        let stream = open.by_message.get(&stepped.row.msg_id);
        if let Some(outgoing) = stream.and_then(|stream| open.outgoing.get(stream)) {
            outgoing.stepped();
        }
    }

    /// Tells those who follow an agent's transfers that one of them changed.
    fn changed(&self, agent: AgentId) {
        let mut open = self.open();
        let Some(watcher) = open.watchers.get(&agent) else { return };
        if watcher.receiver_count() == 0 {
            open.watchers.remove(&agent);
        } else {
            watcher.send_modify(|version| *version += 1);
        }
    }

    fn watch(&self, agent: AgentId) -> watch::Receiver<u64> {
        self.open().watchers.entry(agent).or_insert_with(|| watch::Sender::new(0)).subscribe()
    }

    /// Deletes received files.
    pub(super) async fn forget(&self, paths: Vec<String>) {
        let spool = self.spool.clone();
        // What could not be deleted was told, and nothing points to it any more.
        drop(tokio::task::spawn_blocking(move || paths.iter().for_each(|path| spool.forget(Path::new(path)))).await);
    }

    /// Deletes copies of what is not sent any more.
    pub(super) async fn forget_copies(&self, streams: Vec<StreamId>) {
        let spool = self.spool.clone();
        // The worst of it are copies that are swept at the next start.
        let delete = move || streams.into_iter().filter(|stream| spool.drop_out(*stream)).count();
        drop(tokio::task::spawn_blocking(delete).await);
    }

    fn say(&self, word: Word) {
        // Nobody listens only when the node ends; what matters is said again at the next start.
        let _ = self.words.send(word);
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Takes up every stream after a start.
pub(super) async fn load(post: &Arc<Post>) -> Result<(), StoreError> {
    let out = post.store.read(stream::live_out).await?;
    let incoming = post.store.read(stream::live_in).await?;
    let open = |state: TransferState, id| state.is_open().then_some(id);
    let mut out_ids: HashSet<StreamId> = out.iter().filter_map(|row| open(row.state, row.stream_id)).collect();
    out_ids.extend(post.store.read(|tx| stream::kept(tx, u64::MAX)).await?);
    let in_ids: HashSet<StreamId> = incoming.iter().filter_map(|row| open(row.state, row.stream_id)).collect();
    let spool = post.streams.spool.clone();
    let swept =
        tokio::task::spawn_blocking(move || spool.prepare().and_then(|()| spool.sweep(&out_ids, &in_ids))).await;
    if let Ok(Err(error)) = swept {
        tracing::error!(%error, folder = %post.streams.spool.dir().display(), "the folder of files cannot be used");
    }
    for row in out {
        match row.state.is_open() {
            true => post.start_pump(row),
            false => post.streams.say(tell::end_of_out(&row)),
        }
    }
    for row in incoming {
        match row.state.is_open() {
            true => post.take_up(row),
            false => post.tell_end_of_in(&row).await?,
        }
    }
    post.streams.loaded.cancel();
    Ok(())
}

/// Runs until `token` is cancelled.
pub(super) async fn run(post: Arc<Post>, token: CancellationToken) {
    let words = post.streams.words_end.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(words) = words else { return };
    let idle = async {
        loop {
            tokio::time::sleep(IDLE_CHECK).await;
            if let Err(error) = post.end_idle_incoming().await {
                tracing::warn!(%error, "idle streams could not be ended");
            }
        }
    };
    tokio::select! {
        () = token.cancelled() => {}
        () = tell::run(&post, words) => {}
        () = idle => {}
    }
    post.streams.stop.cancel();
}
