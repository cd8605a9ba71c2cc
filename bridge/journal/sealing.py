"""Sealing: what was appended since the last time is closed into blocks, in short steps beside the hot path.

A step reads and hashes on a snapshot (`draft`), then a short commit writes the blocks (`seal`). Only the owner of the lease `SEALER` seals.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import orjson

from bridge.journal.blocks import Block, Event, Range, close
from bridge.journal.port import Fence
from bridge.journal.store import Row, Rows, Tx, dump

SEALER: Final = "sealer"  # the lease

_PAGE: Final = 64
_MOST_EVENTS: Final = 256  # read and hashed in about two milliseconds
_LOOK_BACK: Final = 5000  # ids; more than commits that run at one time can give out
_MOST_CHARS: Final = 256 * 1024
_EVENT: Final = "participant, writer, epoch, number, at_ns, kind, subject, data, digest"
_NEW: Final = f"SELECT id, {_EVENT} FROM events WHERE id > ? ORDER BY id LIMIT ?"  # noqa: S608 - a constant
_RUN: Final = f"SELECT {_EVENT} FROM events WHERE participant = ? AND writer = ? AND epoch = ? AND number BETWEEN ? AND ? ORDER BY number"  # noqa: S608
_BLOCK: Final = "participant, number, previous, root, events, ranges, first_ns, last_ns, sealed_ns"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A block as it is stored, with the hash that was stored beside it."""

    block: Block
    hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """Blocks that are worked out and not written yet: over the events after `after`, up to `upto`. `gaps` are holes in writers' numbers."""

    after: int
    upto: int
    blocks: tuple[Stored, ...]
    gaps: tuple[tuple[str, str], ...]


def draft(rows: Rows, now_ns: int) -> Draft | None:
    """The next blocks, one for each participant in the next few events; None when everything is sealed."""
    after = int(meta(rows, "sealed") or 0)
    found = _fresh(rows, after) or _stragglers(rows, after)
    if not found:
        return None
    journal = identity(rows)
    mine: dict[str, list[Event]] = {}
    for row in found:
        mine.setdefault(row[1], []).append(Event(*row[1:]))
    blocks, gaps = [], []
    for participant, events in mine.items():
        number, previous = head(rows, participant)
        whole = [*events, *_late(rows, participant, events)]
        block = close(whole, number=number + 1, previous=previous, sealed_ns=now_ns)
        blocks.append(Stored(block=block, hash=block.hash(journal)))
        gaps += [(participant, text) for text in _gaps(rows, block)]
    return Draft(after=after, upto=max(after, found[-1][0]), blocks=tuple(blocks), gaps=tuple(gaps))


def seal(tx: Tx, fence: Fence, drafted: Draft) -> bool:
    """Write the drafted blocks; False when somebody sealed since they were drafted."""
    tx.check(fence)
    if int(meta(tx, "sealed") or 0) != drafted.after:
        return False
    for stored in drafted.blocks:
        block = stored.block
        tx.run(
            "INSERT INTO chains (participant, number, hash) VALUES (?, ?, ?)"
            " ON CONFLICT (participant) DO UPDATE SET number = excluded.number, hash = excluded.hash",
            (block.participant, block.number, stored.hash),
        )
        tx.run(
            f"INSERT INTO blocks ({_BLOCK}, hash) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - a constant
            (
                *(block.participant, block.number, block.previous, block.root, block.events),
                *(dump([list(found) for found in block.ranges]), block.first_ns, block.last_ns, block.sealed_ns),
                stored.hash,
            ),
        )
        tx.many(
            "INSERT INTO sealed_writers (participant, writer, epoch, number) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (participant, writer, epoch) DO UPDATE SET number = excluded.number",
            [(block.participant, *where, last) for where, last in _lasts(block.ranges).items()],
        )
    set_meta(tx, "sealed", str(drafted.upto))
    for participant, text in drafted.gaps:
        tx.raise_alarm("EVIDENCE_GAP", participant=participant, text=text)
    return True


# ---------------------------------------------------------------------------------------------------------- what is new


def _fresh(rows: Rows, after: int) -> list[Row]:
    """The next events, cut only between two requests: what one request wrote, and the blobs it shares, lie in one block."""
    found: list[Row] = []
    chars = 0
    while True:
        page = rows.all(_NEW, (found[-1][0] if found else after, _PAGE))
        found += page
        if len(page) < _PAGE:
            return found
        chars += sum(len(row[8]) for row in page)
        if len(found) >= _MOST_EVENTS or chars >= _MOST_CHARS:
            whole = _whole_requests(found)
            if whole:
                return whole


def _stragglers(rows: Rows, after: int) -> list[Row]:
    """Events just before the cursor that no block holds: another owner's commit became visible later than its ids (engines with several writers)."""
    return rows.all(
        "SELECT e.id, e.participant, e.writer, e.epoch, e.number, e.at_ns, e.kind, e.subject, e.data, e.digest FROM events e"
        " LEFT JOIN sealed_writers w ON w.participant = e.participant AND w.writer = e.writer AND w.epoch = e.epoch"
        " WHERE e.id > ? AND e.id <= ? AND e.number > coalesce(w.number, 0) ORDER BY e.id LIMIT ?",
        (after - _LOOK_BACK, after, _MOST_EVENTS),
    )


def _whole_requests(found: Sequence[Row]) -> list[Row]:
    """Without the last request, of which more may follow. Events of one request carry one time and one writer."""
    last = found[-1]
    kept = len(found)
    while kept and (found[kept - 1][5], found[kept - 1][2]) == (last[5], last[2]):
        kept -= 1
    return list(found[:kept])


def _late(rows: Rows, participant: str, events: Sequence[Event]) -> list[Event]:
    """Events with lower ids that were committed after their neighbours were sealed, which an engine with several writers allows."""
    late: list[Event] = []
    for writer, epoch, first in _firsts(events):
        sealed = sealed_number(rows, participant, writer, epoch)
        if first > sealed + 1:
            found = rows.all(_RUN, (participant, writer, epoch, sealed + 1, first - 1))
            late += [Event(*row) for row in found]
    return late


def _firsts(events: Iterable[Event]) -> list[tuple[str, int, int]]:
    firsts: dict[tuple[str, int], int] = {}
    for event in events:
        where = (event.writer, event.epoch)
        firsts[where] = min(event.number, firsts.get(where, event.number))
    return [(*where, first) for where, first in firsts.items()]


def _gaps(rows: Rows, block: Block) -> list[str]:
    """Where a writer's numbers do not go on from its last sealed one."""
    texts = []
    last: dict[tuple[str, int], int] = {}
    for found in block.ranges:
        where = found[:2]
        before = last.get(where)
        if before is None:
            before = sealed_number(rows, block.participant, *where)
        if found.first != before + 1:
            texts.append(gap_text(found, before))
        last[where] = found.last
    return texts


def gap_text(found: Range, before: int) -> str:
    """What a hole in a writer's numbers is called."""
    missing = f"event {before + 1}" if found.first == before + 2 else f"events {before + 1} to {found.first - 1}"
    if found.first <= before:
        return f"{found.writer}/{found.epoch}: event {found.first} stands a second time"
    return f"{found.writer}/{found.epoch}: {missing} missing"


def _lasts(ranges: Iterable[Range]) -> dict[tuple[str, int], int]:
    return {found[:2]: found.last for found in ranges}


# ------------------------------------------------------------------------------------------------------------- reading


def meta(rows: Rows, name: str) -> str | None:
    """One of the journal's own facts."""
    row = rows.one("SELECT value FROM meta WHERE name = ?", (name,))
    return row[0] if row else None


def set_meta(tx: Tx, name: str, value: str | None) -> None:
    """Set one of them; None takes it away."""
    if value is None:
        tx.run("DELETE FROM meta WHERE name = ?", (name,))
        return
    tx.run(
        "INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        (name, value),
    )


def identity(rows: Rows) -> str:
    """The journal's id."""
    return meta(rows, "journal") or ""


def head(rows: Rows, participant: str) -> tuple[int, bytes]:
    """The number and hash of a participant's last block; 0 and nothing before the first."""
    row = rows.one("SELECT number, hash FROM chains WHERE participant = ?", (participant,))
    return (row[0], row[1]) if row else (0, b"")


def heads(rows: Rows) -> Mapping[str, tuple[int, bytes]]:
    """The last block of each participant that has one."""
    found = rows.all("SELECT participant, number, hash FROM chains ORDER BY participant")
    return {participant: (number, hash_) for participant, number, hash_ in found}


def sealed_number(rows: Rows, participant: str, writer: str, epoch: int) -> int:
    """The last number of a writer that a block holds."""
    row = rows.one(
        "SELECT number FROM sealed_writers WHERE participant = ? AND writer = ? AND epoch = ?",
        (participant, writer, epoch),
    )
    return row[0] if row else 0


def sealed_up_to(rows: Rows) -> tuple[int, int]:
    """The ids of the newest event, and of the newest one that was looked at for sealing."""
    row = rows.one("SELECT max(id) FROM events")
    return (row[0] if row else None) or 0, int(meta(rows, "sealed") or 0)


def block_hash(rows: Rows, participant: str, number: int) -> bytes | None:
    """The hash of a block that is still in the journal itself."""
    row = rows.one("SELECT hash FROM blocks WHERE participant = ? AND number = ?", (participant, number))
    return row[0] if row else None


def stored_blocks(rows: Rows, participant: str, first: int, limit: int) -> list[Stored]:
    """Blocks in the journal from number `first` on."""
    found = rows.all(
        f"SELECT {_BLOCK}, hash FROM blocks WHERE participant = ? AND number >= ? ORDER BY number LIMIT ?",  # noqa: S608
        (participant, first, limit),
    )
    return [_stored(row) for row in found]


def events_of(rows: Rows, block: Block) -> list[Event]:
    """The events of a block, in its order, as far as they are in the journal."""
    return [
        Event(*row)
        for found in block.ranges
        for row in rows.all(_RUN, (block.participant, found.writer, found.epoch, found.first, found.last))
    ]


def _stored(row: Row) -> Stored:
    participant, number, previous, root, events, ranges, first_ns, last_ns, sealed_ns, hash_ = row[:10]
    block = Block(
        participant=participant,
        number=number,
        previous=previous,
        root=root,
        events=events,
        ranges=_ranges(ranges),
        first_ns=first_ns,
        last_ns=last_ns,
        sealed_ns=sealed_ns,
    )
    return Stored(block=block, hash=hash_)


def _ranges(text: str) -> tuple[Range, ...]:
    """The ranges of a block; none where somebody made them unreadable, which its hash shows."""
    try:
        return tuple(Range(*found) for found in orjson.loads(text))
    except (ValueError, TypeError):
        return ()
