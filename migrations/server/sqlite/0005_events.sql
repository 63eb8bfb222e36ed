-- Events around agents. Ids of agents, nodes and workspaces are 16 raw bytes, times Unix milliseconds.

-- Counts up over all events; taken inside the transaction that adds one, so that order of position is order of commit.
INSERT INTO counter (name, value) VALUES ('event', 0);

-- How far an agent's log has come.
CREATE TABLE event_log (
    agent_id BLOB PRIMARY KEY REFERENCES agent_run (agent_id),
    -- The last number that was given.
    seq      BIGINT NOT NULL,
    -- Rows that are there.
    kept     BIGINT NOT NULL,
    -- How many that said something are gone.
    dropped  BIGINT NOT NULL
);

CREATE TABLE event (
    agent_id      BLOB NOT NULL REFERENCES agent_run (agent_id),
    -- From 1 in each log.
    seq           BIGINT NOT NULL,
    -- Over all events.
    position      BIGINT NOT NULL,
    -- Where it is told, and where in that node's order; NULL until the agent has a node.
    node_id       BLOB,
    node_position BIGINT,
    workspace_id  BLOB NOT NULL REFERENCES workspace (id),
    event_id      TEXT NOT NULL,
    kind          TEXT NOT NULL,
    time_ms       BIGINT NOT NULL,
    receive_ms    BIGINT NOT NULL,
    origin        TEXT NOT NULL,
    untrusted     BOOLEAN NOT NULL,
    -- JSON: names and values.
    attributes    TEXT NOT NULL,
    text          TEXT NOT NULL,
    -- What it is about, to filter by; empty and 0 for nothing.
    repo          TEXT NOT NULL,
    branch        TEXT NOT NULL,
    pr            BIGINT NOT NULL,
    -- A newer one with the same key takes its place; NULL for one that stands beside all others.
    supersede_key TEXT,
    superseded    BOOLEAN NOT NULL,
    withheld      BOOLEAN NOT NULL,
    queued        BOOLEAN NOT NULL,
    PRIMARY KEY (agent_id, seq)
);
CREATE UNIQUE INDEX event_once ON event (agent_id, event_id);
CREATE UNIQUE INDEX event_order ON event (workspace_id, position);
CREATE UNIQUE INDEX event_of_node ON event (node_id, node_position) WHERE node_id IS NOT NULL;
CREATE INDEX event_homeless ON event (agent_id) WHERE node_id IS NULL;
CREATE INDEX event_current ON event (agent_id, supersede_key) WHERE supersede_key IS NOT NULL AND superseded = FALSE;
CREATE INDEX event_spare ON event (agent_id, seq) WHERE superseded = TRUE;
CREATE INDEX event_age ON event (receive_ms) WHERE kind <> 'gap';

-- Where an agent's events come from.
CREATE TABLE agent_repo (
    agent_id     BLOB NOT NULL REFERENCES agent_run (agent_id),
    workspace_id BLOB NOT NULL REFERENCES workspace (id),
    -- As murmur_core::event::RepoName writes it.
    repo         TEXT NOT NULL,
    -- Empty with pr 0: the whole repository.
    branch       TEXT NOT NULL,
    -- 0: none.
    pr           BIGINT NOT NULL,
    -- spawn, status, node or event: each replaces its own.
    source       TEXT NOT NULL,
    -- A pull request that was closed or merged.
    resolved     BOOLEAN NOT NULL,
    PRIMARY KEY (agent_id, repo, branch, pr, source)
);
CREATE INDEX agent_repo_target ON agent_repo (workspace_id, repo);

-- What an agent's working copy has changed against where it began, as its node told last.
CREATE TABLE agent_copy (
    agent_id  BLOB NOT NULL REFERENCES agent_run (agent_id),
    repo      TEXT NOT NULL,
    branch    TEXT NOT NULL,
    base_sha  TEXT NOT NULL,
    head_sha  TEXT NOT NULL,
    -- Paths from the repository's root, one a line.
    files     TEXT NOT NULL,
    PRIMARY KEY (agent_id, repo)
);

-- What an entry of a queue was made from, for a newer event to take its place.
ALTER TABLE follow_up ADD COLUMN event_key TEXT;
