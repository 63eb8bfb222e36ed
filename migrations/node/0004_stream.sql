-- Chunk streams: files on their way (PROTOCOL section 4.6). Bytes are in files beside the database; what is here survives a restart.

CREATE TABLE stream_out (
    stream_id    BLOB PRIMARY KEY,
    msg_id       BLOB NOT NULL,
    sender_agent BLOB NOT NULL,
    recipient    BLOB NOT NULL,
    from_slug    TEXT NOT NULL,
    to_slug      TEXT NOT NULL,
    name         TEXT NOT NULL,
    content_type TEXT NOT NULL,
    nonce_prefix BLOB NOT NULL,
    chunk_size   INTEGER NOT NULL,
    -- Of the copy that is sent; 0 for an empty file.
    size         INTEGER NOT NULL,
    sha256       BLOB NOT NULL,
    -- Where the file was when it was sent, for people.
    source_path  TEXT NOT NULL,
    -- 1 waiting, 2 active, 3 stalled, 4 done, 5 cancelled, 6 failed.
    state        INTEGER NOT NULL,
    reason       TEXT NOT NULL DEFAULT '',
    -- What the recipient is known to have, and how far it allowed.
    acked_index  INTEGER NOT NULL DEFAULT 0,
    limit_index  INTEGER NOT NULL DEFAULT 0,
    created_ms   INTEGER NOT NULL,
    active_ms    INTEGER NOT NULL,
    -- The end was told to the other side, or came from it.
    told         INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE UNIQUE INDEX stream_out_message ON stream_out (msg_id);
CREATE INDEX stream_out_agent ON stream_out (sender_agent, created_ms);
CREATE INDEX stream_out_live ON stream_out (stream_id) WHERE state <= 3 OR told = 0;

CREATE TABLE stream_in (
    stream_id    BLOB PRIMARY KEY,
    msg_id       BLOB NOT NULL,
    sender_agent BLOB NOT NULL,
    recipient    BLOB NOT NULL,
    from_slug    TEXT NOT NULL,
    to_slug      TEXT NOT NULL,
    -- The only node whose chunks are looked at.
    source_node  BLOB NOT NULL,
    reply_route  TEXT,
    -- Cleaned: what the file is called here.
    name         TEXT NOT NULL,
    content_type TEXT NOT NULL,
    nonce_prefix BLOB NOT NULL,
    chunk_size   INTEGER NOT NULL,
    total_size   INTEGER,
    sha256       BLOB,
    -- Below the folder of files; decided once, so that a crash between rename and commit is recognised.
    path         TEXT NOT NULL,
    state        INTEGER NOT NULL,
    reason       TEXT NOT NULL DEFAULT '',
    -- Chunks that are safe on the disk.
    synced_index INTEGER NOT NULL DEFAULT 0,
    size         INTEGER NOT NULL DEFAULT 0,
    created_ms   INTEGER NOT NULL,
    active_ms    INTEGER NOT NULL,
    told         INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX stream_in_agent ON stream_in (recipient, created_ms);
CREATE INDEX stream_in_message ON stream_in (msg_id);
CREATE INDEX stream_in_live ON stream_in (stream_id) WHERE state <= 3 OR told = 0;

-- The stream key of every sealed copy of the message that opens a stream, until the stream has ended. `direction` 1 in, 2 out.
CREATE TABLE stream_key (
    direction  INTEGER NOT NULL,
    stream_id  BLOB NOT NULL,
    env_digest BLOB NOT NULL,
    key        BLOB NOT NULL,
    route      TEXT,
    PRIMARY KEY (direction, stream_id, env_digest)
) WITHOUT ROWID;

-- The stream that a received message opened.
ALTER TABLE inbox ADD COLUMN stream_id BLOB;
