-- A copy that the broker had no room for is sealed again as the same attempt: which copies came after the first is not told by the attempt.
ALTER TABLE copy ADD COLUMN is_later INTEGER NOT NULL DEFAULT 0;
UPDATE copy SET is_later = 1 WHERE NOT EXISTS (SELECT 1 FROM delivery d
    WHERE d.msg_id = copy.msg_id AND d.recipient = copy.recipient AND d.copy_id = copy.id);
DROP INDEX copy_later;
CREATE INDEX copy_later ON copy (msg_id, recipient) WHERE is_later = 1;
