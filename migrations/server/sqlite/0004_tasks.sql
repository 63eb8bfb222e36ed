-- Checklists and queues. Ids are 16 raw bytes, times Unix milliseconds.

-- Items of checklists. Deleted ones stay as rows, so that they can be read and their numbers are not used again.
CREATE TABLE task (
    agent_id    BLOB NOT NULL REFERENCES agent_run (agent_id),
    -- From 1 in each checklist.
    number      BIGINT NOT NULL,
    subject     TEXT NOT NULL,
    details     TEXT NOT NULL,
    status      TEXT NOT NULL,
    -- A glob; empty for an item that never was dormant.
    pattern     TEXT NOT NULL,
    -- It waits for a changed file that fits the pattern.
    dormant     BOOLEAN NOT NULL,
    created_ms  BIGINT NOT NULL,
    updated_ms  BIGINT NOT NULL,
    -- Counts up from 1 with every change of the item, its edges included.
    rev         BIGINT NOT NULL,
    PRIMARY KEY (agent_id, number)
);
CREATE INDEX task_dormant ON task (agent_id) WHERE dormant AND status <> 'deleted';

-- `blocked` waits for `blocker`. A deleted item has no edges.
CREATE TABLE task_edge (
    agent_id BLOB NOT NULL,
    blocker  BIGINT NOT NULL,
    blocked  BIGINT NOT NULL,
    PRIMARY KEY (agent_id, blocker, blocked),
    FOREIGN KEY (agent_id, blocker) REFERENCES task (agent_id, number),
    FOREIGN KEY (agent_id, blocked) REFERENCES task (agent_id, number)
);
CREATE INDEX task_edge_blocked ON task_edge (agent_id, blocked);

-- Entries of queues, from their arrival until the runtime has taken the prompt of their turn, or until they are cleared.
CREATE TABLE follow_up (
    id          BLOB PRIMARY KEY,
    agent_id    BLOB NOT NULL REFERENCES agent_run (agent_id),
    -- The order of the queue.
    position    BIGINT NOT NULL,
    kind        TEXT NOT NULL,
    -- Slug of who gave it, or an account.
    sender      TEXT NOT NULL,
    description TEXT NOT NULL,
    -- Subjects of the items that joined the checklist with it, one a line.
    tasks       TEXT NOT NULL,
    created_ms  BIGINT NOT NULL,
    -- The turn that it was handed out with last; it waits unless that turn is open and holds it.
    turn_id     BLOB,
    redelivered BOOLEAN NOT NULL
);
CREATE UNIQUE INDEX follow_up_order ON follow_up (agent_id, position);

-- An agent's latest turn, and the last number that its queue gave.
CREATE TABLE turn (
    agent_id    BLOB PRIMARY KEY REFERENCES agent_run (agent_id),
    position    BIGINT NOT NULL,
    -- NULL before the first.
    id          BLOB,
    incarnation BIGINT NOT NULL,
    -- The lease; NULL once the turn's entries are done with.
    expire_ms   BIGINT
);
