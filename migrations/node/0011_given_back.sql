-- What an agent had not read here when it moved to another node: it went back to its sender, and counts as read without having been.
ALTER TABLE inbox ADD COLUMN given_back INTEGER NOT NULL DEFAULT 0;
