-- In which order, and when, what was received is shown (PROTOCOL section 5.7). A message that is stored and not shown yet has a negative
-- cursor; it gets its place in the inbox when it is shown.

ALTER TABLE inbox ADD COLUMN gap INTEGER NOT NULL DEFAULT 0;
-- It is not shown before this, because its pair of agents is faster than its rate.
ALTER TABLE inbox ADD COLUMN not_before_ms INTEGER;
-- Until when it waits for messages that were sent before it.
ALTER TABLE inbox ADD COLUMN patience_ms INTEGER;

-- Up to which sequence each conversation was shown, or refused for good.
CREATE TABLE shown (
    recipient       BLOB NOT NULL,
    sender_agent    BLOB NOT NULL,
    conversation_id BLOB NOT NULL,
    sequence_epoch  INTEGER NOT NULL,
    last            INTEGER NOT NULL,
    PRIMARY KEY (recipient, sender_agent, conversation_id, sequence_epoch)
) WITHOUT ROWID;
INSERT INTO shown SELECT recipient, sender_agent, conversation_id, sequence_epoch, max(sequence) FROM inbox GROUP BY 1, 2, 3, 4;

-- What is held is not unread yet.
DROP TRIGGER inbox_arrived;
CREATE TRIGGER inbox_arrived AFTER INSERT ON inbox WHEN new.read_ms IS NULL AND new.cursor > 0 BEGIN
    UPDATE local_agent SET unread = unread + 1 WHERE agent_id = new.recipient;
END;
CREATE TRIGGER inbox_shown AFTER UPDATE OF cursor ON inbox WHEN old.cursor < 0 AND new.cursor > 0 AND new.read_ms IS NULL BEGIN
    UPDATE local_agent SET unread = unread + 1 WHERE agent_id = new.recipient;
END;
DROP TRIGGER inbox_gone;
CREATE TRIGGER inbox_gone AFTER DELETE ON inbox WHEN old.read_ms IS NULL AND old.cursor > 0 BEGIN
    UPDATE local_agent SET unread = unread - 1 WHERE agent_id = old.recipient;
END;
