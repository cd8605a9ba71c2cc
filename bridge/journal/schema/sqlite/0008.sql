-- What state each signing key is in: our own, and the platform's public ones. The keys themselves stay in files; a row holds the public half.

CREATE TABLE signing_keys (
    participant TEXT NOT NULL,
    side TEXT NOT NULL,             -- ours | theirs
    kid TEXT NOT NULL,
    alg TEXT NOT NULL,
    state TEXT NOT NULL,            -- next | active | retiring | revoked
    jwk TEXT NOT NULL,              -- the public half
    place TEXT NOT NULL,            -- of the private half (ours); configured | imported (theirs)
    since_ns INTEGER NOT NULL,      -- in this state
    until_ns INTEGER NOT NULL,      -- retiring: the end of its grace time; else 0
    expires_ns INTEGER NOT NULL,    -- 0: never
    changed_by TEXT NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (participant, side, kid)
) WITHOUT ROWID;
