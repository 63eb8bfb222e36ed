-- Ends that no node saw, told to the people of an account by its nodes: they stand in no agent's log. Ids are 16 raw bytes.
CREATE TABLE node_event (
    node_id       BLOB NOT NULL,
    -- In the node's order, beside the events of its agents.
    node_position BIGINT NOT NULL,
    workspace_id  BLOB NOT NULL REFERENCES workspace (id),
    -- Of whom it tells.
    agent_id      BLOB NOT NULL,
    slug          TEXT NOT NULL,
    event_id      TEXT NOT NULL,
    kind          TEXT NOT NULL,
    time_ms       BIGINT NOT NULL,
    -- JSON: names and values.
    attributes    TEXT NOT NULL,
    text          TEXT NOT NULL,
    PRIMARY KEY (node_id, node_position)
);
CREATE INDEX node_event_age ON node_event (time_ms);
