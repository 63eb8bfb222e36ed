-- The node's own database (PROTOCOL section 5.4). Ids are 16-byte blobs, times Unix milliseconds.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value BLOB NOT NULL
) WITHOUT ROWID;

-- === who lives here ===

CREATE TABLE local_agent (
    agent_id        BLOB PRIMARY KEY,
    slug            TEXT NOT NULL,
    kind            INTEGER NOT NULL,
    description     TEXT NOT NULL,
    group_name      TEXT NOT NULL,
    created_ms      INTEGER NOT NULL,
    deregistered_ms INTEGER,
    -- Unread inbox rows, kept by the triggers below so that nobody has to count.
    unread          INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE UNIQUE INDEX local_agent_slug ON local_agent (slug) WHERE deregistered_ms IS NULL;

CREATE TABLE agent_token (
    token_id   BLOB PRIMARY KEY,
    hash       BLOB NOT NULL,
    agent_id   BLOB NOT NULL,
    created_ms INTEGER NOT NULL,
    revoked_ms INTEGER
) WITHOUT ROWID;

-- === going out ===

CREATE TABLE outbox (
    msg_id          BLOB PRIMARY KEY,
    sender_agent    BLOB NOT NULL,
    conversation_id BLOB NOT NULL,
    sequence_epoch  INTEGER NOT NULL,
    sequence        INTEGER NOT NULL,
    kind            INTEGER NOT NULL,
    inner           BLOB NOT NULL,
    created_ms      INTEGER NOT NULL,
    ttl_seconds     INTEGER NOT NULL,
    traceparent     TEXT NOT NULL,
    -- The caller's idempotency key, and what it was used for.
    client_key      TEXT,
    content_digest  BLOB NOT NULL
) WITHOUT ROWID;
CREATE UNIQUE INDEX outbox_client_key ON outbox (sender_agent, client_key) WHERE client_key IS NOT NULL;
CREATE INDEX outbox_sender ON outbox (sender_agent, created_ms);
CREATE INDEX outbox_age ON outbox (created_ms);

CREATE TABLE sequence (
    sender_agent    BLOB NOT NULL,
    conversation_id BLOB NOT NULL,
    last            INTEGER NOT NULL,
    PRIMARY KEY (sender_agent, conversation_id)
) WITHOUT ROWID;

-- One recipient's share of a message; `state` is core::outbox's.
CREATE TABLE delivery (
    msg_id        BLOB NOT NULL,
    recipient     BLOB NOT NULL,
    sender_agent  BLOB NOT NULL,
    to_slug       TEXT NOT NULL,
    -- Of the message in its conversation: the order in which a lane is published.
    sequence      INTEGER NOT NULL,
    -- core::outbox::Row.
    state           TEXT NOT NULL,
    seal_attempt    INTEGER NOT NULL,
    publish_tries   INTEGER NOT NULL,
    republish_count INTEGER NOT NULL,
    backoff_prev_ms INTEGER NOT NULL,
    since_ms        INTEGER,
    next_at_ms      INTEGER,
    dead_cause      TEXT,
    dead_code       INTEGER,
    open          INTEGER NOT NULL,
    published     INTEGER NOT NULL,
    env_digest    BLOB,
    -- What the last answer said.
    code          TEXT,
    stale_prekey  INTEGER NOT NULL DEFAULT 0,
    fresh_prekey  BLOB,
    created_ms    INTEGER NOT NULL,
    expires_ms    INTEGER NOT NULL,
    delivered_ms  INTEGER,
    read_ms       INTEGER,
    PRIMARY KEY (msg_id, recipient)
) WITHOUT ROWID;
-- QUEUED, SEALED and STORED: what the driver loads when it starts.
CREATE INDEX delivery_open ON delivery (msg_id) WHERE open = 1;

-- Every sealed copy. The bytes go when no recipient needs them; the row stays for late acknowledgements.
CREATE TABLE copy (
    env_digest   BLOB PRIMARY KEY,
    msg_id       BLOB NOT NULL,
    recipient    BLOB NOT NULL,
    seal_attempt INTEGER NOT NULL,
    prekey_id    BLOB NOT NULL,
    env_bytes    BLOB
) WITHOUT ROWID;
CREATE INDEX copy_message ON copy (msg_id, recipient);

-- Under which random id a copy goes to a node; the newest row of a copy counts.
CREATE TABLE publication (
    env_digest  BLOB NOT NULL,
    route       TEXT NOT NULL,
    nats_msg_id TEXT NOT NULL,
    PRIMARY KEY (env_digest, route)
);

CREATE TABLE pending_request (
    msg_id       BLOB PRIMARY KEY,
    requester    BLOB NOT NULL,
    peer         BLOB NOT NULL,
    deadline_ms  INTEGER NOT NULL,
    reply_cursor INTEGER
) WITHOUT ROWID;
CREATE INDEX pending_request_pair ON pending_request (requester, peer) WHERE reply_cursor IS NULL;

CREATE TABLE dead_letter (
    msg_id    BLOB NOT NULL,
    recipient BLOB NOT NULL,
    reason    TEXT NOT NULL,
    at_ms     INTEGER NOT NULL,
    PRIMARY KEY (msg_id, recipient)
) WITHOUT ROWID;

-- === coming in ===

CREATE TABLE inbox (
    cursor          INTEGER PRIMARY KEY AUTOINCREMENT,
    sender_agent    BLOB NOT NULL,
    msg_id          BLOB NOT NULL,
    recipient       BLOB NOT NULL,
    env_digest      BLOB NOT NULL,
    inner_digest    BLOB NOT NULL,
    conversation_id BLOB NOT NULL,
    sequence_epoch  INTEGER NOT NULL,
    sequence        INTEGER NOT NULL,
    kind            INTEGER NOT NULL,
    from_slug       TEXT NOT NULL,
    to_slug         TEXT NOT NULL,
    tier            TEXT NOT NULL,
    content_type    TEXT NOT NULL,
    body            BLOB NOT NULL,
    in_reply_to     BLOB,
    deadline_ms     INTEGER,
    traceparent     TEXT NOT NULL,
    reply_route     TEXT,
    created_ms      INTEGER NOT NULL,
    received_ms     INTEGER NOT NULL,
    pushed_ms       INTEGER,
    read_ms         INTEGER
);
CREATE UNIQUE INDEX inbox_message ON inbox (recipient, msg_id, sender_agent);
CREATE INDEX inbox_order ON inbox (recipient, cursor);
CREATE INDEX inbox_unread ON inbox (recipient, cursor) WHERE read_ms IS NULL;
CREATE INDEX inbox_unpushed ON inbox (recipient, cursor) WHERE read_ms IS NULL AND pushed_ms IS NULL;
CREATE INDEX inbox_age ON inbox (received_ms);

CREATE TRIGGER inbox_arrived AFTER INSERT ON inbox WHEN new.read_ms IS NULL BEGIN
    UPDATE local_agent SET unread = unread + 1 WHERE agent_id = new.recipient;
END;
CREATE TRIGGER inbox_read AFTER UPDATE OF read_ms ON inbox WHEN old.read_ms IS NULL AND new.read_ms IS NOT NULL BEGIN
    UPDATE local_agent SET unread = unread - 1 WHERE agent_id = new.recipient;
END;
CREATE TRIGGER inbox_gone AFTER DELETE ON inbox WHEN old.read_ms IS NULL BEGIN
    UPDATE local_agent SET unread = unread - 1 WHERE agent_id = old.recipient;
END;

-- Acknowledgements that still have to leave.
CREATE TABLE ack_outbox (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    acker         BLOB NOT NULL,
    to_agent      BLOB NOT NULL,
    route         TEXT,
    msg_id        BLOB NOT NULL,
    env_digest    BLOB NOT NULL,
    status        INTEGER NOT NULL,
    code          INTEGER NOT NULL,
    retry_after_s INTEGER NOT NULL,
    created_ms    INTEGER NOT NULL
);

-- What could not be authenticated or read, kept for a person to look at.
CREATE TABLE quarantine (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    source     BLOB NOT NULL,
    subject    TEXT NOT NULL,
    bytes      BLOB NOT NULL,
    reason     TEXT NOT NULL,
    deliveries INTEGER NOT NULL,
    at_ms      INTEGER NOT NULL
);
CREATE INDEX quarantine_source ON quarantine (source, id);

CREATE TABLE attempt_guard (
    stream_seq INTEGER PRIMARY KEY,
    tries      INTEGER NOT NULL,
    last_ms    INTEGER NOT NULL
);
