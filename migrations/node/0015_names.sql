-- Further names under which a stored message was acknowledged, each that of another copy of it. Its sender may have heard of any of them,
-- so what takes the acknowledgement back is said of each.
CREATE TABLE inbox_name (
    sender_agent BLOB NOT NULL,
    msg_id BLOB NOT NULL,
    recipient BLOB NOT NULL,
    env_digest BLOB NOT NULL,
    PRIMARY KEY (sender_agent, msg_id, recipient, env_digest)
) WITHOUT ROWID;
CREATE TRIGGER inbox_name_gone AFTER DELETE ON inbox BEGIN
    DELETE FROM inbox_name WHERE sender_agent = OLD.sender_agent AND msg_id = OLD.msg_id AND recipient = OLD.recipient;
END;
