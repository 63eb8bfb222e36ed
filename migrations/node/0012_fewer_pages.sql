-- What a commit of one message costs is mostly the pages that it writes: every index that such a commit need not touch is one page less
-- on the way of a message.

-- === going out ===

-- A message is found by its sender and its id, which begins with its time: one index in place of two.
CREATE TABLE outbox_new (
    msg_id          BLOB NOT NULL,
    sender_agent    BLOB NOT NULL,
    conversation_id BLOB NOT NULL,
    sequence_epoch  INTEGER NOT NULL,
    sequence        INTEGER NOT NULL,
    kind            INTEGER NOT NULL,
    created_ms      INTEGER NOT NULL,
    ttl_seconds     INTEGER NOT NULL,
    traceparent     TEXT NOT NULL,
    -- The caller's idempotency key, and what it was used for.
    client_key      TEXT,
    content_digest  BLOB NOT NULL,
    inner           BLOB NOT NULL
);
INSERT INTO outbox_new SELECT msg_id, sender_agent, conversation_id, sequence_epoch, sequence, kind, created_ms, ttl_seconds, traceparent,
    client_key, content_digest, inner FROM outbox ORDER BY msg_id;
DROP TABLE outbox;
ALTER TABLE outbox_new RENAME TO outbox;
CREATE UNIQUE INDEX outbox_message ON outbox (sender_agent, msg_id);
CREATE UNIQUE INDEX outbox_client_key ON outbox (sender_agent, client_key) WHERE client_key IS NOT NULL;

-- Its order is that of delivery_lane, which has everything that is open as well.
DROP INDEX delivery_open;

-- The first copy of a delivery, while there is one, is known by its number: later ones, which few have, are looked for.
ALTER TABLE delivery ADD COLUMN copy_id INTEGER;
UPDATE delivery SET copy_id = (SELECT id FROM copy c WHERE c.msg_id = delivery.msg_id AND c.recipient = delivery.recipient
    AND c.seal_attempt = 0 ORDER BY id DESC LIMIT 1);
DROP INDEX copy_message;
CREATE INDEX copy_later ON copy (msg_id, recipient) WHERE seal_attempt > 0;

-- === coming in ===

-- Cursors are counted by what is there. Of what is deleted the highest is kept, since no cursor is given twice.
INSERT OR REPLACE INTO meta (key, value) SELECT 'inbox_last', seq FROM sqlite_sequence WHERE name = 'inbox';
CREATE TABLE inbox_new (
    -- Negative while it is not shown: it gets its place in the inbox when it is.
    cursor          INTEGER PRIMARY KEY,
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
    in_reply_to     BLOB,
    deadline_ms     INTEGER,
    traceparent     TEXT NOT NULL,
    reply_route     TEXT,
    created_ms      INTEGER NOT NULL,
    received_ms     INTEGER NOT NULL,
    pushed_ms       INTEGER,
    read_ms         INTEGER,
    -- The stream that it opened.
    stream_id       BLOB,
    -- What was sent before it is missing, and was waited for.
    gap             INTEGER NOT NULL DEFAULT 0,
    -- It is not shown before this, because its pair of agents is faster than its rate.
    not_before_ms   INTEGER,
    -- Until when it waits for messages that were sent before it.
    patience_ms     INTEGER,
    -- It was unread when its agent moved to another node: it went back to its sender, and counts as read without having been.
    given_back      INTEGER NOT NULL DEFAULT 0,
    -- Last, so that nothing has to be looked for behind a long one.
    body            BLOB NOT NULL
);
INSERT INTO inbox_new SELECT cursor, sender_agent, msg_id, recipient, env_digest, inner_digest, conversation_id, sequence_epoch, sequence,
    kind, from_slug, to_slug, tier, content_type, in_reply_to, deadline_ms, traceparent, reply_route, created_ms, received_ms, pushed_ms,
    read_ms, stream_id, gap, not_before_ms, patience_ms, given_back, body FROM inbox;
DROP TABLE inbox;
ALTER TABLE inbox_new RENAME TO inbox;
CREATE UNIQUE INDEX inbox_message ON inbox (recipient, msg_id, sender_agent);
-- One of the two has every row; what was read gets into the other when it is, with others.
CREATE INDEX inbox_unread ON inbox (recipient, cursor) WHERE read_ms IS NULL;
CREATE INDEX inbox_read_order ON inbox (recipient, cursor) WHERE read_ms IS NOT NULL;

-- What is held is not unread yet.
CREATE TRIGGER inbox_arrived AFTER INSERT ON inbox WHEN new.read_ms IS NULL AND new.cursor > 0 BEGIN
    UPDATE local_agent SET unread = unread + 1 WHERE agent_id = new.recipient;
END;
CREATE TRIGGER inbox_shown AFTER UPDATE OF cursor ON inbox WHEN old.cursor < 0 AND new.cursor > 0 AND new.read_ms IS NULL BEGIN
    UPDATE local_agent SET unread = unread + 1 WHERE agent_id = new.recipient;
END;
CREATE TRIGGER inbox_read AFTER UPDATE OF read_ms ON inbox WHEN old.read_ms IS NULL AND new.read_ms IS NOT NULL BEGIN
    UPDATE local_agent SET unread = unread - 1 WHERE agent_id = new.recipient;
END;
CREATE TRIGGER inbox_gone AFTER DELETE ON inbox WHEN old.read_ms IS NULL AND old.cursor > 0 BEGIN
    UPDATE local_agent SET unread = unread - 1 WHERE agent_id = old.recipient;
END;
CREATE TRIGGER inbox_newest_gone AFTER DELETE ON inbox WHEN old.cursor > max(coalesce((SELECT max(cursor) FROM inbox), 0), 0) BEGIN
    INSERT INTO meta (key, value) VALUES ('inbox_last', old.cursor) ON CONFLICT (key) DO UPDATE SET value = max(value, excluded.value);
END;

CREATE TABLE ack_outbox_new (
    id            INTEGER PRIMARY KEY,
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
INSERT INTO ack_outbox_new SELECT id, acker, to_agent, route, msg_id, env_digest, status, code, retry_after_s, created_ms FROM ack_outbox;
DROP TABLE ack_outbox;
ALTER TABLE ack_outbox_new RENAME TO ack_outbox;
