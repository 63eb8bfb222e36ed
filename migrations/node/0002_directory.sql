-- The node's copy of the workspace's directory, and what was seen of certificates (PROTOCOL section 3.4).

CREATE TABLE directory_peer (
    agent_id    BLOB PRIMARY KEY,
    slug        TEXT NOT NULL,
    node_id     BLOB NOT NULL,
    kind        INTEGER NOT NULL,
    description TEXT NOT NULL,
    group_name  TEXT NOT NULL,
    host        TEXT NOT NULL,
    attached    INTEGER NOT NULL,
    route       TEXT,
    chain       BLOB,
    prekey      BLOB,
    revision    INTEGER NOT NULL,
    created_ms  INTEGER NOT NULL
) WITHOUT ROWID;

-- Nodes that were connected when the control plane last said so. A resumed watch repeats only what changed.
CREATE TABLE directory_online (
    node_id BLOB PRIMARY KEY
) WITHOUT ROWID;

-- One row: where the watch goes on, and when the control plane last confirmed the copy.
CREATE TABLE directory_state (
    id           INTEGER PRIMARY KEY CHECK (id = 1),
    resume_token TEXT,
    confirmed_ms INTEGER
);
INSERT INTO directory_state (id) VALUES (1);

-- `kind` 1 to 4 is a certificate's kind and `subject` its subject id; kind 0 is a prekey sequence and `subject` the
-- certificate's fingerprint.
CREATE TABLE trust_floor (
    kind    INTEGER NOT NULL,
    subject BLOB NOT NULL,
    value   INTEGER NOT NULL,
    cert_fp BLOB NOT NULL,
    PRIMARY KEY (kind, subject)
) WITHOUT ROWID;
