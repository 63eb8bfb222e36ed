-- Sources of webhooks, what they sent, and the pull requests that they told of.

CREATE TABLE webhook (
    id           BLOB PRIMARY KEY,
    workspace_id BLOB NOT NULL REFERENCES workspace (id),
    name         TEXT NOT NULL,
    kind         TEXT NOT NULL,
    -- What and whom it lets through, one a line.
    repos        TEXT NOT NULL,
    events       TEXT NOT NULL,
    actors       TEXT NOT NULL,
    created_ms   BIGINT NOT NULL,
    UNIQUE (workspace_id, name)
);

-- At most two that are good. Sealed under a key that is not in the database: a copy of it forges nothing.
CREATE TABLE webhook_secret (
    webhook_id BLOB NOT NULL REFERENCES webhook (id) ON DELETE CASCADE,
    -- Counts up with every rotation.
    number     BIGINT NOT NULL,
    sealed     BLOB NOT NULL,
    -- NULL: the present one.
    expire_ms  BIGINT,
    PRIMARY KEY (webhook_id, number)
);

-- What came in and was authentic, for 7 days. A repeat is known by its digest, whatever its headers say.
CREATE TABLE webhook_delivery (
    webhook_id  BLOB NOT NULL REFERENCES webhook (id) ON DELETE CASCADE,
    -- Of what the signature covers.
    digest      BLOB NOT NULL,
    delivery    TEXT NOT NULL,
    event       TEXT NOT NULL,
    outcome     TEXT NOT NULL,
    detail      TEXT NOT NULL,
    agents      BIGINT NOT NULL,
    received_ms BIGINT NOT NULL,
    PRIMARY KEY (webhook_id, digest)
);
CREATE INDEX webhook_delivery_newest ON webhook_delivery (webhook_id, received_ms);
CREATE INDEX webhook_delivery_age ON webhook_delivery (received_ms);

-- Which branch a pull request is of, and whether it is settled.
CREATE TABLE pull_request (
    workspace_id BLOB NOT NULL REFERENCES workspace (id),
    -- As murmur_core::event::RepoName writes it.
    repo         TEXT NOT NULL,
    number       BIGINT NOT NULL,
    -- Empty for one of a fork.
    branch       TEXT NOT NULL,
    -- open, closed or merged.
    state        TEXT NOT NULL,
    url          TEXT NOT NULL,
    updated_ms   BIGINT NOT NULL,
    PRIMARY KEY (workspace_id, repo, number)
);
