"""Signed returns: on disk before the 2xx, told apart by message id and meaning, found again by what they answer."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Final

import orjson

from bridge.clock import Stamp
from bridge.journal import views
from bridge.journal.port import Fence, Parked, ParkedReturn, ReturnMessage
from bridge.journal.store import Row, Rows, Tx, dump

_ORPHAN_NS: Final = 24 * 3600 * 1_000_000_000
_ROW: Final = (
    "r.id, r.participant, r.message_id, r.transaction_id, r.correlation_id, r.content, b.bytes, r.headers, r.kid, r.late,"
    " r.received_ns, r.received_mono, r.received_boot, r.quarantined FROM returns r LEFT JOIN blobs b ON b.id = r.body"
)


def park(tx: Tx, fence: Fence, message: ReturnMessage) -> Parked:
    """Store a return unless it is on disk already; the same id with another meaning is stored too, and a person is told. Only the first meaning is ever good.

    What stands in quarantine never makes a genuine message a duplicate or a conflict.
    """
    tx.check(fence)
    same = tx.all(
        "SELECT id, content, received_ns FROM returns WHERE participant = ? AND message_id = ? AND CASE WHEN quarantined = '' THEN 0 ELSE 1 END = ? ORDER BY id",
        (message.participant, message.message_id, bool(message.quarantined)),
    )
    for id_, content, received_ns in same:
        if content == message.content:
            tx.event(fence, message.participant, "return.duplicate", message.message_id, {"return": id_})
            verdict = "duplicate" if id_ == same[0][0] else "conflict"
            return Parked(verdict=verdict, return_id=id_, receipt_ns=received_ns)
    verdict = "conflict" if same else "new"
    id_ = _insert(tx, fence, message, verdict)
    if verdict == "conflict":
        text = f"return {message.message_id} came again with another meaning"
        tx.raise_alarm("CONFLICT", participant=message.participant, subject=message.message_id, text=text)
    if not message.quarantined:
        tx.topics.add(f"market:{message.participant}")
    settles = verdict == "new" and not message.quarantined and bool(message.transaction_id)
    found = views.answered_by(tx, message.participant, message.transaction_id) if settles else None
    return Parked(verdict=verdict, return_id=id_, receipt_ns=message.received.wall_ns, found=found)


def _insert(tx: Tx, fence: Fence, message: ReturnMessage, verdict: str) -> int:
    body = tx.blob(message.participant, message.body)
    id_ = tx.insert(
        "INSERT INTO returns (participant, message_id, transaction_id, correlation_id, content, body, headers, kid, late, quarantined,"
        " received_ns, received_mono, received_boot, verdict) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            message.participant,
            message.message_id,
            message.transaction_id,
            message.correlation_id,
            message.content,
            body.id or 0,
            dump(dict(message.headers)),
            message.kid,
            message.late,
            message.quarantined,
            *message.received,
            _stored_as(message, verdict),
        ),
    )
    data = {
        "return": id_,
        "verdict": verdict,
        "transaction": message.transaction_id,
        "correlation": message.correlation_id,
        "kid": message.kid,
        "late": message.late,
        "quarantined": message.quarantined,
        "envelope": hashlib.sha256(envelope_of(message.headers)).hexdigest(),
    }
    if message.checks:
        data["checks"] = f"{message.checks} replay" if verdict == "new" else message.checks
    if message.peer:
        data["peer"] = dict(message.peer)
    tx.event(fence, message.participant, "return", message.message_id, data, blob=body)
    return id_


def envelope_of(headers: Mapping[str, str]) -> bytes:
    """The headers of a return as evidence; their digest stands in the event."""
    return orjson.dumps({"headers": dict(headers)})


def close_return(tx: Tx, fence: Fence, return_id: int, verdict: str) -> None:
    """Note how a return was dealt with."""
    row = tx.one("SELECT participant, message_id FROM returns WHERE id = ?", (return_id,))
    if row is None:
        return
    tx.run("UPDATE returns SET verdict = ? WHERE id = ?", (verdict, return_id))
    tx.event(fence, row[0], f"return.{verdict}", row[1], {"return": return_id})


def transaction_of(rows: Rows, return_id: int) -> str:
    """The transaction id that a stored return names, '' where it names none."""
    row = rows.one("SELECT transaction_id FROM returns WHERE id = ?", (return_id,))
    return row[0] if row else ""


def unsettled(rows: Rows, participant: str, after: int, limit: int) -> list[ParkedReturn]:
    """Returns nobody has dealt with yet, oldest first."""
    found = rows.all(
        f"SELECT {_ROW} WHERE r.participant = ? AND r.verdict IN ('', 'orphan') AND r.verdict = '' AND r.id > ? ORDER BY r.id LIMIT ?",
        (participant, after, limit),
    )
    return [_parked(row) for row in found]


def any_waiting(rows: Rows, participant: str) -> bool:
    """Whether any return waits for its answer, or belongs to nothing yet."""
    query = "SELECT 1 FROM returns WHERE participant = ? AND verdict IN ('', 'orphan') LIMIT 1"
    return rows.one(query, (participant,)) is not None


def waiting_for(tx: Tx, participant: str, transaction_id: str, ours: Sequence[str]) -> list[ParkedReturn]:
    """Returns, early ones of the last 24 hours too, that speak of this transaction id or echo one of our own ids."""
    found = tx.all(
        f"SELECT {_ROW} WHERE r.participant = ? AND r.verdict IN ('', 'orphan')"  # noqa: S608
        " AND (r.verdict = '' OR r.received_ns >= ?)"
        " AND ((r.transaction_id <> '' AND r.transaction_id = ?)"
        " OR (r.correlation_id <> '' AND r.correlation_id IN (SELECT value FROM json_each(?)))) ORDER BY r.id",
        (participant, tx.now.wall_ns - _ORPHAN_NS, transaction_id, dump(list(ours))),
    )
    return [_parked(row) for row in found]


def _parked(row: Row) -> ParkedReturn:
    id_, participant, message_id, transaction_id, correlation_id, content, body, headers, kid, late = row[:10]
    message = ReturnMessage(
        participant=participant,
        message_id=message_id,
        transaction_id=transaction_id,
        correlation_id=correlation_id,
        content=content,
        body=body or b"",
        headers=orjson.loads(headers or "{}"),
        kid=kid,
        late=bool(late),
        received=Stamp(*row[10:13]),
        quarantined=row[13],
    )
    return ParkedReturn(id=id_, message=message)


def _stored_as(message: ReturnMessage, verdict: str) -> str:
    """Only a new return may ever settle anything; the others are kept as evidence (DOMAIN 9 rows 17 and 29)."""
    if message.quarantined:
        return "quarantined"
    return "" if verdict == "new" else verdict
