-- Signed heads: the host's own key says which block was a participant's last one.

CREATE TABLE signed_heads (
    participant TEXT NOT NULL,
    number INTEGER NOT NULL,        -- of the block
    kid TEXT NOT NULL,
    hash BLOB NOT NULL,
    signed_ns INTEGER NOT NULL,
    alg TEXT NOT NULL,
    signature BLOB NOT NULL,
    PRIMARY KEY (participant, number, kid)
) WITHOUT ROWID;
