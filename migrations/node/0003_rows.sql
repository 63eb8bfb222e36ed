-- Rows with a body go into ordinary tables: a table WITHOUT ROWID is an index, which puts every body on an overflow page of its own. A
-- copy and its publication become one row, found by its message: what names a copy always names the message, too.

DROP INDEX outbox_client_key;
DROP INDEX outbox_sender;
DROP INDEX outbox_age;
ALTER TABLE outbox RENAME TO outbox_old;
CREATE TABLE outbox (
    msg_id          BLOB NOT NULL PRIMARY KEY,
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
);
INSERT INTO outbox SELECT msg_id, sender_agent, conversation_id, sequence_epoch, sequence, kind, inner, created_ms, ttl_seconds,
    traceparent, client_key, content_digest FROM outbox_old ORDER BY msg_id;
DROP TABLE outbox_old;
CREATE UNIQUE INDEX outbox_client_key ON outbox (sender_agent, client_key) WHERE client_key IS NOT NULL;
CREATE INDEX outbox_sender ON outbox (sender_agent, created_ms);

DROP INDEX copy_message;
ALTER TABLE copy RENAME TO copy_old;
-- Every sealed copy of a message that has not ended, and under which random id it goes to the recipient's node. A copy that no recipient
-- needs any more loses its bytes; one whose name stands in its delivery goes altogether.
CREATE TABLE copy (
    id           INTEGER PRIMARY KEY,
    msg_id       BLOB NOT NULL,
    recipient    BLOB NOT NULL,
    env_digest   BLOB NOT NULL,
    seal_attempt INTEGER NOT NULL,
    prekey_id    BLOB NOT NULL,
    route        TEXT NOT NULL,
    nats_msg_id  TEXT NOT NULL,
    env_bytes    BLOB
);
INSERT INTO copy (msg_id, recipient, env_digest, seal_attempt, prekey_id, route, nats_msg_id, env_bytes)
    SELECT msg_id, recipient, env_digest, seal_attempt, prekey_id, route, nats_msg_id, env_bytes
    FROM copy_old JOIN publication USING (env_digest) GROUP BY env_digest ORDER BY msg_id, seal_attempt;
DROP TABLE copy_old;
DROP TABLE publication;
CREATE INDEX copy_message ON copy (msg_id, recipient);

-- Replies that were held back for a waiter are remembered by the session's own node process.
DROP INDEX inbox_unpushed;
