-- What happened around the agents of this node, as the control plane told it, and what the node itself has to tell them.

CREATE TABLE event (
    -- In the order in which they came here.
    cursor      INTEGER PRIMARY KEY AUTOINCREMENT,
    agent_id    BLOB NOT NULL,
    event_id    TEXT NOT NULL,
    kind        TEXT NOT NULL,
    -- What it is about, where a newer one about the same takes its place.
    subject     TEXT,
    superseded  INTEGER NOT NULL DEFAULT 0,
    received_ms INTEGER NOT NULL,
    read_ms     INTEGER,
    -- murmur.v1.Event
    event       BLOB NOT NULL,
    UNIQUE (agent_id, event_id)
);
CREATE INDEX event_agent ON event (agent_id, cursor);
CREATE INDEX event_subject ON event (agent_id, subject) WHERE subject IS NOT NULL AND superseded = 0;
CREATE INDEX event_unread ON event (agent_id, cursor) WHERE read_ms IS NULL AND superseded = 0;

-- How far an agent's sessions have come.
CREATE TABLE event_reader (
    agent_id BLOB PRIMARY KEY,
    -- The cursor of the last event that a session wrote to its program.
    told     INTEGER NOT NULL DEFAULT 0,
    -- Events that were dropped before anybody was told of them.
    lost     INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;

-- Tool calls that wait for somebody's approval, and how they were answered.
CREATE TABLE permission (
    number        INTEGER PRIMARY KEY AUTOINCREMENT,
    request_id    TEXT NOT NULL,
    agent_id      BLOB NOT NULL,
    slug          TEXT NOT NULL,
    -- Which run of the agent's program asks: no other one knows the request.
    instance      TEXT NOT NULL,
    tool_name     TEXT NOT NULL,
    description   TEXT NOT NULL,
    input_preview TEXT NOT NULL,
    asked_ms      INTEGER NOT NULL,
    expires_ms    INTEGER NOT NULL,
    -- 1 allowed, 0 denied, absent while it is open.
    allowed       INTEGER,
    answered_by   TEXT,
    answered_ms   INTEGER,
    withdrawn_ms  INTEGER,
    -- The answer was written to the program.
    told_ms       INTEGER,
    UNIQUE (agent_id, instance, request_id)
);
CREATE INDEX permission_id ON permission (request_id);
CREATE INDEX permission_open ON permission (agent_id) WHERE answered_ms IS NULL AND withdrawn_ms IS NULL;
CREATE INDEX permission_untold ON permission (agent_id) WHERE answered_ms IS NOT NULL AND told_ms IS NULL;

-- Requests by message to agents of other hosts that may answer.
CREATE TABLE permission_relay (
    msg_id BLOB PRIMARY KEY,
    number INTEGER NOT NULL REFERENCES permission (number) ON DELETE CASCADE
) WITHOUT ROWID;
