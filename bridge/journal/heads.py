"""Signed heads: the host's own key says which block was the last one of a participant's chain, and when. A head stands for all blocks before it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import orjson

from bridge.envelope import PublicKey
from bridge.envelope.keys import Signer
from bridge.errors import BridgeError
from bridge.journal import sealing
from bridge.journal.store import Row, Rows, Tx

_FORM: Final = "smp-bridge head 1"
_COLUMNS: Final = "participant, number, hash, signed_ns, kid, alg, signature"
KEEP: Final = "keep the journal as it is, and run `smp-bridge journal verify`"


class EvidenceBroken(BridgeError):
    """Sign and hand out nothing: the chain is another one than a head says that was signed before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedHead:
    """One signature over the place, number and hash of a block; `signed_ns` in UTC ns, `signature` raw as in RFC 7518 section 3."""

    participant: str
    number: int
    hash: bytes
    signed_ns: int
    kid: str
    alg: str
    signature: bytes

    def signing_input(self, journal: str) -> bytes:
        """The bytes that are signed: a JSON array, UTF-8, no blanks; `journal` is the journal's id."""
        return signing_input(journal, self.participant, self.number, self.hash, self.signed_ns)

    def signed_by(self, journal: str, keys: Mapping[str, PublicKey]) -> bool:
        """Whether one of these keys made it."""
        return verified(keys, self.kid, self.alg, self.signing_input(journal), self.signature)


def signing_input(journal: str, participant: str, number: int, hash_: bytes, signed_ns: int) -> bytes:
    """See `SignedHead.signing_input`."""
    return orjson.dumps([_FORM, journal, participant, number, hash_.hex(), signed_ns])


def verified(keys: Mapping[str, PublicKey], kid: str, alg: str, signed: bytes, signature: bytes) -> bool:
    """Whether the key that is named made this signature, with its one algorithm."""
    key = keys.get(kid)
    if key is None or key.alg.value != alg:
        return False
    return bool(key.alg.jose.verify(signed, key.key, signature))


def sign_next(
    rows: Rows, signer: Signer, now_ns: int, participant: str | None = None
) -> tuple[list[SignedHead], list[str]]:
    """A head for each chain (or for this participant's) whose last block this key has not signed yet, and why others are not signed again."""
    journal = sealing.identity(rows)
    made, broken = [], []
    for whose, (number, hash_) in sealing.heads(rows).items():
        if participant not in (None, whose):
            continue
        found = of(rows, whose)
        wrong = contradiction(rows, whose, found)
        if wrong:
            broken.append(wrong)
        elif not any((head.number, head.kid) == (number, signer.kid) for head in found):
            signature = signer.sign(signing_input(journal, whose, number, hash_, now_ns))
            made.append(
                SignedHead(
                    participant=whose,
                    number=number,
                    hash=hash_,
                    signed_ns=now_ns,
                    kid=signer.kid,
                    alg=signer.alg.value,
                    signature=signature,
                )
            )
    return made, broken


def contradiction(rows: Rows, participant: str, found: Sequence[SignedHead]) -> str:
    """Where the chain is another one than its signed heads say, as far as the blocks are in the journal itself; '' where they agree."""
    last, last_hash = sealing.head(rows, participant)
    for head in found:
        if head.number > last:
            return f"{participant}: block {head.number} was signed, and the chain ends with block {last}"
        here = last_hash if head.number == last else sealing.block_hash(rows, participant, head.number)
        if here is not None and here != head.hash:  # None: it is in the archive, where its own chain holds it
            return f"{participant}: block {head.number} is another one than was signed"
    return ""


def unsigned(rows: Rows, kid: str) -> bool:
    """Whether any chain ends with a block that this key has not signed."""
    row = rows.one(
        "SELECT 1 FROM chains c LEFT JOIN signed_heads h ON h.participant = c.participant AND h.number = c.number AND h.kid = ?"
        " WHERE h.number IS NULL LIMIT 1",
        (kid,),
    )
    return row is not None


def last_signed_ns(rows: Rows, kid: str) -> int:
    """When this key signed last; 0 = never."""
    row = rows.one("SELECT max(signed_ns) FROM signed_heads WHERE kid = ?", (kid,))
    return (row[0] if row else None) or 0


def store(tx: Tx, heads: Sequence[SignedHead]) -> None:
    """Keep them. A head that is there already stays."""
    tx.many(
        f"INSERT INTO signed_heads ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (participant, number, kid) DO NOTHING",  # noqa: S608
        [(h.participant, h.number, h.hash, h.signed_ns, h.kid, h.alg, h.signature) for h in heads],
    )


def of(rows: Rows, participant: str) -> list[SignedHead]:
    """A participant's signed heads, in the order of their blocks."""
    found = rows.all(
        f"SELECT {_COLUMNS} FROM signed_heads WHERE participant = ? ORDER BY number, signed_ns",  # noqa: S608
        (participant,),
    )
    return [_head(row) for row in found]


def _head(row: Row) -> SignedHead:
    participant, number, hash_, signed_ns, kid, alg, signature = row
    return SignedHead(
        participant=participant,
        number=number,
        hash=hash_,
        signed_ns=signed_ns,
        kid=kid,
        alg=alg,
        signature=signature,
    )
