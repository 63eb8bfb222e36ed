-- The control plane's tables. Ids are 16 raw bytes, times Unix milliseconds, keys and certificates the bytes as signed.

-- Facts about the database itself, such as its epoch.
CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
);

-- Counts up with every change that watchers see; taken inside the changing transaction, so that order of revision is order of commit.
CREATE TABLE counter (
    name  TEXT PRIMARY KEY,
    value BIGINT NOT NULL
);
INSERT INTO counter (name, value) VALUES ('directory', 0);

CREATE TABLE workspace (
    id               BLOB PRIMARY KEY,
    name             TEXT NOT NULL UNIQUE,
    mode             TEXT NOT NULL,
    root_certificate BLOB NOT NULL,
    created_ms       BIGINT NOT NULL
);

CREATE TABLE account (
    workspace_id BLOB NOT NULL REFERENCES workspace (id),
    name         TEXT NOT NULL,
    created_ms   BIGINT NOT NULL,
    PRIMARY KEY (workspace_id, name)
);

CREATE TABLE invite (
    id           BLOB PRIMARY KEY,
    workspace_id BLOB NOT NULL REFERENCES workspace (id),
    secret_hash  BLOB NOT NULL UNIQUE,
    account      TEXT NOT NULL,
    -- Slug prefixes, one a line.
    slug_scope   TEXT NOT NULL,
    uses         BIGINT NOT NULL,
    uses_max     BIGINT NOT NULL,
    created_ms   BIGINT NOT NULL,
    expire_ms    BIGINT NOT NULL
);

CREATE TABLE node (
    id                BLOB PRIMARY KEY,
    workspace_id      BLOB NOT NULL REFERENCES workspace (id),
    invite_id         BLOB NOT NULL REFERENCES invite (id),
    name              TEXT NOT NULL,
    account           TEXT NOT NULL,
    state             TEXT NOT NULL,
    public_key        BLOB NOT NULL,
    broker_public_key TEXT NOT NULL,
    certificate       BLOB,
    serial            BIGINT NOT NULL,
    slug_scope        TEXT NOT NULL,
    version           TEXT NOT NULL,
    -- The live session, whose end clears it; NULL is offline.
    session           BLOB,
    route             TEXT NOT NULL,
    created_ms        BIGINT NOT NULL,
    last_seen_ms      BIGINT,
    revision          BIGINT NOT NULL,
    UNIQUE (workspace_id, public_key)
);
CREATE INDEX node_changes ON node (workspace_id, revision);

CREATE TABLE agent (
    id           BLOB PRIMARY KEY,
    workspace_id BLOB NOT NULL REFERENCES workspace (id),
    slug         TEXT NOT NULL,
    node_id      BLOB NOT NULL REFERENCES node (id),
    kind         TEXT NOT NULL,
    description  TEXT NOT NULL,
    group_name   TEXT NOT NULL,
    attached     BOOLEAN NOT NULL,
    created_ms   BIGINT NOT NULL,
    -- Set when it ended; the row stays, so that a watcher who was away learns of the end.
    ended_ms     BIGINT,
    revision     BIGINT NOT NULL
);
CREATE UNIQUE INDEX agent_live_slug ON agent (workspace_id, slug) WHERE ended_ms IS NULL;
CREATE INDEX agent_changes ON agent (workspace_id, revision);
CREATE INDEX agent_of_node ON agent (workspace_id, node_id);

-- The public half of an agent's keys, and how far serial and sequence have come.
CREATE TABLE agent_key (
    agent_id     BLOB PRIMARY KEY REFERENCES agent (id),
    workspace_id BLOB NOT NULL REFERENCES workspace (id),
    chain        BLOB NOT NULL,
    prekey       BLOB NOT NULL,
    certificate_fp BLOB NOT NULL,
    serial       BIGINT NOT NULL,
    prekey_seq   BIGINT NOT NULL
);

CREATE TABLE token (
    id           BLOB PRIMARY KEY,
    -- NULL for an administrator of all workspaces.
    workspace_id BLOB REFERENCES workspace (id),
    kind         TEXT NOT NULL,
    secret_hash  BLOB NOT NULL,
    account      TEXT NOT NULL,
    node_id      BLOB REFERENCES node (id),
    agent_id     BLOB REFERENCES agent (id),
    -- Names of scopes, one a line.
    scopes       TEXT NOT NULL,
    -- Empty: everywhere.
    slug_prefix  TEXT NOT NULL,
    parent_id    BLOB REFERENCES token (id),
    label        TEXT NOT NULL,
    created_ms   BIGINT NOT NULL,
    expire_ms    BIGINT,
    revoked_ms   BIGINT
);
CREATE INDEX token_of_workspace ON token (workspace_id, id);
CREATE INDEX token_children ON token (parent_id);
