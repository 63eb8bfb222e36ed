//! The message that opens a stream, at the recipient: whether the stream may come, and its row.

use std::path::Path;

use murmur_core::{code::Code, id::StreamId, limits::STREAMS_OPEN_PER_PAIR_MAX};
use murmur_crypto::{chunk::StreamKey, header::Header, inner::StreamManifest};

use super::source::clean_name;
use crate::{
    post::Post,
    store::{
        StoreError, Tx,
        inbox::InboxMessage,
        stream::{self, End, InRow, KeyRow},
        transfer::{FileInfo, TransferState},
    },
};

/// How long a sender is asked to wait when there is no room.
const LATER_S: u32 = 60;

/// A stream that a message opens, before its transaction.
#[derive(Debug, Clone)]
pub(in crate::post) struct Opening {
    row: InRow,
    /// Where the file goes when another stream's message has the same id.
    apart: String,
    key: Key,
    spool_bytes_max: u64,
}

/// A key that no log shows.
#[derive(Clone)]
struct Key([u8; 64]);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.0);
    }
}

/// Why a stream may not come (now).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::post) struct Refusing {
    pub(in crate::post) code: Code,
    pub(in crate::post) retry_after_s: u32,
}

const fn for_good(code: Code) -> Refusing {
    Refusing { code, retry_after_s: 0 }
}

const fn for_now(code: Code) -> Refusing {
    Refusing { code, retry_after_s: LATER_S }
}

impl Post {
    /// Judges what a manifest announces, and prepares the stream.
    pub(in crate::post) fn opening(
        &self,
        header: &Header,
        message: &InboxMessage,
        manifest: &StreamManifest,
        key: &StreamKey,
    ) -> Result<Opening, Refusing> {
        let config = &self.config.streams;
        if manifest.total_size.is_some_and(|size| size > config.bytes_max) {
            return Err(for_good(Code::StreamTooLarge));
        }
        let spool = &self.streams.spool;
        if spool.prepare().is_err() || !spool.has_room(manifest.total_size.unwrap_or_default()) {
            // It comes again, and finds what room can be made.
            self.tasks.spawn(self.make_room());
            return Err(for_now(Code::StorageFull));
        }
        let stream_id = StreamId::from_bytes(manifest.stream_id);
        let name = clean_name(&manifest.filename);
        let path = |apart| spool.received(message.msg_id, apart, &name).display().to_string();
        let row = InRow {
            stream_id,
            msg_id: message.msg_id,
            sender: message.from_agent_id,
            recipient: header.recipients.first().copied().ok_or(for_good(Code::NotAddressed))?,
            from: message.from.clone(),
            to: message.to.clone(),
            source_node: header.sender_node_id,
            reply_route: header.reply_route.as_deref().and_then(|text| text.parse().ok()),
            path: path(None),
            name: name.clone(),
            content_type: manifest.content_type.clone(),
            nonce_prefix: manifest.nonce_prefix,
            chunk_size: manifest.chunk_size,
            total_size: manifest.total_size,
            sha256: manifest.sha256,
            state: TransferState::Active,
            reason: String::new(),
            synced_index: 0,
            size: 0,
            created_ms: message.received_ms,
            active_ms: message.received_ms,
        };
        let apart = path(Some(stream_id));
        // Left by a message that was forgotten since: nothing that came is ever overwritten.
        let row = if Path::new(&row.path).exists() { InRow { path: apart.clone(), ..row } } else { row };
        Ok(Opening { row, apart, key: Key(*key.to_bytes()), spool_bytes_max: config.spool_bytes_max })
    }
}

impl Opening {
    /// The stream's row.
    pub(in crate::post) const fn row(&self) -> &InRow {
        &self.row
    }

    /// The file, as the message shows it.
    pub(in crate::post) fn file(&self) -> FileInfo {
        let row = &self.row;
        FileInfo {
            stream_id: row.stream_id,
            name: row.name.clone(),
            content_type: row.content_type.clone(),
            size: row.total_size,
            sha256: row.sha256,
            state: row.state,
            done: row.size,
            path: None,
            reason: None,
        }
    }

    /// Adds row and key, within the limits of the pair and of the recipient. The outer error is the store's.
    pub(in crate::post) fn insert(
        &mut self,
        tx: Tx<'_>,
        env_digest: [u8; 32],
    ) -> Result<Result<(), Refusing>, StoreError> {
        let usage = stream::usage_in(tx, self.row.recipient, self.row.sender)?;
        if usage.pair >= STREAMS_OPEN_PER_PAIR_MAX {
            return Ok(Err(for_now(Code::RateLimited)));
        }
        if usage.bytes.saturating_add(self.row.total_size.unwrap_or_default()) > self.spool_bytes_max {
            return Ok(Err(for_now(Code::StorageFull)));
        }
        if stream::is_message_known(tx, self.row.msg_id)? {
            self.row.path.clone_from(&self.apart);
        }
        if !stream::insert_in(tx, &self.row)? {
            return Ok(Err(for_good(Code::MsgIdConflict)));
        }
        self.save_key(tx, env_digest)?;
        Ok(Ok(()))
    }

    /// Keeps the key of another copy of a message that is known: chunks may come under either.
    pub(in crate::post) fn save_key(&self, tx: Tx<'_>, env_digest: [u8; 32]) -> Result<(), StoreError> {
        let row = KeyRow { env_digest, key: zeroize::Zeroizing::new(self.key.0), route: None };
        match stream::incoming(tx, self.row.stream_id)? {
            Some(known) if known.state.is_open() && known.sender == self.row.sender => {
                stream::save_key(tx, End::In, self.row.stream_id, &row)
            }
            _ => Ok(()),
        }
    }
}
