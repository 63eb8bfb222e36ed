-- What is reached by a link: uploaded files, ports of nodes, pages about agents. The key of each is 128 random bits.

CREATE TABLE upload (
    key          BLOB PRIMARY KEY,
    workspace_id BLOB NOT NULL REFERENCES workspace (id),
    -- Empty for a program of nobody's.
    account      TEXT NOT NULL,
    filename     TEXT NOT NULL,
    -- With its dot, or empty.
    extension    TEXT NOT NULL,
    content_type TEXT NOT NULL,
    size_bytes   BIGINT NOT NULL,
    -- NULL until all of it is there.
    sha256       BLOB,
    expire_ms    BIGINT NOT NULL
);
CREATE INDEX upload_expiry ON upload (expire_ms);
CREATE INDEX upload_account ON upload (workspace_id, account);

CREATE TABLE tunnel (
    key          BLOB PRIMARY KEY,
    workspace_id BLOB NOT NULL REFERENCES workspace (id),
    node_id      BLOB NOT NULL REFERENCES node (id),
    agent_id     BLOB NOT NULL REFERENCES agent_run (agent_id),
    -- Of the agent: a later one has its own.
    incarnation  BIGINT NOT NULL,
    port         BIGINT NOT NULL
);
CREATE UNIQUE INDEX tunnel_port ON tunnel (agent_id, incarnation, port);

CREATE TABLE agent_link (
    key          BLOB PRIMARY KEY,
    workspace_id BLOB NOT NULL REFERENCES workspace (id),
    agent_id     BLOB NOT NULL REFERENCES agent_run (agent_id),
    expire_ms    BIGINT NOT NULL
);
CREATE INDEX agent_link_expiry ON agent_link (expire_ms);
