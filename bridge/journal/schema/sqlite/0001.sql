-- Times are UTC nanoseconds since 1970. Migrations only add; a column is never renamed, dropped or given another meaning.

CREATE TABLE leases (
    lease TEXT PRIMARY KEY,
    epoch INTEGER NOT NULL,
    owner TEXT NOT NULL,            -- '' once it was given back
    expires_ns INTEGER NOT NULL
) WITHOUT ROWID;

-- Append-only. Numbers run without holes per (participant, writer, epoch); writer is the lease under which the work was done.
CREATE TABLE events (
    id INTEGER PRIMARY KEY,
    participant TEXT NOT NULL,
    writer TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    number INTEGER NOT NULL,
    at_ns INTEGER NOT NULL,
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    data TEXT NOT NULL,
    blob INTEGER,
    digest BLOB                     -- of the blob, so that the event stands when the blob was erased
);
CREATE UNIQUE INDEX events_number ON events (participant, writer, epoch, number);
CREATE INDEX events_subject ON events (subject, id);

CREATE TABLE blobs (
    id INTEGER PRIMARY KEY,
    participant TEXT NOT NULL,
    nonce BLOB NOT NULL,
    bytes BLOB NOT NULL,
    digest BLOB NOT NULL            -- SHA-256(nonce || bytes)
);

CREATE TABLE submissions (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    participant TEXT NOT NULL,
    site TEXT NOT NULL,
    flow TEXT NOT NULL,
    operation TEXT NOT NULL,
    state TEXT NOT NULL,
    position INTEGER NOT NULL,      -- place in the line; the rest of a split keeps the place of its origin
    open INTEGER NOT NULL,          -- 1 while waiting items may still join
    items INTEGER NOT NULL,
    max_items INTEGER NOT NULL,
    due_ns INTEGER NOT NULL,        -- end of the linger (WAITING) or of the pause (RETRY_WAIT)
    deadline_ns INTEGER NOT NULL,   -- 0 = none
    blocked INTEGER NOT NULL,       -- 1 while a member of the unit is still open
    revision INTEGER NOT NULL DEFAULT 0,    -- rises when a waiting item is replaced
    echoes INTEGER NOT NULL DEFAULT 0,      -- 1 when write-backs of another place or request follow its items
    attempts INTEGER NOT NULL DEFAULT 0,
    epoch INTEGER NOT NULL DEFAULT 0,       -- of the market lease under which it was last SENDING
    call INTEGER,
    transaction_id TEXT NOT NULL DEFAULT '',
    sent_ns INTEGER NOT NULL DEFAULT 0,
    reason TEXT NOT NULL DEFAULT '',
    stamps TEXT NOT NULL
);
CREATE INDEX submissions_line ON submissions (participant, position, seq)
    WHERE state IN ('WAITING', 'RETRY_WAIT') AND blocked = 0;
CREATE INDEX submissions_deadline ON submissions (participant, deadline_ns)
    WHERE state IN ('WAITING', 'RETRY_WAIT') AND deadline_ns > 0;
CREATE UNIQUE INDEX submissions_open ON submissions (participant, site, flow, operation) WHERE open = 1;
CREATE INDEX submissions_out ON submissions (participant, state)
    WHERE state IN ('SENDING', 'IN_DOUBT', 'AWAITING_RETURN', 'OVERDUE');
CREATE INDEX submissions_transaction ON submissions (participant, transaction_id) WHERE transaction_id <> '';

-- The signed calls of a submission: every attempt that was signed anew.
CREATE TABLE calls (
    id INTEGER PRIMARY KEY,
    participant TEXT NOT NULL,
    submission INTEGER NOT NULL,
    message_id TEXT NOT NULL,
    correlation_id TEXT NOT NULL,
    method TEXT NOT NULL,
    path TEXT NOT NULL,
    headers TEXT NOT NULL,
    kid TEXT NOT NULL,
    profile TEXT NOT NULL,
    body INTEGER NOT NULL,
    stamps TEXT NOT NULL
);
CREATE INDEX calls_message ON calls (participant, message_id);
CREATE INDEX calls_correlation ON calls (participant, correlation_id);

-- The order of a call is the order of ids. While `outcome` is empty an item stands where its submission stands.
CREATE TABLE items (
    id INTEGER PRIMARY KEY,
    submission INTEGER NOT NULL,
    participant TEXT NOT NULL,
    kind TEXT NOT NULL,
    key TEXT NOT NULL,
    site TEXT NOT NULL,
    flow TEXT NOT NULL,
    place TEXT NOT NULL,
    slot TEXT NOT NULL,
    request TEXT,
    progress INTEGER NOT NULL,
    content BLOB NOT NULL,
    digest BLOB NOT NULL,
    readings INTEGER,               -- blob of its intake, of which it is part `part`
    part INTEGER NOT NULL,
    received_ns INTEGER NOT NULL,
    received_mono INTEGER NOT NULL,
    received_boot TEXT NOT NULL,
    outcome TEXT,
    asset_id TEXT NOT NULL DEFAULT '',
    errors TEXT NOT NULL DEFAULT '[]'
);
CREATE INDEX items_submission ON items (submission, id);

-- The newest item of each key: what the rule of one live Create is asked of.
CREATE TABLE register (
    participant TEXT NOT NULL,
    kind TEXT NOT NULL,
    key TEXT NOT NULL,
    item INTEGER NOT NULL,
    PRIMARY KEY (participant, kind, key)
) WITHOUT ROWID;

-- The members that a unit waits for.
CREATE TABLE depends (
    item INTEGER NOT NULL,
    ord INTEGER NOT NULL,
    submission INTEGER NOT NULL,
    participant TEXT NOT NULL,
    key TEXT NOT NULL,
    PRIMARY KEY (item, ord)
) WITHOUT ROWID;
CREATE INDEX depends_key ON depends (participant, key);

-- slot is the request id where each request stands alone (message), '' where only the last one counts.
CREATE TABLE triggers (
    site TEXT NOT NULL,
    flow TEXT NOT NULL,
    place TEXT NOT NULL,
    slot TEXT NOT NULL,
    request TEXT NOT NULL,
    at_ns INTEGER NOT NULL,
    awaiting INTEGER NOT NULL,      -- 1 while its registration has not come
    received TEXT NOT NULL,
    PRIMARY KEY (site, flow, place, slot)
) WITHOUT ROWID;
CREATE INDEX triggers_awaiting ON triggers (site, at_ns) WHERE awaiting = 1;

CREATE TABLE writebacks (
    id INTEGER PRIMARY KEY,
    site TEXT NOT NULL,
    flow TEXT NOT NULL,
    place TEXT NOT NULL,
    slot TEXT NOT NULL,
    participant TEXT NOT NULL,
    key TEXT NOT NULL,
    generation INTEGER NOT NULL,
    state INTEGER NOT NULL,
    transaction_id TEXT NOT NULL,
    asset_id TEXT NOT NULL,
    errors TEXT NOT NULL,
    request TEXT,
    updated_ns INTEGER NOT NULL,
    step TEXT NOT NULL,             -- pending, retry, written, read_back_ok, stuck, moved; quiet = nothing to tell yet
    attempts INTEGER NOT NULL,
    due_ns INTEGER NOT NULL,
    error TEXT NOT NULL,
    follows INTEGER,                -- the item whose outcomes this row takes on
    ticket INTEGER NOT NULL,        -- the newest item when the place was last spoken of: an older item's outcome never replaces it
    UNIQUE (site, flow, place, slot)
);
CREATE INDEX writebacks_due ON writebacks (site, due_ns) WHERE step IN ('pending', 'retry');
CREATE INDEX writebacks_follows ON writebacks (follows) WHERE follows IS NOT NULL;

CREATE TABLE returns (
    id INTEGER PRIMARY KEY,
    participant TEXT NOT NULL,
    message_id TEXT NOT NULL,
    transaction_id TEXT NOT NULL,
    correlation_id TEXT NOT NULL,
    content BLOB NOT NULL,
    body INTEGER NOT NULL,
    headers TEXT NOT NULL,
    kid TEXT NOT NULL,
    late INTEGER NOT NULL,
    quarantined TEXT NOT NULL,
    received_ns INTEGER NOT NULL,
    received_mono INTEGER NOT NULL,
    received_boot TEXT NOT NULL,
    verdict TEXT NOT NULL           -- '' until it was dealt with
);
CREATE INDEX returns_message ON returns (participant, message_id);
CREATE INDEX returns_waiting ON returns (participant, id) WHERE verdict IN ('', 'orphan');

CREATE TABLE alarms (
    id INTEGER PRIMARY KEY,
    code TEXT NOT NULL,
    participant TEXT NOT NULL,
    site TEXT NOT NULL,
    subject TEXT NOT NULL,
    text TEXT NOT NULL,
    count INTEGER NOT NULL,
    raised_ns INTEGER NOT NULL,
    last_ns INTEGER NOT NULL,
    cleared_ns INTEGER NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX alarms_standing ON alarms (code, participant, site, subject) WHERE cleared_ns = 0;
