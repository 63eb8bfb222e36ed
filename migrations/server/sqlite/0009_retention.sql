-- What is let go some time after it ended.

-- What is still told of agents whose rows are gone.
CREATE TABLE agent_pruned (
    agent_id     BLOB PRIMARY KEY,
    workspace_id BLOB NOT NULL REFERENCES workspace (id),
    slug         TEXT NOT NULL,
    phase        TEXT NOT NULL,
    ended_ms     BIGINT NOT NULL,
    pruned_ms    BIGINT NOT NULL
);
CREATE INDEX agent_pruned_slug ON agent_pruned (workspace_id, slug, ended_ms);
CREATE INDEX agent_pruned_age ON agent_pruned (pruned_ms);

CREATE INDEX agent_run_ended ON agent_run (ended_ms) WHERE ended_ms IS NOT NULL;
-- Rows that hold another one, whether they live or not.
CREATE INDEX agent_run_parent ON agent_run (parent_id) WHERE parent_id IS NOT NULL;
CREATE INDEX agent_run_fork ON agent_run (fork_from) WHERE fork_from IS NOT NULL AND ended_ms IS NULL;
CREATE INDEX token_of_agent ON token (agent_id) WHERE agent_id IS NOT NULL;

-- Whose file it is; NULL for a person's.
ALTER TABLE upload ADD COLUMN agent_id BLOB;
CREATE INDEX upload_of_agent ON upload (agent_id) WHERE agent_id IS NOT NULL;

-- A watch of the directory from before this revision begins anew: ends that it has not heard of are not told any more.
INSERT INTO counter (name, value) VALUES ('directory_pruned', 0);
