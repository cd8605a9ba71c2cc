"""Archiving: which sealed blocks may leave the journal, the note that a segment holds them, and their deletion, in short commits.

A block leaves whole, when it is old enough and nothing in it is unsettled: no event of a submission that has not ended or whose write-backs are not
done, and no bytes that a waiting item, an open call or a parked return still refers to. The rows of submissions, items, the register and write-backs
stay; events, blobs and blocks go. The order on disk is: the segment's file, checked; the row that names it; only then deletions. So whatever moment
a process ends at, everything is in the journal, in a segment, or in both.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import orjson

from bridge.journal.blocks import Event
from bridge.journal.port import Fence
from bridge.journal.sealing import Stored, head, identity, stored_blocks
from bridge.journal.store import Row, Rows, Tx, dump
from bridge.submission import SubmissionState

ARCHIVE: Final = "archive"  # the lease

_ORPHAN_NS: Final = 24 * 3600 * 1_000_000_000  # as long as an early return may still find its submission
_UNSETTLED: Final = dump([state.value for state in SubmissionState if not state.terminal])
_IN_STATE: Final = "s.state IN (SELECT value FROM json_each(?))"
_EVENT: Final = "participant, writer, epoch, number, at_ns, kind, subject, data, digest, blob"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pinned:
    """What must stay: submissions by id, and blobs that something unsettled refers to."""

    submissions: frozenset[str]
    blobs: frozenset[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockRows:
    """A block as it lies in the journal: its events and the ids of the blobs that belong to them, with their sizes."""

    stored: Stored
    events: list[Event]
    blobs: dict[int, int]

    def held_by(self, pinned: Pinned) -> bool:
        """Whether something unsettled keeps it here."""
        if any(event.subject in pinned.submissions for event in self.events):
            return True
        return not pinned.blobs.isdisjoint(self.blobs)


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentRow:
    """A segment as the journal knows it."""

    id: int
    participant: str
    name: str
    sha256: bytes
    blocks: list[list[int]]
    events: int
    first_ns: int
    last_ns: int
    emptied: bool

    def covers(self, number: int) -> bool:
        """Whether it holds the block of this number."""
        return any(first <= number <= last for first, last in self.blocks)


# ------------------------------------------------------------------------------------------------------------- reading


def pinned(rows: Rows, now_ns: int) -> Pinned:
    """What is unsettled now. What has ended never becomes unsettled again."""
    open_ = rows.all(f"SELECT s.id FROM submissions s WHERE {_IN_STATE}", (_UNSETTLED,))  # noqa: S608
    told = rows.all(
        "SELECT DISTINCT s.id FROM writebacks w JOIN items i ON i.id = w.follows JOIN submissions s ON s.seq = i.submission"
        " WHERE w.step IN ('pending', 'retry', 'stuck')"
    )
    readings = rows.all(
        f"SELECT DISTINCT i.readings FROM submissions s JOIN items i ON i.submission = s.seq WHERE {_IN_STATE} AND i.readings IS NOT NULL",  # noqa: S608
        (_UNSETTLED,),
    )
    calls = rows.all(
        f"SELECT c.body FROM submissions s JOIN calls c ON c.submission = s.seq WHERE {_IN_STATE}",  # noqa: S608
        (_UNSETTLED,),
    )
    returns = rows.all(
        "SELECT body FROM returns WHERE verdict IN ('', 'orphan') AND (verdict = '' OR received_ns >= ?)",
        (now_ns - _ORPHAN_NS,),
    )
    return Pinned(
        submissions=frozenset(row[0] for row in (*open_, *told)),
        blobs=frozenset(row[0] for row in (*readings, *calls, *returns)),
    )


def participants(rows: Rows) -> list[str]:
    """Those who have blocks."""
    return [row[0] for row in rows.all("SELECT participant FROM chains ORDER BY participant")]


def candidates(rows: Rows, participant: str, first: int, before_ns: int, limit: int) -> tuple[list[Stored], int | None]:
    """Of the next blocks from number `first` on those whose newest event is older than `before_ns`, and where to go on (None: nowhere).

    Never the last block: the anchor is compared with it.
    """
    last, _ = head(rows, participant)
    found = stored_blocks(rows, participant, first, limit)
    old = [stored for stored in found if stored.block.last_ns < before_ns and stored.block.number < last]
    return old, found[-1].block.number + 1 if len(found) == limit else None


def block_rows(rows: Rows, stored: Stored) -> BlockRows:
    """The rows of a block that is still in the journal."""
    block, events, blobs = stored.block, [], set[int]()
    for found in block.ranges:
        for *fields, blob in rows.all(
            f"SELECT {_EVENT} FROM events WHERE participant = ? AND writer = ? AND epoch = ? AND number BETWEEN ? AND ? ORDER BY number",  # noqa: S608
            (block.participant, found.writer, found.epoch, found.first, found.last),
        ):
            event = Event._make(fields)
            events.append(event)
            blobs |= {blob} if blob is not None else set()
            blobs |= _readings(rows, event)
    sizes = rows.all(
        "SELECT id, length(bytes) FROM blobs WHERE id IN (SELECT CAST(value AS BIGINT) FROM json_each(?)) ORDER BY id",
        (dump(sorted(blobs)),),
    )
    return BlockRows(stored=stored, events=events, blobs=dict(sizes))


def _readings(rows: Rows, event: Event) -> set[int]:
    """A call that left with its intake names the readings by their digest; the items lead to them."""
    if event.readings is None:
        return set()
    data = orjson.loads(event.data)
    if not isinstance(data.get("first"), int) or not isinstance(data.get("items"), int):
        return set()
    found = rows.all(
        "SELECT DISTINCT b.id FROM items i JOIN blobs b ON b.id = i.readings WHERE i.id BETWEEN ? AND ? AND b.digest = ?",
        (data["first"], data["first"] + data["items"] - 1, event.readings),
    )
    return {row[0] for row in found}


def blob_bytes(rows: Rows, ids: Sequence[int]) -> list[tuple[bytes, bytes, bytes]]:
    """Digest, nonce and bytes of these blobs, as far as they were not erased."""
    found = rows.all(
        "SELECT digest, nonce, bytes FROM blobs WHERE id IN (SELECT CAST(value AS BIGINT) FROM json_each(?)) ORDER BY id",
        (dump(list(ids)),),
    )
    return [(digest, nonce, data) for digest, nonce, data in found]


def segments(rows: Rows, participant: str | None = None) -> list[SegmentRow]:
    """The segments that the journal knows, oldest first."""
    columns = "id, participant, name, sha256, blocks, events, first_ns, last_ns, emptied"
    found = rows.all(
        f"SELECT {columns} FROM segments WHERE ? = 1 OR participant = ? ORDER BY id",  # noqa: S608
        (int(participant is None), participant or ""),
    )
    return [_segment(row) for row in found]


def segments_of(rows: Rows, submission: str) -> list[str]:
    """The names of the segments that hold events of a submission."""
    found = rows.all(
        "SELECT g.name FROM archived a JOIN segments g ON g.id = a.segment WHERE a.submission = ? ORDER BY g.id",
        (submission,),
    )
    return [row[0] for row in found]


def _segment(row: Row) -> SegmentRow:
    id_, participant, name, sha256, blocks, events, first_ns, last_ns, emptied = row
    return SegmentRow(
        id=id_,
        participant=participant,
        name=name,
        sha256=sha256,
        blocks=orjson.loads(blocks),
        events=events,
        first_ns=first_ns,
        last_ns=last_ns,
        emptied=bool(emptied),
    )


# ------------------------------------------------------------------------------------------------------------ changing


def register(
    tx: Tx,
    fence: Fence,
    *,
    participant: str,
    name: str,
    sha256: bytes,
    size: int,
    blocks: list[list[int]],
    held: Sequence[Stored],
) -> int:
    """A checked segment is on disk: name it, in the record too; from now on its blocks may be deleted here. Returns its id."""
    tx.check(fence)
    events = sum(stored.block.events for stored in held)
    id_ = tx.insert(
        "INSERT INTO segments (participant, name, sha256, bytes, blocks, events, first_ns, last_ns, written_ns, emptied)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 0)",
        (
            *(participant, name, sha256, size, dump(blocks), events),
            *(
                min(stored.block.first_ns for stored in held),
                max(stored.block.last_ns for stored in held),
                tx.now.wall_ns,
            ),
        ),
    )
    tx.event(fence, participant, "archived", name, {"sha256": sha256.hex(), "blocks": blocks, "events": events})
    return id_


def delete_blobs(tx: Tx, fence: Fence, ids: Sequence[int]) -> None:
    """Delete blobs that a named segment holds. An id is never given out again: items and calls may still name it."""
    tx.check(fence)
    newest = tx.one("SELECT max(id) FROM blobs")
    if newest and newest[0] in ids:
        tx.insert("INSERT INTO blobs (participant, nonce, bytes, digest) VALUES ('', ?, ?, ?)", (b"", b"", b""))
    tx.run("DELETE FROM blobs WHERE id IN (SELECT CAST(value AS BIGINT) FROM json_each(?))", (dump(list(ids)),))


def delete_block(tx: Tx, fence: Fence, segment: int, found: BlockRows) -> None:
    """Delete a block and its events, and note for its submissions where they are."""
    tx.check(fence)
    block = found.stored.block
    subjects = dump(sorted({event.subject for event in found.events}))
    known = tx.all("SELECT id FROM submissions WHERE id IN (SELECT value FROM json_each(?))", (subjects,))
    tx.many(
        "INSERT INTO archived (submission, segment) VALUES (?, ?) ON CONFLICT (submission, segment) DO NOTHING",
        [(row[0], segment) for row in known],
    )
    for run in block.ranges:
        tx.run(
            "DELETE FROM events WHERE participant = ? AND writer = ? AND epoch = ? AND number BETWEEN ? AND ?",
            (block.participant, run.writer, run.epoch, run.first, run.last),
        )
    tx.run("DELETE FROM blocks WHERE participant = ? AND number = ?", (block.participant, block.number))


def emptied(tx: Tx, fence: Fence, segment: int) -> None:
    """Nothing of the segment is left in the journal."""
    tx.check(fence)
    tx.run("UPDATE segments SET emptied = 1 WHERE id = ?", (segment,))


def still_here(rows: Rows, participant: str, hashes: Mapping[int, bytes]) -> dict[int, bytes]:
    """Which blocks of these numbers are still in the journal, with the hashes that they have here."""
    found = rows.all(
        "SELECT number, hash FROM blocks WHERE participant = ? AND number IN (SELECT CAST(value AS BIGINT) FROM json_each(?))",
        (participant, dump(sorted(hashes))),
    )
    return dict(found)


def journal_id(rows: Rows) -> str:
    """The id that segments carry."""
    return identity(rows)
