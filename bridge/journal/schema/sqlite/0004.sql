-- Sealed evidence: blocks over the events, the segments that old blocks were moved to, and what names this journal.

-- journal = its random id; sealed = the last event that a block holds; restored = where a restored journal came from.
CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;
INSERT INTO meta (name, value) VALUES ('journal', lower(hex(randomblob(16)))), ('sealed', '0');

CREATE TABLE blocks (
    participant TEXT NOT NULL,
    number INTEGER NOT NULL,        -- from 1, without holes
    previous BLOB NOT NULL,         -- the hash of the block before; empty for the first
    root BLOB NOT NULL,             -- Merkle root over its events
    hash BLOB NOT NULL,
    events INTEGER NOT NULL,
    ranges TEXT NOT NULL,           -- [[writer, epoch, first number, last number], …]
    first_ns INTEGER NOT NULL,
    last_ns INTEGER NOT NULL,
    sealed_ns INTEGER NOT NULL,
    PRIMARY KEY (participant, number)
) WITHOUT ROWID;

-- The last block of each participant.
CREATE TABLE chains (
    participant TEXT PRIMARY KEY,
    number INTEGER NOT NULL,
    hash BLOB NOT NULL
) WITHOUT ROWID;

-- The last number of each writer that a block holds.
CREATE TABLE sealed_writers (
    participant TEXT NOT NULL,
    writer TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (participant, writer, epoch)
) WITHOUT ROWID;

CREATE TABLE segments (
    id INTEGER PRIMARY KEY,
    participant TEXT NOT NULL,
    name TEXT NOT NULL UNIQUE,      -- of its file in the archive's directory
    sha256 BLOB NOT NULL,           -- of the file
    bytes INTEGER NOT NULL,
    blocks TEXT NOT NULL,           -- [[first number, last number], …]
    events INTEGER NOT NULL,
    first_ns INTEGER NOT NULL,
    last_ns INTEGER NOT NULL,
    written_ns INTEGER NOT NULL,
    emptied INTEGER NOT NULL        -- 1 once everything that it holds is gone from here
);

-- Where the events of a submission were moved to.
CREATE TABLE archived (
    submission TEXT NOT NULL,
    segment INTEGER NOT NULL,
    PRIMARY KEY (submission, segment)
) WITHOUT ROWID;
