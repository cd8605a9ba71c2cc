"""Which blocks an export needs, and which of their events: those of one submission with its returns, or all of a span of time; and the facts that held then."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import orjson

from bridge.clock import iso_ms
from bridge.errors import NotPossible
from bridge.journal import archive, retention
from bridge.journal.archive import SegmentRow
from bridge.journal.blocks import Event
from bridge.journal.facts import FACTS
from bridge.journal.heads import EvidenceBroken
from bridge.journal.segments import SegmentDamaged, read_blocks
from bridge.journal.store import Rows, dump, load_stamps
from bridge.journal.verify import Read

Keep = Callable[[Event], bool]
Place = tuple[str, int, int]  # writer, epoch, number

_RETURN: Final = "return"
_HINT: Final = "keep the journal and its archive as they are, and run `smp-bridge journal verify`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What is asked for: one submission, or everything from `from_ns` up to and with `to_ns` (UTC ns)."""

    participant: str
    submission: str = ""
    from_ns: int = 0
    to_ns: int = 0

    def plain(self) -> dict[str, Any]:
        """For the manifest."""
        if self.submission:
            return {"submission": self.submission}
        return {"from_ns": self.from_ns, "to_ns": self.to_ns, "from": iso_ms(self.from_ns), "to": iso_ms(self.to_ns)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Of each block that is needed, which events; and up to which block the chain was retired, where what is asked for reaches back to then (0: it does not)."""

    blocks: Mapping[int, Keep]
    retired: int = 0


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Subjects of the events, and when they can have happened."""

    submission: str
    returns: frozenset[str]
    segments: tuple[str, ...]
    at_ns: tuple[int, ...]

    def __call__(self, event: Event) -> bool:
        if event.subject == self.submission:
            return True
        return event.subject in self.returns and event.kind.split(".")[0] == _RETURN


async def make(read: Read, scope: Scope, directory: Path, *, last: int) -> Plan:
    """The plan for this scope, of blocks up to number `last`. Raises `NotPossible` where there is nothing."""
    if scope.submission:
        blocks, first_ns, last_ns = await _of_submission(read, scope, directory)
    else:
        blocks, first_ns, last_ns = await _of_span(read, scope, directory)
    blocks = {number: keep for number, keep in blocks.items() if number <= last}
    retired = await read(partial(_retired, scope=scope))
    if not blocks:
        what = scope.submission or f"{iso_ms(scope.from_ns)} to {iso_ms(scope.to_ns)}"
        hint = f"blocks 1 to {retired} had their time and are gone (`journal.retention`)" if retired else ""
        raise NotPossible(f"{scope.participant}: no sealed evidence of {what}", hint=hint)
    for number, places in (await _facts(read, scope.participant, directory, first_ns, last_ns)).items():
        if number <= last:
            blocks[number] = partial(_either, places, blocks.get(number))
    return Plan(blocks=blocks, retired=retired)


def _retired(rows: Rows, scope: Scope) -> int:
    """See `Plan`: what is left begins after what is asked for does, and what was retired ended after that, as far as the journal still knows."""
    cut, from_ns = retention.cut_of(rows, scope.participant), scope.from_ns
    if scope.submission:
        row = rows.one("SELECT stamps FROM submissions WHERE id = ?", (scope.submission,))
        from_ns = min((stamp.wall_ns for stamp in load_stamps(row[0]).values()), default=0) if row else 0
    left = rows.all(
        "SELECT first_ns FROM blocks WHERE participant = ? UNION SELECT first_ns FROM segments WHERE participant = ? ORDER BY first_ns LIMIT 1",
        (scope.participant, scope.participant),
    )
    reaches = not left or from_ns < left[0][0]
    return cut.number if reaches and not 0 < retention.ended_ns(rows, scope.participant) < from_ns else 0


def _all(event: Event) -> bool:
    del event
    return True


def _either(places: frozenset[Place], keep: Keep | None, event: Event) -> bool:
    return (event.kind == FACTS and event[1:4] in places) or (keep is not None and keep(event))


# ------------------------------------------------------------------------------------------------------- one submission


async def _of_submission(read: Read, scope: Scope, directory: Path) -> tuple[dict[int, Keep], int, int]:
    wanted = await read(partial(_wanted, scope=scope))
    found = await read(partial(_in_journal, participant=scope.participant, wanted=wanted))
    times = list(wanted.at_ns)
    for segment in await read(lambda rows: archive.segments(rows, scope.participant)):
        spans = any(segment.first_ns <= at_ns <= segment.last_ns for at_ns in wanted.at_ns)
        if segment.name in wanted.segments or spans:
            for number, events in _in_segment(directory, segment, wanted):
                found.add(number)
                times += [event.at_ns for event in events]
    return dict.fromkeys(sorted(found), wanted), min(times, default=0), max(times, default=0)


def _wanted(rows: Rows, scope: Scope) -> _Wanted:
    row = rows.one(
        "SELECT seq, transaction_id FROM submissions WHERE id = ? AND participant = ?",
        (scope.submission, scope.participant),
    )
    if row is None:
        raise NotPossible(f"{scope.participant} has no submission {scope.submission}", hint="`submissions list`")
    calls = rows.all("SELECT message_id, correlation_id FROM calls WHERE submission = ?", (row[0],))
    ours = dump(sorted({id_ for call in calls for id_ in call if id_}))
    returns = rows.all(
        "SELECT message_id, received_ns FROM returns WHERE participant = ? AND quarantined = ''"
        " AND ((transaction_id <> '' AND transaction_id = ?) OR (correlation_id <> '' AND correlation_id IN (SELECT value FROM json_each(?))))",
        (scope.participant, row[1], ours),
    )
    events = rows.all(
        "SELECT at_ns FROM events WHERE subject = ? AND participant = ?", (scope.submission, scope.participant)
    )
    return _Wanted(
        submission=scope.submission,
        returns=frozenset(found[0] for found in returns),
        segments=tuple(archive.segments_of(rows, scope.submission)),
        at_ns=tuple([found[1] for found in returns] + [found[0] for found in events]),
    )


def _in_journal(rows: Rows, participant: str, wanted: _Wanted) -> set[int]:
    """The blocks in the journal that hold its events."""
    found = rows.all(
        "SELECT writer, epoch, number, at_ns, kind, subject FROM events WHERE participant = ? AND subject IN (SELECT value FROM json_each(?))",
        (participant, dump([wanted.submission, *sorted(wanted.returns)])),
    )
    mine = [row for row in found if row[5] == wanted.submission or row[4].split(".")[0] == _RETURN]
    return {number for row in mine for number in _blocks_of(rows, participant, row[:3], row[3])}


def _blocks_of(rows: Rows, participant: str, place: Place, at_ns: int) -> list[int]:
    blocks = rows.all(
        "SELECT number, ranges FROM blocks WHERE participant = ? AND first_ns <= ? AND last_ns >= ? ORDER BY number",
        (participant, at_ns, at_ns),
    )
    writer, epoch, number = place
    return [
        block
        for block, ranges in blocks
        if any(
            (found[0], found[1]) == (writer, epoch) and found[2] <= number <= found[3] for found in orjson.loads(ranges)
        )
    ]


def _in_segment(directory: Path, segment: SegmentRow, keep: Keep) -> Iterator[tuple[int, list[Event]]]:
    """The blocks of a segment that hold such events, with these."""
    try:
        for block in read_blocks(directory / segment.name):
            mine = [event for event in block.events if keep(event)]
            if mine:
                yield block.stored.block.number, mine
    except (SegmentDamaged, OSError) as error:
        raise EvidenceBroken(f"segment {segment.name}: {error}", hint=_HINT) from error


# -------------------------------------------------------------------------------------------------------- span and facts


async def _of_span(read: Read, scope: Scope, directory: Path) -> tuple[dict[int, Keep], int, int]:
    here = await read(
        lambda rows: rows.all(
            "SELECT number FROM blocks WHERE participant = ? AND first_ns <= ? AND last_ns >= ?",
            (scope.participant, scope.to_ns, scope.from_ns),
        )
    )
    numbers = {row[0] for row in here}
    for segment in await read(lambda rows: archive.segments(rows, scope.participant)):
        if segment.first_ns <= scope.to_ns and segment.last_ns >= scope.from_ns:
            numbers |= set(_spanned(directory, segment, scope))
    if numbers:  # a clock may have been set back: no block between two wanted ones is left out
        numbers = set(range(min(numbers), max(numbers) + 1))
    return dict.fromkeys(sorted(numbers), _all), scope.from_ns, scope.to_ns


def _spanned(directory: Path, segment: SegmentRow, scope: Scope) -> Iterator[int]:
    """The blocks of a segment that hold something of the span."""
    try:
        for found in read_blocks(directory / segment.name):
            block = found.stored.block
            if block.first_ns <= scope.to_ns and block.last_ns >= scope.from_ns:
                yield block.number
    except (SegmentDamaged, OSError) as error:
        raise EvidenceBroken(f"segment {segment.name}: {error}", hint=_HINT) from error


async def _facts(
    read: Read, participant: str, directory: Path, first_ns: int, last_ns: int
) -> dict[int, frozenset[Place]]:
    """The facts that held from `first_ns` to `last_ns`: those noted meanwhile, and the last ones before."""
    found = await read(partial(_facts_here, participant=participant, last_ns=last_ns))
    if not any(at_ns <= first_ns for at_ns, _, _ in found):
        for segment in reversed(await read(lambda rows: archive.segments(rows, participant))):
            if segment.first_ns > last_ns:
                continue
            for number, events in _in_segment(directory, segment, lambda event: event.kind == FACTS):
                found += [(event.at_ns, number, event[1:4]) for event in events if event.at_ns <= last_ns]
            if any(at_ns <= first_ns for at_ns, _, _ in found):
                break
    before = max((at_ns for at_ns, _, _ in found if at_ns <= first_ns), default=first_ns)
    places: dict[int, set[Place]] = {}
    for at_ns, number, place in found:
        if at_ns >= before:
            places.setdefault(number, set()).add(place)
    return {number: frozenset(mine) for number, mine in places.items()}


def _facts_here(rows: Rows, participant: str, last_ns: int) -> list[tuple[int, int, Place]]:
    events = rows.all(
        "SELECT writer, epoch, number, at_ns FROM events WHERE subject = ? AND participant = ? AND at_ns <= ? ORDER BY id",
        (FACTS, participant, last_ns),
    )
    return [
        (at_ns, block, (writer, epoch, number))
        for writer, epoch, number, at_ns in events
        for block in _blocks_of(rows, participant, (writer, epoch, number), at_ns)
    ]
