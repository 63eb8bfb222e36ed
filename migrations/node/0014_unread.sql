-- What is held was never counted as unread: given back, it is not taken off.
DROP TRIGGER inbox_read;
CREATE TRIGGER inbox_read AFTER UPDATE OF read_ms ON inbox
    WHEN old.read_ms IS NULL AND new.read_ms IS NOT NULL AND old.cursor > 0 BEGIN
    UPDATE local_agent SET unread = unread - 1 WHERE agent_id = new.recipient;
END;
UPDATE local_agent SET unread = (SELECT count(*) FROM inbox WHERE recipient = agent_id AND read_ms IS NULL AND cursor > 0);
