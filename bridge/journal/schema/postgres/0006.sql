-- Signed heads: the host's own key says which block was a participant's last one.

CREATE TABLE signed_heads (
    participant TEXT NOT NULL,
    number BIGINT NOT NULL,         -- of the block
    kid TEXT NOT NULL,
    hash BYTEA NOT NULL,
    signed_ns BIGINT NOT NULL,
    alg TEXT NOT NULL,
    signature BYTEA NOT NULL,
    PRIMARY KEY (participant, number, kid)
);
