-- Agents' lives, and what nodes are told to do about them. Messages of the contract (spec, output, orders) are stored as encoded there.

-- The life of an agent; the directory's row of the same id is its address. One that has no node yet has only this.
CREATE TABLE agent_run (
    agent_id            BLOB PRIMARY KEY,
    workspace_id        BLOB NOT NULL REFERENCES workspace (id),
    account             TEXT NOT NULL,
    slug                TEXT NOT NULL,
    parent_id           BLOB REFERENCES agent_run (agent_id),
    -- It registered itself: no process of ours.
    interactive         BOOLEAN NOT NULL,
    -- NULL until a node is chosen; kept for good then, since history and keys are there.
    node_id             BLOB REFERENCES node (id),
    -- The start order of this incarnation was written.
    placed              BOOLEAN NOT NULL,
    phase               TEXT NOT NULL,
    -- Counts up with every change of phase, for good.
    rev                 BIGINT NOT NULL,
    -- Counts up with every start.
    incarnation         BIGINT NOT NULL,
    reason              TEXT NOT NULL,
    -- As what DESTROYING ends; empty in any other phase.
    end_as              TEXT NOT NULL,
    end_reason          TEXT NOT NULL,
    spec                BLOB NOT NULL,
    fork_from           BLOB,
    current_description TEXT NOT NULL,
    progress            BLOB,
    output              BLOB,
    -- Where its events come from, as an UpdateAgentStatusRequest.
    repos               BLOB,
    stuck               BOOLEAN NOT NULL,
    turns               BIGINT NOT NULL,
    exit_code           BIGINT,
    timeline_seq        BIGINT NOT NULL,
    created_ms          BIGINT NOT NULL,
    phase_ms            BIGINT NOT NULL,
    -- When its budget of time is used up.
    deadline_ms         BIGINT,
    ended_ms            BIGINT,
    -- Of its latest change, for watchers.
    change              BIGINT NOT NULL
);
CREATE UNIQUE INDEX agent_run_live_slug ON agent_run (workspace_id, slug) WHERE ended_ms IS NULL;
CREATE INDEX agent_run_slug ON agent_run (workspace_id, slug, created_ms);
CREATE INDEX agent_run_changes ON agent_run (workspace_id, change);
CREATE INDEX agent_run_children ON agent_run (parent_id) WHERE ended_ms IS NULL;
CREATE INDEX agent_run_node ON agent_run (node_id) WHERE ended_ms IS NULL;
CREATE INDEX agent_run_account ON agent_run (workspace_id, account) WHERE ended_ms IS NULL;
CREATE INDEX agent_run_waiting ON agent_run (created_ms) WHERE placed = FALSE AND ended_ms IS NULL;
CREATE INDEX agent_run_deadline ON agent_run (deadline_ms) WHERE deadline_ms IS NOT NULL;

INSERT INTO counter (name, value) VALUES ('agent', 1);

-- Those that registered themselves before there were lives.
INSERT INTO agent_run (agent_id, workspace_id, account, slug, interactive, node_id, placed, phase, rev, incarnation, reason, end_as,
                       end_reason, spec, current_description, stuck, turns, timeline_seq, created_ms, phase_ms, ended_ms, change)
    SELECT id, workspace_id,
           substr(substr(slug, instr(slug, '/u/') + 3), 1, instr(substr(slug, instr(slug, '/u/') + 3), '/') - 1),
           slug, TRUE, node_id, TRUE, CASE WHEN ended_ms IS NULL THEN 'idle' ELSE 'completed' END, 1, 1, '', '', '', x'', '',
           FALSE, 0, 0, created_ms, coalesce(ended_ms, created_ms), ended_ms, 1
    FROM agent;

-- What happened to an agent, its newest thousand entries.
CREATE TABLE timeline (
    agent_id    BLOB NOT NULL REFERENCES agent_run (agent_id),
    seq         BIGINT NOT NULL,
    -- murmur.v1.TimelineKind by number.
    kind        BIGINT NOT NULL,
    at_ms       BIGINT NOT NULL,
    text        TEXT NOT NULL,
    phase       TEXT,
    incarnation BIGINT NOT NULL,
    PRIMARY KEY (agent_id, seq)
);

-- What a node can run, as it said last, and how many orders it ever got.
CREATE TABLE node_runtime (
    node_id    BLOB PRIMARY KEY REFERENCES node (id),
    -- ReportNodeRequest, without what runs.
    facts      BLOB NOT NULL,
    order_last BIGINT NOT NULL
);

-- What a node has still to do, until it reports that it did.
CREATE TABLE node_order (
    node_id     BLOB NOT NULL REFERENCES node (id),
    order_id    BIGINT NOT NULL,
    agent_id    BLOB NOT NULL REFERENCES agent_run (agent_id),
    incarnation BIGINT NOT NULL,
    kind        TEXT NOT NULL,
    -- Order.
    body        BLOB NOT NULL,
    created_ms  BIGINT NOT NULL,
    PRIMARY KEY (node_id, order_id)
);
CREATE INDEX node_order_agent ON node_order (agent_id);

-- What was answered under a key, for a day.
CREATE TABLE idempotency (
    -- Who called: an agent, an account of a workspace, a node.
    caller     BLOB NOT NULL,
    method     TEXT NOT NULL,
    key        TEXT NOT NULL,
    digest     BLOB NOT NULL,
    answer     BLOB NOT NULL,
    created_ms BIGINT NOT NULL,
    PRIMARY KEY (caller, method, key)
);
CREATE INDEX idempotency_age ON idempotency (created_ms);

-- Since when a node has had no session; NULL while it has one.
ALTER TABLE node ADD COLUMN offline_ms BIGINT;
UPDATE node SET offline_ms = coalesce(last_seen_ms, created_ms) WHERE session IS NULL;
