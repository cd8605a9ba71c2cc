-- Who may use the admin API, and what waits for a second person.

-- A token itself is never kept: this says that it was given out, and whether it still counts.
CREATE TABLE access_tokens (
    id TEXT PRIMARY KEY,
    holder TEXT NOT NULL,           -- the person who works with it
    role TEXT NOT NULL,
    participants TEXT NOT NULL,     -- JSON list of names; empty = all
    issued_by TEXT NOT NULL,
    issued_ns INTEGER NOT NULL,
    expires_ns INTEGER NOT NULL,
    revoked_ns INTEGER NOT NULL DEFAULT 0,
    revoked_by TEXT NOT NULL DEFAULT '',
    revoke_reason TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID;

CREATE TABLE approvals (
    id INTEGER PRIMARY KEY,
    participant TEXT NOT NULL,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,          -- a submission
    details TEXT NOT NULL,          -- JSON: what exactly is to be done
    asked_by TEXT NOT NULL,
    reason TEXT NOT NULL,
    asked_ns INTEGER NOT NULL,
    expires_ns INTEGER NOT NULL,
    state TEXT NOT NULL,            -- open, done, refused, expired
    decided_by TEXT NOT NULL DEFAULT '',
    decided_ns INTEGER NOT NULL DEFAULT 0,
    decision TEXT NOT NULL DEFAULT ''
);
CREATE UNIQUE INDEX approvals_open ON approvals (subject) WHERE state = 'open';
