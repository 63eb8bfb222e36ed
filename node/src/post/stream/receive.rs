//! Chunks that come in: each stream has a task of its own, which writes them down in order and grants more.

use std::{fs::File, io, os::unix::fs::FileExt as _, path::PathBuf, sync::Arc, time::Duration};

use murmur_core::{
    code::Code,
    id::{NodeId, StreamId},
    limits::STREAM_SYNC_BYTES,
    stream::{Grant, Inflow, Judgement, chunk_count},
};
use murmur_crypto::{
    ack::{Credit, CreditState},
    chunk::{ChunkCipher, ChunkFrame, StreamKey},
};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    spool::{self, Spool},
    tell::{Word, credit_state},
};
use crate::{
    bus::Verdict,
    disk,
    failpoint::failpoint,
    post::{
        Post,
        receive::{After, Completion, Frame, Refusal},
        types::{Direction, TailItem},
    },
    store::{
        StoreError, Tx, agents, inbox, request,
        stream::{self, End, InRow},
        transfer::TransferState,
    },
};

/// Chunks that wait for their stream's task: more than any window.
const FRAMES_MAX: usize = 96;
/// Chunks dealt with in one go.
const BATCH: usize = 8;
/// When a chunk comes again whose stream is not known yet, or busy.
const SOON: Duration = Duration::from_secs(1);
/// A sender that was told of missing chunks and still sends later ones is told again after this time.
const TOLD_FOR: Duration = Duration::from_secs(5);
/// Chunks that may fail to authenticate before the stream is given up: one that was damaged on the way is sent again.
const STRIKES_MAX: u32 = 8;
/// Chunks on the way to this node at most, over all streams.
const CHUNKS_MAX: u32 = 256;

/// The way to a stream's task.
pub(super) struct Incoming {
    source: NodeId,
    frames: mpsc::Sender<ChunkFrame>,
    stop: CancellationToken,
}

/// A stream's place among those that are received. It is given up however the stream's task ends, a panic included, so that the next chunk
/// starts another.
struct Seat {
    post: Arc<Post>,
    stream_id: StreamId,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.post.streams.open().incoming.remove(&self.stream_id);
    }
}

/// Ordinary messages behind a chunk do not wait for what becomes of it.
fn at_once(verdict: Verdict) -> Completion {
    let after: After = Box::new(move || verdict.into());
    Box::pin(std::future::ready(Ok(after)))
}

impl Post {
    /// Takes a chunk as far as its stream's task.
    pub(in crate::post) async fn block(self: &Arc<Self>, frame: &Frame, source: NodeId) -> Result<Completion, Refusal> {
        let chunk = ChunkFrame::decode(frame.bytes.clone()).map_err(|error| Refusal::Quarantine(error.code))?;
        let stream_id = StreamId::from_bytes(chunk.stream_id);
        let Some(frames) = self.frames_of(stream_id, source).await? else {
            return self.chunk_without_stream(stream_id, source, frame.deliveries).await;
        };
        // A full queue is no honest sender's, and a closed one says in a moment why it is closed. What is in the queue when the node
        // dies is asked for again.
        frames.try_send(chunk).map_err(|_| Refusal::Later(SOON))?;
        Ok(at_once(Verdict::Ack))
    }

    /// The task of an open stream, started when there is none; `None` when there is no such open stream.
    async fn frames_of(
        self: &Arc<Self>,
        stream_id: StreamId,
        source: NodeId,
    ) -> Result<Option<mpsc::Sender<ChunkFrame>>, Refusal> {
        let found = self.streams.open().incoming.get(&stream_id).map(|known| (known.source, known.frames.clone()));
        let (owner, frames) = match found {
            Some(found) => found,
            None => {
                // By way of the writer: the message that opens the stream may be in its queue right now.
                let row: Option<InRow> = self.store.write(move |tx| stream::incoming(tx, stream_id)).await?;
                let Some(row) = row.filter(|row| row.state.is_open()) else { return Ok(None) };
                let owner = row.source_node;
                (owner, self.start_incoming(row))
            }
        };
        // Nobody but the sender's own node is listened to; the broker vouches for the name.
        if owner == source { Ok(Some(frames)) } else { Err(Refusal::Quarantine(Code::ChunkAuth)) }
    }

    /// A chunk of a stream that has ended is answered with its end; one of an unknown stream is put off once, because the message
    /// may be behind it, and then dropped in silence, since nothing about it is authenticated.
    async fn chunk_without_stream(
        self: &Arc<Self>,
        stream_id: StreamId,
        source: NodeId,
        deliveries: u64,
    ) -> Result<Completion, Refusal> {
        let row = self.store.read(move |tx: Tx<'_>| stream::incoming(tx, stream_id)).await?;
        match row {
            Some(row) if row.source_node == source => {
                self.tell_end_of_in(&row).await?;
                Ok(at_once(Verdict::Ack))
            }
            None if deliveries <= 2 => Err(Refusal::Unproven(SOON, Code::ChunkAuth)),
            _ => {
                self.counters.refused.add();
                Ok(at_once(Verdict::Term))
            }
        }
    }

    /// Sets a task to a stream that is received; it says at once what it allows.
    pub(in crate::post) fn take_up(self: &Arc<Self>, row: InRow) {
        self.start_incoming(row);
    }

    fn start_incoming(self: &Arc<Self>, row: InRow) -> mpsc::Sender<ChunkFrame> {
        let mut open = self.streams.open();
        if let Some(known) = open.incoming.get(&row.stream_id) {
            return known.frames.clone();
        }
        let (frames, arrivals) = mpsc::channel(FRAMES_MAX);
        let stop = self.streams.stop.child_token();
        let (stream_id, source) = (row.stream_id, row.source_node);
        // The message is shown when the file is whole, whatever becomes of this task: the wait is the stream's.
        let is_first = open.awaited.insert(stream_id);
        if is_first {
            drop(self.hub.wait_for(row.msg_id));
        }
        open.incoming.insert(stream_id, Incoming { source, frames: frames.clone(), stop: stop.clone() });
        drop(open);
        let seat = Seat { post: Arc::clone(self), stream_id };
        let worker = Worker::new(Arc::clone(self), row, is_first);
        self.tasks.spawn(async move {
            let _seat = seat;
            stop.run_until_cancelled(run(worker, arrivals)).await;
        });
        frames
    }

    /// Ends a stream that is received other than by its completion, and its task. `told` says that the sender knows.
    pub(in crate::post) async fn end_incoming(
        &self,
        row: &InRow,
        state: TransferState,
        code: Code,
        told: bool,
    ) -> Result<bool, StoreError> {
        let ended = self.give_up(row, state, code, told).await;
        if let Some(incoming) = self.streams.open().incoming.get(&row.stream_id) {
            incoming.stop.cancel();
        }
        ended
    }

    async fn give_up(&self, row: &InRow, state: TransferState, code: Code, told: bool) -> Result<bool, StoreError> {
        let (stream_id, now_ms) = (row.stream_id, self.clock.now_ms());
        tracing::info!(%stream_id, msg_id = %row.msg_id, ?state, %code, "a file transfer ended");
        // The keys that name the copy are gone afterwards.
        let word = self.word_of_in(row, Grant { next_index: 0, window: 0 }, CreditState::Cancel, Some(code)).await?;
        let ended =
            self.store.write(move |tx| stream::end(tx, End::In, stream_id, state, code.name(), told, now_ms)).await?;
        let spool = self.streams.spool.clone();
        // The worst of it is a part that is swept at the next start.
        drop(tokio::task::spawn_blocking(move || spool.drop_part(stream_id)).await);
        if ended && !told {
            self.streams.say(Word { ends: Some(End::In), ..word });
        }
        if ended {
            self.file_settled(row).await?;
        }
        Ok(ended)
    }

    /// Says again how a stream ended that is received here.
    pub(super) async fn tell_end_of_in(&self, row: &InRow) -> Result<(), StoreError> {
        let code = Code::ALL.into_iter().find(|code| code.name() == row.reason);
        let grant = Grant { next_index: row.synced_index, window: 0 };
        let word = self.word_of_in(row, grant, credit_state(row.state), code).await?;
        self.streams.say(Word { ends: Some(End::In), ..word });
        Ok(())
    }

    async fn word_of_in(
        &self,
        row: &InRow,
        grant: Grant,
        state: CreditState,
        code: Option<Code>,
    ) -> Result<Word, StoreError> {
        let (sender, msg_id, recipient) = (row.sender, row.msg_id, row.recipient);
        let known = match code {
            Some(_) => self.store.read(move |tx| inbox::known(tx, sender, msg_id, recipient)).await?,
            None => None,
        };
        Ok(Word {
            speaker: recipient,
            to: sender,
            route: row.reply_route.clone(),
            credit: Credit {
                stream_id: *row.stream_id.as_bytes(),
                next_index: grant.next_index,
                window: grant.window,
                state,
            },
            trouble: known.zip(code).map(|(known, code)| (msg_id, known.env_digest, code)),
            ends: None,
        })
    }

    /// The file is whole, or never will be: now its message is pushed, and a request that it answers is completed.
    async fn file_settled(&self, row: &InRow) -> Result<(), StoreError> {
        let (recipient, sender, msg_id) = (row.recipient, row.sender, row.msg_id);
        let message = self
            .store
            .write(move |tx| {
                let Some(message) = inbox::find(tx, recipient, msg_id)? else { return Ok(None) };
                let completes = match message.in_reply_to {
                    Some(asked) => request::complete(tx, asked, recipient, sender, message.cursor)?,
                    None => false,
                };
                Ok(Some((message, completes, agents::unread(tx, recipient)?)))
            })
            .await?;
        self.streams.changed(recipient);
        let Some((message, completes, unread)) = message else { return Ok(()) };
        if let Some(asked) = message.in_reply_to.filter(|_| completes) {
            self.hub.replied(asked, message.clone(), unread.saturating_sub(1));
        }
        let was_awaited = self.streams.open().awaited.remove(&row.stream_id);
        if was_awaited {
            self.hub.stop_waiting(msg_id, recipient);
        }
        self.hub.show(recipient, || TailItem { direction: Direction::In, message, state: None });
        Ok(())
    }

    /// Ends streams on which nothing came for a day (606).
    pub(super) async fn end_idle_incoming(&self) -> Result<(), StoreError> {
        let before_ms = self.clock.now_ms().saturating_sub(self.config.streams.idle_ms);
        for row in self.store.read(stream::live_in).await? {
            if row.state.is_open() && row.active_ms < before_ms {
                self.end_incoming(&row, TransferState::Failed, Code::StreamCancelled, false).await?;
            }
        }
        Ok(())
    }

    /// Chunks that each sender may have on the way, so that all together fit into this node's memory.
    fn stream_window(&self) -> u32 {
        let streams = u32::try_from(self.streams.open().incoming.len()).unwrap_or(u32::MAX);
        (CHUNKS_MAX / streams.max(1)).clamp(2, self.config.streams.window.max(2))
    }
}

/// One stream's state on its way through the blocking threads.
struct Worker {
    post: Arc<Post>,
    row: InRow,
    flow: Inflow,
    is_resumed: bool,
    ciphers: Vec<ChunkCipher>,
    file: Option<File>,
    unsynced: u64,
    strikes: u32,
    window: u32,
    /// When the sender was last told that chunks are missing.
    gap_told: Instant,
}

/// What came of a batch.
struct Taken {
    /// The sender is to hear where the stream is.
    tell: Option<Option<Code>>,
    /// So many chunks and bytes are safe on the disk now.
    synced: Option<(u32, u64)>,
    end: Option<Ending>,
}

enum Ending {
    Whole,
    Failed(Code),
}

/// What became of one chunk.
enum Step {
    Took {
        last: bool,
    },
    /// No known key opens it.
    Locked,
    Dropped,
    Tell(Option<Code>),
    Fail(Code),
}

async fn run(mut worker: Worker, mut arrivals: mpsc::Receiver<ChunkFrame>) {
    worker.window = worker.post.stream_window();
    if worker.is_resumed && worker.resume().await {
        return;
    }
    let code = worker.is_resumed.then_some(Code::StreamGap);
    worker.tell(code).await;
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        if arrivals.recv_many(&mut batch, BATCH).await == 0 {
            return;
        }
        worker.window = worker.post.stream_window();
        let Some(returned) = deal_with(worker, std::mem::take(&mut batch)).await else { return };
        worker = returned;
    }
}

/// Deals with chunks that came together; `None` when the stream has ended, or its worker is lost.
async fn deal_with(mut worker: Worker, mut chunks: Vec<ChunkFrame>) -> Option<Worker> {
    let mut keys_are_fresh = false;
    while !chunks.is_empty() {
        let taking = tokio::task::spawn_blocking(move || {
            let (taken, locked) = worker.take(chunks, keys_are_fresh);
            (worker, taken, locked)
        });
        let (returned, taken, locked) = taking.await.ok()?;
        (worker, chunks) = (returned, locked);
        if worker.follow_up(taken).await {
            return None;
        }
        if let Some(chunk) = chunks.first() {
            let found = worker.find_keys().await;
            keys_are_fresh = worker.learn(found, chunk.index);
            if !keys_are_fresh {
                chunks.remove(0);
            }
        }
    }
    Some(worker)
}

impl Worker {
    /// `is_first`: in this process nobody else has granted anything.
    fn new(post: Arc<Post>, row: InRow, is_first: bool) -> Self {
        let size_max = post.config.streams.bytes_max;
        let is_resumed = !is_first || row.created_ms < post.streams.started_ms || row.synced_index > 0;
        let flow = if is_resumed {
            Inflow::resumed(row.chunk_size, row.total_size, size_max, row.synced_index)
        } else {
            Inflow::new(row.chunk_size, row.total_size, size_max)
        };
        Self {
            post,
            row,
            flow,
            is_resumed,
            ciphers: Vec::new(),
            file: None,
            unsynced: 0,
            strikes: 0,
            window: 1,
            gap_told: Instant::now(),
        }
    }

    /// Looks at what the disk has; whether that is everything.
    async fn resume(&mut self) -> bool {
        let (spool, row) = (self.post.streams.spool.clone(), self.row.clone());
        let found = tokio::task::spawn_blocking(move || look_around(&spool, &row)).await;
        match found.map_err(io::Error::other).and_then(|found| found) {
            Ok(Found::Part) => false,
            Ok(Found::Less) => {
                tracing::warn!(stream_id = %self.row.stream_id, "what came of a file is gone: it begins again");
                self.flow =
                    Inflow::resumed(self.row.chunk_size, self.row.total_size, self.post.config.streams.bytes_max, 0);
                false
            }
            Ok(Found::Whole(size)) => {
                let completed = self.complete(chunk_count(size, self.row.chunk_size), size).await;
                if let Err(error) = &completed {
                    tracing::error!(%error, stream_id = %self.row.stream_id, "the end of a stream could not be noted");
                }
                true
            }
            Err(error) => {
                tracing::error!(%error, stream_id = %self.row.stream_id, "what came of a file cannot be looked at");
                false
            }
        }
    }

    /// Writes a batch down, and returns what is left of it from the first chunk that no known key opens; blocks on the disk.
    /// `keys_are_fresh` says that there are no other keys.
    fn take(&mut self, batch: Vec<ChunkFrame>, keys_are_fresh: bool) -> (Taken, Vec<ChunkFrame>) {
        let mut taken = Taken { tell: None, synced: None, end: None };
        let (mut is_last, mut locked) = (false, Vec::new());
        let mut chunks = batch.into_iter();
        while let Some(chunk) = chunks.next() {
            match self.step(&chunk, keys_are_fresh) {
                Step::Took { last } => is_last |= last,
                Step::Locked => {
                    locked = std::iter::once(chunk).chain(chunks).collect();
                    break;
                }
                Step::Dropped => {}
                Step::Tell(code) => taken.tell = Some(taken.tell.flatten().or(code)),
                Step::Fail(code) => {
                    taken.end = Some(Ending::Failed(code));
                    break;
                }
            }
        }
        if taken.end.is_none() && self.unsynced > 0 && self.is_due(is_last) {
            self.sync(&mut taken);
        }
        if taken.end.is_none() && is_last {
            taken.end = Some(self.finish());
        }
        (taken, locked)
    }

    fn is_due(&self, is_last: bool) -> bool {
        is_last || self.unsynced >= STREAM_SYNC_BYTES || self.flow.is_thirsty(self.window)
    }

    fn sync(&mut self, taken: &mut Taken) {
        let Some(file) = &self.file else { return };
        match file.sync_data() {
            Ok(()) => {
                failpoint("T1");
                self.unsynced = 0;
                taken.synced = Some((self.flow.next(), self.flow.size()));
                taken.tell = Some(taken.tell.flatten());
            }
            Err(error) => {
                tracing::error!(%error, stream_id = %self.row.stream_id, "a part of a file could not be brought to the disk");
                taken.end = Some(Ending::Failed(Code::StorageFull));
            }
        }
    }

    fn step(&mut self, chunk: &ChunkFrame, keys_are_fresh: bool) -> Step {
        if self.gap_told.elapsed() >= TOLD_FOR {
            self.flow.forget_told();
        }
        match self.flow.judge(chunk.index) {
            Judgement::Exceeded => Step::Fail(Code::CreditExceeded),
            Judgement::Duplicate => Step::Tell(None),
            Judgement::Gap { tell: true } => {
                self.gap_told = Instant::now();
                Step::Tell(Some(Code::StreamGap))
            }
            Judgement::Gap { tell: false } => Step::Dropped,
            Judgement::Expected => self.expected(chunk, keys_are_fresh),
        }
    }

    fn expected(&mut self, chunk: &ChunkFrame, keys_are_fresh: bool) -> Step {
        let plain = match self.decrypt(chunk) {
            Some(plain) => plain,
            // Another copy of the message may have come meanwhile.
            None if !keys_are_fresh => return Step::Locked,
            None => return self.strike(chunk),
        };
        if let Err(code) = self.flow.check(plain.len(), chunk.last) {
            return Step::Fail(code);
        }
        if self.unsynced == 0 && !self.post.streams.spool.has_room(STREAM_SYNC_BYTES) {
            self.post.tasks.spawn(self.post.make_room());
            return self.full("the disk is full");
        }
        match self.write(&plain) {
            Ok(()) => {
                self.flow.take(plain.len());
                self.unsynced = self.unsynced.saturating_add(u64::try_from(plain.len()).unwrap_or(0)).max(1);
                Step::Took { last: chunk.last }
            }
            Err(error) if disk::is_full(&error) => self.full(&error.to_string()),
            Err(error) => {
                // Its sender is asked for it again when the next one comes, or asks itself after a while.
                tracing::warn!(%error, stream_id = %self.row.stream_id, "a chunk could not be written");
                Step::Dropped
            }
        }
    }

    fn strike(&mut self, chunk: &ChunkFrame) -> Step {
        self.strikes += 1;
        tracing::warn!(stream_id = %self.row.stream_id, index = chunk.index, "a chunk does not authenticate");
        match self.strikes {
            STRIKES_MAX.. => Step::Fail(Code::ChunkAuth),
            _ => Step::Tell(Some(Code::ChunkAuth)),
        }
    }

    /// There is no room for the next chunk: what is here stays, and the sender waits and tries again.
    fn full(&self, why: &str) -> Step {
        tracing::warn!(stream_id = %self.row.stream_id, msg_id = %self.row.msg_id, why, "a file waits for room");
        Step::Tell(Some(Code::StorageFull))
    }

    /// Under any known key: each copy of the message has another.
    fn decrypt(&self, chunk: &ChunkFrame) -> Option<Vec<u8>> {
        self.ciphers.iter().find_map(|cipher| cipher.decrypt(chunk.index, chunk.last, &chunk.ciphertext).ok())
    }

    /// The keys of all copies of the message that have come.
    async fn find_keys(&self) -> Result<Vec<stream::KeyRow>, StoreError> {
        let stream_id = self.row.stream_id;
        self.post.store.read(move |tx| stream::keys(tx, End::In, stream_id)).await
    }

    /// Takes the keys that were looked for because of a chunk. Says whether there are no others; `false` when that cannot be known, which
    /// is not the chunk's fault: it is dropped, and its sender is asked for it again when the next one comes, or asks itself after a while.
    fn learn(&mut self, found: Result<Vec<stream::KeyRow>, StoreError>, index: u32) -> bool {
        let (stream_id, prefix) = (self.row.stream_id, self.row.nonce_prefix);
        match found {
            Ok(keys) => {
                let cipher = |key: &stream::KeyRow| {
                    ChunkCipher::new(&StreamKey::from_bytes(&key.key), stream_id.as_bytes(), &prefix)
                };
                self.ciphers = keys.iter().map(cipher).collect();
                true
            }
            Err(error) => {
                tracing::warn!(%error, %stream_id, index, "a chunk is dropped: the keys of its stream cannot be read");
                false
            }
        }
    }

    fn write(&mut self, plain: &[u8]) -> io::Result<()> {
        let size = self.flow.size();
        let file = match self.file.take() {
            Some(file) => file,
            None => self.post.streams.spool.open_part(self.row.stream_id, size)?,
        };
        let written = file.write_all_at(plain, size);
        self.file = Some(file);
        written
    }

    /// The last chunk is down: is it the file that was announced?
    fn finish(&mut self) -> Ending {
        let (spool, row) = (&self.post.streams.spool, &self.row);
        match deliver(spool, row, self.file.take(), self.flow.size()) {
            Ok(true) => Ending::Whole,
            Ok(false) => Ending::Failed(Code::ChunkAuth),
            Err(error) => {
                tracing::error!(%error, stream_id = %row.stream_id, "a file that came whole could not be put in its place");
                Ending::Failed(Code::StorageFull)
            }
        }
    }

    /// Answers, tells and notes; whether the stream has ended.
    async fn follow_up(&mut self, taken: Taken) -> bool {
        let Taken { tell, synced, end } = taken;
        if let Some((index, size)) = synced {
            let (post, stream_id, now_ms) = (Arc::clone(&self.post), self.row.stream_id, self.post.clock.now_ms());
            let (recipient, tasks) = (self.row.recipient, &self.post.tasks);
            let noting = post.store.queue_lazily(move |tx| stream::note_synced(tx, stream_id, index, size, now_ms));
            let noted = Arc::clone(&post);
            tasks.spawn(async move {
                // Should this be lost, the sender is asked again for what was safe already.
                let _: Result<(), StoreError> = noting.await;
                noted.streams.changed(recipient);
            });
        }
        match end {
            None => {
                if let Some(code) = tell {
                    self.tell(code).await;
                }
                false
            }
            Some(ending) => {
                self.end(ending).await;
                true
            }
        }
    }

    /// Tells the sender where the stream is and how much more it may send.
    async fn tell(&mut self, code: Option<Code>) {
        let mut grant = self.flow.grant(self.window);
        if code == Some(Code::StorageFull) {
            grant.window = 0;
        }
        match self.post.word_of_in(&self.row, grant, CreditState::Open, code).await {
            Ok(word) => self.post.streams.say(word),
            Err(error) => tracing::warn!(%error, stream_id = %self.row.stream_id, "a credit could not be given"),
        }
    }

    async fn end(&self, ending: Ending) {
        let ended = match ending {
            Ending::Failed(code) => self.post.give_up(&self.row, TransferState::Failed, code, false).await.map(drop),
            Ending::Whole => self.complete(self.flow.next(), self.flow.size()).await,
        };
        if let Err(error) = ended {
            tracing::error!(%error, stream_id = %self.row.stream_id, "the end of a stream could not be noted");
        }
    }

    /// The file is in its place; the agent and the sender are told.
    async fn complete(&self, index: u32, size: u64) -> Result<(), StoreError> {
        let (post, stream_id, now_ms) = (&self.post, self.row.stream_id, self.post.clock.now_ms());
        let done = move |tx: Tx<'_>| {
            stream::note_synced(tx, stream_id, index, size, now_ms)?;
            stream::end(tx, End::In, stream_id, TransferState::Done, "", false, now_ms)
        };
        if !post.store.write(done).await? {
            // It was cancelled in the same moment.
            drop(tokio::fs::remove_file(&self.row.path).await);
            return Ok(());
        }
        tracing::info!(%stream_id, msg_id = %self.row.msg_id, size, "a file came whole");
        let row = InRow { state: TransferState::Done, synced_index: index, ..self.row.clone() };
        post.tell_end_of_in(&row).await?;
        post.file_settled(&row).await
    }
}

/// What is on the disk of a stream that was open when the node ended.
enum Found {
    /// As much as its row says.
    Part,
    /// Less, so that it begins again.
    Less,
    /// It came whole, and the node ended before it could say so.
    Whole(u64),
}

fn look_around(spool: &Spool, row: &InRow) -> io::Result<Found> {
    if spool.part(row.stream_id).exists() || row.size == 0 && !PathBuf::from(&row.path).exists() {
        return Ok(if spool.open_part(row.stream_id, row.size).is_ok() { Found::Part } else { Found::Less });
    }
    let (sha256, length) = match File::open(&row.path) {
        Ok(file) => spool::digest(&file)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Less),
        Err(error) => return Err(error),
    };
    let is_right = row.sha256 == Some(sha256) && row.total_size.is_none_or(|total| total == length);
    Ok(if is_right { Found::Whole(length) } else { Found::Less })
}

/// Checks the whole part against its manifest and puts it in its place. After a crash between the two it is there already.
fn deliver(spool: &Spool, row: &InRow, part: Option<File>, size: u64) -> io::Result<bool> {
    let target = PathBuf::from(&row.path);
    let part = match part {
        Some(part) => part,
        None => spool.open_part(row.stream_id, size)?,
    };
    part.sync_all()?;
    let (sha256, length) = spool::digest(&part)?;
    let is_right = length == size && row.sha256.is_none_or(|promised| promised == sha256);
    if is_right {
        spool.deliver(row.stream_id, &target)?;
    }
    Ok(is_right)
}

#[cfg(test)]
mod tests {
    use murmur_core::subject::{Destination, parse_subject};

    use super::*;
    use crate::post::{
        Draft, FileDraft,
        testing::{TestNode, World, carry},
    };

    /// A stream of a few chunks of which the second node has the message, and its first chunk.
    async fn begun(a: &TestNode, b: &TestNode, folder: &tempfile::TempDir) -> (InRow, Frame) {
        let path = folder.path().join("data.bin");
        std::fs::write(&path, vec![7; 300_000]).unwrap();
        let message = Draft { to: "bob".to_owned(), body: "here it is".into(), ..Draft::default() };
        let draft = FileDraft { message, path: path.to_str().unwrap().to_owned(), ..FileDraft::default() };
        a.post.send_file(&a.agent(0), draft).await.unwrap();
        loop {
            let frame = a.published().await;
            if parse_subject(&frame.subject).unwrap().destination == Destination::Blocks {
                let stream_id = StreamId::from_bytes(ChunkFrame::decode(frame.bytes.clone()).unwrap().stream_id);
                let row = b.post.store.read(move |tx| stream::incoming(tx, stream_id)).await.unwrap().unwrap();
                return (row, frame);
            }
            b.take(&frame).await;
        }
    }

    fn is_received(node: &TestNode, stream_id: StreamId) -> bool {
        node.post.streams.open().incoming.contains_key(&stream_id)
    }

    #[tokio::test]
    async fn an_error_of_the_store_is_no_strike() {
        let ((a, b), folder) = (World::new().pair().await, tempfile::tempdir().unwrap());
        let (row, frame) = begun(&a, &b, &folder).await;
        let chunk = ChunkFrame::decode(frame.bytes).unwrap();
        let mut worker = Worker::new(Arc::clone(&b.post), row, true);
        for _ in 0..2 * STRIKES_MAX {
            let (taken, locked) = worker.take(vec![chunk.clone()], false);
            assert!(taken.end.is_none() && taken.tell.is_none());
            assert_eq!(locked.len(), 1, "it is put aside until its key is looked for");
            assert!(!worker.learn(Err(StoreError::Corrupt("on purpose")), chunk.index));
        }
        assert_eq!(worker.strikes, 0);
        let worker = deal_with(worker, vec![chunk]).await.unwrap();
        assert_eq!((worker.flow.next(), worker.strikes), (1, 0), "it comes again, and is taken");
    }

    #[tokio::test]
    async fn a_stream_whose_task_panicked_gets_another_and_its_message_is_shown_in_the_end() {
        let ((a, b), folder) = (World::new().pair().await, tempfile::tempdir().unwrap());
        let (row, first) = begun(&a, &b, &folder).await;
        let (stream_id, bob) = (row.stream_id, b.agent(0).agent_id);
        let (pushed, until) = b.post.pushable(bob, 0, 10).await.unwrap();
        assert!(pushed.is_empty(), "it waits for its file");
        b.post.streams.open().incoming.get(&stream_id).unwrap().stop.cancel();
        while is_received(&b, stream_id) {
            tokio::task::yield_now().await;
        }
        let (frames, arrivals) = mpsc::channel(1);
        let incoming = Incoming { source: row.source_node, frames, stop: CancellationToken::new() };
        b.post.streams.open().incoming.insert(stream_id, incoming);
        let seat = Seat { post: Arc::clone(&b.post), stream_id };
        let panicking = tokio::spawn(async move {
            let (_seat, _arrivals) = (seat, arrivals);
            panic!("on purpose");
        });
        assert!(panicking.await.is_err());
        assert!(!is_received(&b, stream_id));
        b.take(&first).await;
        let shown = async {
            loop {
                let (pushed, _) = b.post.pushable(bob, until, 10).await.unwrap();
                if let Some(message) = pushed.into_iter().next() {
                    return message;
                }
                tokio::task::yield_now().await;
            }
        };
        let shown = carry(&[&a, &b], shown).await;
        assert_eq!(shown.file.unwrap().state, TransferState::Done);
    }
}
