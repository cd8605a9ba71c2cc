"""Items that are sent again: copies in a new waiting submission, so that the old call keeps its items and outcomes as they were."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bridge.journal.moves import Submission
from bridge.journal.port import Fence
from bridge.journal.standing import look_again
from bridge.journal.store import Tx, dump_stamps, load_stamps
from bridge.model import Kind
from bridge.submission import SubmissionState

_KEPT_STAMPS: Final = ("source", "received", "mapped")
_COPIED: Final = (
    "participant, kind, key, site, flow, place, slot, request, progress, content, digest, readings, part,"
    " received_ns, received_mono, received_boot"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """Items (row ids, in the order of the call) that make one new submission, and its id."""

    submission: str
    items: Sequence[int]


def requeue(
    tx: Tx,
    fence: Fence | None,
    origin: Submission,
    again: Again,
    *,
    cause: str,
    deadline_ns: int,
    data: Mapping[str, object],
) -> None:
    """Open a waiting submission at the place in line of `origin` and let copies of these items stand for their references from now on."""
    seq = _open(tx, origin, again, deadline_ns)
    copies = [_copy(tx, seq, item) for item in again.items]
    said = {"from": origin.id, "cause": cause, "items": len(copies), "first": copies[0], **data}
    tx.event(fence, origin.participant, SubmissionState.WAITING.value, again.submission, said)
    if origin.operation.kind is Kind.UNIT:
        look_again(tx, origin.participant, copies)
    tx.topics.add(f"market:{origin.participant}")


def _open(tx: Tx, origin: Submission, again: Again, deadline_ns: int) -> int:
    kept = {hop: stamp for hop, stamp in load_stamps(origin.stamps).items() if hop in _KEPT_STAMPS}
    row = tx.one(
        "INSERT INTO submissions (id, participant, site, flow, operation, state, position, open, items, max_items, due_ns, deadline_ns,"
        " blocked, echoes, stamps) VALUES (?, ?, ?, ?, ?, 'WAITING', ?, 0, ?, ?, 0, ?, 0, ?, ?) RETURNING seq",
        (
            again.submission,
            origin.participant,
            origin.site,
            origin.flow,
            origin.operation.value,
            origin.position,
            len(again.items),
            origin.max_items,
            deadline_ns,
            int(origin.echoes),
            dump_stamps(kept),
        ),
    )
    assert row is not None
    seq: int = row[0]
    return seq


def _copy(tx: Tx, seq: int, item: int) -> int:
    row = tx.one(
        f"INSERT INTO items (submission, {_COPIED}) SELECT ?, {_COPIED} FROM items WHERE id = ? RETURNING id",  # noqa: S608
        (seq, item),
    )
    assert row is not None
    copy: int = row[0]
    tx.run(
        "UPDATE register SET item = ? WHERE item = ?"
        " AND (participant, kind, key) = (SELECT participant, kind, key FROM items WHERE id = ?)",
        (copy, item, item),
    )
    tx.run(
        "UPDATE writebacks SET follows = ?, ticket = CASE WHEN ticket < ? THEN ? ELSE ticket END WHERE follows = ?",
        (copy, copy, copy, item),
    )
    tx.run(
        "INSERT INTO depends (item, ord, submission, participant, key) SELECT ?, ord, ?, participant, key FROM depends WHERE item = ?",
        (copy, seq, item),
    )
    return copy
