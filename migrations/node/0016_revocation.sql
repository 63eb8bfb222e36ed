-- One row: the owner's newest list of certificates that do not count any more, whole, as it was signed (PROTOCOL section 3.6).
CREATE TABLE revocation_list (
    id      INTEGER PRIMARY KEY CHECK (id = 1),
    version INTEGER NOT NULL,
    list    BLOB NOT NULL
);
