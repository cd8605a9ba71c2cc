"""Signed calls on disk: stored once, read back byte for byte."""

import hashlib
from typing import NamedTuple

import orjson

from bridge.journal.port import SignedCall
from bridge.journal.store import Blob, Rows, Tx, dump, dump_stamps, load_stamps


class StoredCall(NamedTuple):
    """A call's row and the evidence of its body."""

    id: int
    body: Blob


def insert_call(tx: Tx, participant: str, submission: int, call: SignedCall) -> StoredCall:
    """Store a call that was signed anew."""
    body = tx.blob(participant, call.body)
    id_ = tx.insert(
        "INSERT INTO calls (participant, submission, message_id, correlation_id, method, path, headers, kid, profile, body, stamps)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            participant,
            submission,
            call.message_id,
            call.correlation_id,
            call.method,
            call.path,
            dump(dict(call.headers)),
            call.kid,
            call.profile,
            body.id or 0,
            dump_stamps(call.stamps),
        ),
    )
    return StoredCall(id_, body)


def envelope_of(call: SignedCall) -> bytes:
    """What travelled beside the body, as evidence: its SHA-256 stands in the event, so that the signature's header is sealed too."""
    return orjson.dumps(
        {
            "message": call.message_id,
            "correlation": call.correlation_id,
            "method": call.method,
            "path": call.path,
            "headers": dict(call.headers),
            "kid": call.kid,
            "profile": call.profile,
        }
    )


def envelope_digest(call: SignedCall) -> str:
    """The digest of `envelope_of`, in hex."""
    return hashlib.sha256(envelope_of(call)).hexdigest()


def clock_of(call: SignedCall) -> dict[str, object]:
    """What was known of the clock when the call was signed, for the event; nothing for one that was signed by an earlier attempt."""
    return {"clock": dict(call.clock)} if call.clock else {}


def load_call(rows: Rows, call: int) -> SignedCall:
    """The exact call as it was stored; without headers and body where they were erased, without a body too where its bytes are not those of their digest."""
    row = rows.one(
        "SELECT c.message_id, c.correlation_id, c.method, c.path, c.headers, b.nonce, b.bytes, b.digest, c.kid, c.profile, c.stamps"
        " FROM calls c LEFT JOIN blobs b ON b.id = c.body WHERE c.id = ?",
        (call,),
    )
    assert row is not None
    nonce, body, digest = row[5:8]
    whole = body is not None and hashlib.sha256(nonce + body).digest() == digest
    return SignedCall(
        message_id=row[0],
        correlation_id=row[1],
        method=row[2],
        path=row[3],
        headers=orjson.loads(row[4] or "{}"),
        body=body if whole else b"",
        kid=row[8],
        profile=row[9],
        stamps=load_stamps(row[10]),
    )


def same_call(rows: Rows, stored: int | None, call: SignedCall) -> bool:
    """Whether this very call is on disk already (a retry sends the same bytes)."""
    if stored is None:
        return False
    before = load_call(rows, stored)
    return (before.message_id, before.body, before.headers) == (call.message_id, call.body, dict(call.headers))
