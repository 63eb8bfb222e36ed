-- Permission requests that people are asked by notification channels.

CREATE TABLE permission_prompt (
    channel    TEXT NOT NULL,
    number     INTEGER NOT NULL REFERENCES permission (number) ON DELETE CASCADE,
    -- SHA-256 of what the two buttons carry.
    allow_hash BLOB NOT NULL,
    deny_hash  BLOB NOT NULL,
    -- The service's number of the message that asks; absent until it was sent.
    message_id INTEGER,
    PRIMARY KEY (channel, number)
) WITHOUT ROWID;
CREATE UNIQUE INDEX permission_prompt_allow ON permission_prompt (allow_hash);
CREATE UNIQUE INDEX permission_prompt_deny ON permission_prompt (deny_hash);
