-- The owner's word on which certificates do not count any more: the newest list of each workspace, whole, as it was signed.
CREATE TABLE revocation_list (
    workspace_id BLOB PRIMARY KEY REFERENCES workspace (id),
    version      BIGINT NOT NULL,
    -- Serialized SignedStatement.
    list         BLOB NOT NULL
);
