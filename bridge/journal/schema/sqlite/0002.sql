-- What people decide: calls to send again, holds, and which environment a participant entry speaks to.

ALTER TABLE submissions ADD COLUMN resend INTEGER NOT NULL DEFAULT 0;   -- of IN_DOUBT: 1 = as a new message by a person's word, 2 = the same message again
ALTER TABLE submissions ADD COLUMN placed_ns INTEGER NOT NULL DEFAULT 0;    -- when `due_ns` was set: in the future once the clock was set back, and then it is due
CREATE INDEX submissions_resend ON submissions (participant, position, seq) WHERE state = 'IN_DOUBT' AND resend > 0;
CREATE INDEX submissions_state ON submissions (state, seq);
CREATE INDEX submissions_shown ON submissions (transaction_id) WHERE transaction_id <> '';
CREATE INDEX calls_submission ON calls (submission);

-- scope is participant, environment, site, host, journal or ems (`bridge.journal.people.Scope`); a standing hold has released_ns = 0.
CREATE TABLE holds (
    id INTEGER PRIMARY KEY,
    scope TEXT NOT NULL,
    name TEXT NOT NULL,             -- '' for the host and its journal
    reason TEXT NOT NULL,
    held_by TEXT NOT NULL,
    held_ns INTEGER NOT NULL,
    released_ns INTEGER NOT NULL DEFAULT 0,
    released_by TEXT NOT NULL DEFAULT '',
    release_reason TEXT NOT NULL DEFAULT ''
);
CREATE UNIQUE INDEX holds_standing ON holds (scope, name) WHERE released_ns = 0;

CREATE TABLE environments (
    participant TEXT PRIMARY KEY,
    environment TEXT NOT NULL
) WITHOUT ROWID;
