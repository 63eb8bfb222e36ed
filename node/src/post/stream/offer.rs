//! Offering a file: open, copy, announce.

use std::{io, path::Path, sync::Arc};

use bytes::Bytes;
use murmur_core::{
    id::{AgentId, MessageId, StreamId},
    limits::{CONTENT_TYPE_BYTES_MAX, STREAMS_OPEN_PER_PAIR_MAX},
    slug::Slug,
};
use murmur_crypto::inner::{Attr, InnerMessage as Inner, Kind, StreamManifest};

use super::{
    CHUNK_BYTES,
    source::{self, Rules},
    spool::{Snapshot, SnapshotError, Spool},
};
use crate::{
    disk,
    post::{Draft, LocalAgent, PendingReply, Post, SendError, Sent, StreamConfig},
    store::{
        StoreError, Tx,
        stream::{self, OutRow},
        transfer::{self, FileInfo, TransferState},
    },
};

/// The attribute of a message with a file whose sender waits for a reply, and until when, Unix milliseconds: the kind of such a message
/// says that it opens a stream, and only one of kind REQUEST may have a deadline. A node that does not know it shows a message.
const ASKS_UNTIL: &str = "asks-until-ms";

/// A file to send, as the caller typed it.
#[derive(Debug, Clone, Default)]
pub struct FileDraft {
    /// The message that goes with it; its content type is that of the text.
    pub message: Draft,
    /// Absolute path on this host.
    pub path: String,
    /// What to call it; empty for its own name.
    pub name: String,
    /// What it is; empty for what its name says.
    pub content_type: String,
    /// Send it although its name is one under which secrets are kept.
    pub allow_secret_names: bool,
}

/// A file that was copied and waits for its message.
#[derive(Debug, Clone)]
pub struct Attachment {
    pub(in crate::post) manifest: StreamManifest,
    size: u64,
    sha256: [u8; 32],
    source_path: String,
    from: Slug,
    spool_bytes_max: u64,
}

/// What else the row of a stream that is sent says.
pub(in crate::post) struct Announced<'a> {
    pub(in crate::post) msg_id: MessageId,
    pub(in crate::post) sender: AgentId,
    pub(in crate::post) recipient: AgentId,
    pub(in crate::post) to: &'a Slug,
    pub(in crate::post) created_ms: u64,
}

impl Post {
    /// Accepts a file. When it returns, a copy of the file and the message that announces it are on disk.
    ///
    /// # Errors
    /// [`SendError`]; nothing was accepted then.
    pub async fn send_file(
        self: &Arc<Self>,
        from: &LocalAgent,
        draft: FileDraft,
    ) -> Result<(Sent, FileInfo), SendError> {
        let (stream_id, message) = self.attach(from, draft).await?;
        let (post, from) = (Arc::clone(self), from.clone());
        let send = async move {
            let sent = post.send(&from, message).await;
            post.begin_stream(stream_id).await?;
            let sent = sent?;
            let file = post.file_of_sent(&from, sent.msg_id).await?;
            Ok((sent, file))
        };
        self.finish(send).await
    }

    /// Sends a request with a file. When it returns, a copy of the file and the request are on disk. As [`Post::request`] else.
    ///
    /// # Errors
    /// [`SendError`]; nothing was accepted then.
    pub async fn request_with_file(
        self: &Arc<Self>,
        from: &LocalAgent,
        draft: FileDraft,
        timeout_ms: u64,
    ) -> Result<(Sent, PendingReply, FileInfo), SendError> {
        let (stream_id, message) = self.attach(from, draft).await?;
        let (post, from) = (Arc::clone(self), from.clone());
        let ask = async move {
            let asked = post.request(&from, message, timeout_ms).await;
            post.begin_stream(stream_id).await?;
            let (sent, pending) = asked?;
            let file = post.file_of_sent(&from, sent.msg_id).await?;
            Ok((sent, pending, file))
        };
        self.finish(ask).await
    }

    /// Copies the file of a draft, and makes it part of the message.
    async fn attach(&self, from: &LocalAgent, draft: FileDraft) -> Result<(StreamId, Draft), SendError> {
        let FileDraft { mut message, path, name, content_type, allow_secret_names } = draft;
        // A sweep must not meet a copy whose row is still to come.
        self.streams.loaded.cancelled().await;
        let stream_id = StreamId::from_bytes(random()?);
        let (spool, config) = (self.streams.spool.clone(), self.config.streams.clone());
        let (wanted, slug) = (Wanted { path, name, content_type, allow_secret_names }, from.slug.clone());
        let take = move || take(&spool, &config, stream_id, &wanted, &slug);
        let copied = || async {
            let taken = tokio::task::spawn_blocking(take.clone()).await;
            taken.map_err(|error| failed(&io::Error::other(error)))?
        };
        let attachment = match copied().await {
            Err(SendError::Store(StoreError::Full) | SendError::DiskFull { .. }) if self.make_room().await? => {
                copied().await?
            }
            copied => copied?,
        };
        message.file = Some(Box::new(attachment));
        Ok((stream_id, message))
    }

    /// Sets a copied file in motion, or deletes the copy when its message was not accepted.
    async fn begin_stream(self: &Arc<Self>, stream_id: StreamId) -> Result<(), SendError> {
        match self.store.read(move |tx| stream::outgoing(tx, stream_id)).await? {
            Some(row) => self.start_pump(row),
            // Refused, or a repeat of what was sent before.
            None => drop(self.streams.spool.drop_out(stream_id)),
        }
        Ok(())
    }

    async fn file_of_sent(&self, from: &LocalAgent, msg_id: MessageId) -> Result<FileInfo, SendError> {
        self.streams.changed(from.agent_id);
        let file = self.store.read(move |tx| transfer::of_sent(tx, msg_id)).await?;
        // An idempotency key cannot stand for a message without a file: the content would differ.
        file.ok_or(SendError::Store(StoreError::Corrupt("stream row")))
    }
}

/// Says in a message that opens a stream until when its sender waits for a reply.
pub(in crate::post) fn asks_until(deadline_ms: u64) -> Attr {
    Attr { key: ASKS_UNTIL.to_owned(), value: deadline_ms.to_string() }
}

/// Until when the sender of a message waits for a reply, Unix milliseconds; `None` when it does not.
pub(in crate::post) fn deadline(inner: &Inner) -> Option<u64> {
    let asks = inner.attrs.iter().find(|attr| inner.kind == Kind::StreamOpen && attr.key == ASKS_UNTIL);
    inner.deadline_ms.or_else(|| asks.and_then(|attr| attr.value.parse().ok()))
}

#[derive(Clone)]
struct Wanted {
    path: String,
    name: String,
    content_type: String,
    allow_secret_names: bool,
}

/// Opens and copies; blocks on the disk.
fn take(
    spool: &Spool,
    config: &StreamConfig,
    stream_id: StreamId,
    wanted: &Wanted,
    from: &Slug,
) -> Result<Attachment, SendError> {
    let rules = Rules {
        roots: &config.roots,
        data_dir: &config.data_dir,
        files_dir: &config.dir,
        allow_secret_names: wanted.allow_secret_names,
        bytes_max: config.bytes_max,
    };
    let opened = source::open(&wanted.path, &rules)?;
    let filename = source::announced_name(&wanted.name, &opened.name)?;
    let content_type = content_type(&wanted.content_type, &filename)?;
    spool.prepare().map_err(|error| failed(&error))?;
    let length = opened.file.metadata().map(|metadata| metadata.len()).unwrap_or_default();
    if !spool.has_room(length) {
        return Err(SendError::DiskFull { bytes: length, reserve: config.reserve_bytes });
    }
    let Snapshot { size, sha256 } =
        spool.snapshot(stream_id, &opened.file, config.bytes_max).map_err(|error| match error {
            SnapshotError::TooLarge(limit) => SendError::FileTooLarge { bytes: limit.saturating_add(1), limit },
            SnapshotError::Io(error) => failed(&error),
        })?;
    let manifest = StreamManifest {
        stream_id: *stream_id.as_bytes(),
        nonce_prefix: random()?,
        chunk_size: CHUNK_BYTES,
        // The protocol writes 0 for "not known beforehand", which the digest makes good.
        total_size: Some(size).filter(|size| *size > 0),
        filename,
        content_type,
        sha256: Some(sha256),
    };
    let spool_bytes_max = config.spool_bytes_max;
    let source_path = shown(&opened.path);
    Ok(Attachment { manifest, size, sha256, source_path, from: from.clone(), spool_bytes_max })
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn content_type(wanted: &str, name: &str) -> Result<String, SendError> {
    let field = |rule: String| Err(SendError::Field { field: "content_type", rule });
    match wanted {
        "" => Ok(source::content_type_of(name).to_owned()),
        long if long.len() > CONTENT_TYPE_BYTES_MAX => {
            field(format!("must have at most {CONTENT_TYPE_BYTES_MAX} bytes"))
        }
        wild if wild.chars().any(char::is_control) => field("must hold no control characters".to_owned()),
        fine => Ok(fine.to_owned()),
    }
}

fn failed(error: &io::Error) -> SendError {
    if disk::is_full(error) {
        return StoreError::Full.into();
    }
    tracing::error!(%error, "a file could not be copied into the spool");
    SendError::Spool(error.to_string())
}

pub(super) fn random<const N: usize>() -> Result<[u8; N], SendError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| SendError::Random)?;
    Ok(bytes)
}

impl Attachment {
    /// Names the content, for the idempotency key.
    pub(in crate::post) fn digest(&self) -> Bytes {
        [&self.sha256[..], self.manifest.filename.as_bytes(), b"\0", self.manifest.content_type.as_bytes()]
            .concat()
            .into()
    }

    /// Adds the stream's row in the transaction of its message, within the limits of the pair and of the sender.
    pub(in crate::post) fn insert(&self, tx: Tx<'_>, announced: &Announced<'_>) -> Result<(), SendError> {
        let row = self.row(announced);
        check_usage(tx, &row, announced.recipient, announced.to, self.spool_bytes_max)?;
        Ok(stream::insert_out(tx, &row)?)
    }

    fn row(&self, announced: &Announced<'_>) -> OutRow {
        let Announced { msg_id, sender, recipient, to, created_ms } = *announced;
        let manifest = &self.manifest;
        OutRow {
            stream_id: StreamId::from_bytes(manifest.stream_id),
            msg_id,
            sender,
            recipient,
            from: self.from.clone(),
            to: to.clone(),
            name: manifest.filename.clone(),
            content_type: manifest.content_type.clone(),
            nonce_prefix: manifest.nonce_prefix,
            chunk_size: manifest.chunk_size,
            size: self.size,
            sha256: self.sha256,
            source_path: self.source_path.clone(),
            state: TransferState::Waiting,
            reason: String::new(),
            acked_index: 0,
            limit_index: 0,
            created_ms,
            active_ms: created_ms,
        }
    }
}

/// Whether the pair and the sender have room for another stream.
pub(super) fn check_usage(
    tx: Tx<'_>,
    row: &OutRow,
    recipient: AgentId,
    to: &Slug,
    bytes_max: u64,
) -> Result<(), SendError> {
    let usage = stream::usage_out(tx, row.sender, recipient)?;
    if usage.pair >= STREAMS_OPEN_PER_PAIR_MAX {
        return Err(SendError::TransfersOpenTooMany { to: to.to_string(), limit: STREAMS_OPEN_PER_PAIR_MAX });
    }
    if usage.bytes.saturating_add(row.size) > bytes_max {
        return Err(SendError::SpoolFull { bytes: usage.bytes, limit: bytes_max });
    }
    Ok(())
}

/// What a manifest says of a file that is sent; how it stands is in the store.
pub(in crate::post) fn announced(manifest: &StreamManifest) -> FileInfo {
    FileInfo {
        stream_id: StreamId::from_bytes(manifest.stream_id),
        name: manifest.filename.clone(),
        content_type: manifest.content_type.clone(),
        size: Some(manifest.total_size.unwrap_or_default()),
        sha256: manifest.sha256,
        state: TransferState::Waiting,
        done: 0,
        path: None,
        reason: None,
    }
}
