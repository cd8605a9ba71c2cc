"""Verification: everything that was sealed is computed again, from the journal and its segments, beside a running service or without one."""

import hashlib
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, Protocol, TypeVar

from bridge.journal import anchor, archive, erasing, heads, retention, sealing
from bridge.journal.anchor import AnchorFinding
from bridge.journal.archive import SegmentRow
from bridge.journal.archiver import unlisted
from bridge.journal.blocks import Event, spoken_of
from bridge.journal.files import digest_of
from bridge.journal.sealing import Stored, gap_text
from bridge.journal.segments import ReadBlock, SegmentDamaged, read_blocks, wrong_in
from bridge.journal.store import Rows

T = TypeVar("T")

_PAGE: Final = 20
_TOLD: Final = 5
_WALKS: Final = 5  # of one chain, at most; each of the others begins after somebody else's work on the archive
_BLOB_BYTES: Final = 4 * 1024 * 1024


class Read(Protocol):
    """Runs `work` on one snapshot."""

    def __call__(self, work: Callable[[Rows], T], /) -> Awaitable[T]:
        """The result of `work`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something that is not as it was sealed, and where."""

    participant: str
    place: str
    text: str


@dataclass(slots=True, kw_only=True)
class ChainReport:
    """One participant's chain: what was looked at. `erased`: bytes that are gone while their digest stands; `unsealed`: events that wait for their block.

    `retired`: blocks at the beginning whose time was over.
    """

    participant: str
    blocks: int = 0
    archived: int = 0
    events: int = 0
    erased: int = 0
    unsealed: int = 0
    retired: int = 0
    first_ns: int = 0
    last_ns: int = 0


@dataclass(slots=True, kw_only=True)
class VerifyReport:
    """The whole journal: whole when `faults` is empty."""

    journal: str = ""
    chains: list[ChainReport] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    segments: int = 0
    unlisted: list[str] = field(default_factory=list)
    anchor: AnchorFinding | None = None


async def verify(read: Read, *, archive_directory: Path, anchor_file: Path | None) -> VerifyReport:
    """Recompute every block of every participant. `read` may run beside a service that seals and archives meanwhile."""
    report = VerifyReport(journal=await read(sealing.identity))
    for participant in await read(_participants):
        await _settled(read, report, archive_directory, participant)
    report.unlisted = unlisted(archive_directory, await read(archive.segments))
    if anchor_file is not None:
        loaded = anchor.load(anchor_file)
        report.anchor = await read(lambda rows: anchor.judge(rows, loaded))
        if not report.anchor.verdict.safe:
            report.faults.append(Fault(participant="", place="anchor", text=report.anchor.text))
    return report


async def _settled(read: Read, report: VerifyReport, directory: Path, participant: str) -> None:
    """Walk a chain, and once more where something was wrong while its segments were replaced (an erasure) or retired: only what stays wrong is a fault."""
    listed = await read(partial(_listed, participant=participant))
    for _ in range(_WALKS):
        found = VerifyReport(journal=report.journal)
        await _Chain(read, found, directory, participant).check()
        before, listed = listed, await read(partial(_listed, participant=participant))
        if not found.faults or listed == before:
            break
    report.chains += found.chains
    report.faults += found.faults
    report.segments += found.segments


def _listed(rows: Rows, participant: str) -> tuple[list[str], retention.Cut]:
    """What a walk goes by: the names of the segments, and where the chain begins."""
    return [row.name for row in archive.segments(rows, participant)], retention.cut_of(rows, participant)


def _participants(rows: Rows) -> list[str]:
    found = rows.all(
        "SELECT participant FROM chains UNION SELECT participant FROM segments UNION SELECT DISTINCT participant FROM events ORDER BY 1"
    )
    return [row[0] for row in found]


class _Segment:
    """One segment, read block by block as far as it is needed."""

    def __init__(self, directory: Path, row: SegmentRow) -> None:
        self.row = row
        self.first = row.blocks[0][0]
        self.fault = ""
        self.next: ReadBlock | None = None
        self._path = directory / row.name
        self._blocks: Iterator[ReadBlock] | None = None

    def open(self) -> None:
        """Check the file's digest and read its first block."""
        try:
            same = digest_of(self._path) == self.row.sha256
        except OSError as error:
            self.fault = f"it cannot be read: {error.strerror}"
            return
        self.fault = "" if same else "the file is not the one that was written"
        self._blocks = read_blocks(self._path)
        self.advance()

    def advance(self) -> None:
        """The next block, or none at the end and after a fault."""
        self.next = None
        try:
            self.next = next(self._blocks, None) if self._blocks else None
        except (SegmentDamaged, OSError) as error:
            self.fault = str(error)


class _Chain:
    """The chain of one participant, walked from its first block to its last."""

    def __init__(self, read: Read, report: VerifyReport, directory: Path, participant: str) -> None:
        self._read = read
        self._report = report
        self._directory = directory
        self._chain = ChainReport(participant=participant)
        self._who = participant
        self._pending: list[_Segment] = []
        self._active: list[_Segment] = []
        self._known: set[int] = set()
        self._page: dict[int, Stored] = {}
        self._hash = b""
        self._signed: dict[int, set[bytes]] = {}
        self._numbers: dict[tuple[str, int], int] = {}
        self._gone: set[bytes] = set()
        self._named: set[bytes] = set()
        self._cut = retention.NO_CUT
        self._told = retention.NO_CUT

    async def check(self) -> None:
        """Walk, then look at what is not sealed yet."""
        self._report.chains.append(self._chain)
        for head in await self._read(lambda rows: heads.of(rows, self._who)):
            self._signed.setdefault(head.number, set()).add(head.hash)
        last, hash_ = await self._read(lambda rows: sealing.head(rows, self._who))
        await self._learn_segments()
        self._cut = await self._read(lambda rows: retention.cut_of(rows, self._who))
        self._hash, self._chain.retired = self._cut.hash, self._cut.number
        number = self._cut.number + 1
        while number <= last or self._pending or self._active:
            number = await self._one(number, last)
        if self._hash != hash_ and self._chain.blocks:
            last_now, hash_now = await self._read(lambda rows: sealing.head(rows, self._who))
            if (last_now, hash_now) == (last, hash_):
                self._fault(f"block {last}", "it is not the block with which the chain ends")
        beyond = [number for number in self._signed if number > last]
        if beyond:
            self._fault(f"block {max(beyond)}", f"it was signed, and the chain ends with block {last}: it was cut off")
        await self._check_rest()
        await self._check_erased()
        await self._check_retired()

    async def _one(self, number: int, last: int) -> int:
        """Look at the block of this number, wherever it is; the number to go on with."""
        found = self._archived(number)
        if found is not None:
            self._take(found.stored, archived=True)
            self._chain.erased += found.erased
            self._note_gone(found.gone, found.events)
            return number + 1
        stored = await self._stored(number)
        if stored is not None and await self._check_stored(stored):
            return number + 1
        self._page.clear()
        if await self._learn_segments() or stored is not None:  # it was archived a moment ago
            return number
        return await self._skip(number, last)

    async def _skip(self, number: int, last: int) -> int:
        """Blocks are missing up to the next one that is anywhere."""
        ahead = [segment.next.stored.block.number for segment in self._active if segment.next]
        ahead += [segment.first for segment in self._pending]
        here = await self._read(lambda rows: sealing.stored_blocks(rows, self._who, number, 1))
        ahead += [stored.block.number for stored in here]
        following = min((found for found in ahead if found > number), default=max(last, number) + 1)
        if number <= last:
            where = f"block {number}" if following == number + 1 else f"blocks {number} to {following - 1}"
            self._fault(where, "missing: neither in the journal nor in a segment that can be read")
        self._hash = b""
        return following

    # segments --------------------------------------------------------------------------------------------------------

    async def _learn_segments(self) -> bool:
        """Take in segments that the journal names and that were not known yet."""
        rows = await self._read(lambda rows: archive.segments(rows, self._who))
        new = [row for row in rows if row.id not in self._known]
        self._known |= {row.id for row in new}
        self._pending = sorted(
            [*self._pending, *(_Segment(self._directory, row) for row in new)], key=lambda segment: segment.first
        )
        return bool(new)

    def _archived(self, number: int) -> ReadBlock | None:
        """The block of this number in a segment; segments are opened when their first block comes and closed after their last."""
        while self._pending and self._pending[0].first <= number:
            segment = self._pending.pop(0)
            segment.open()
            self._report.segments += 1
            self._active.append(segment)
        found = None
        for segment in tuple(self._active):
            while segment.next is not None and segment.next.stored.block.number < number:
                segment.advance()
            if segment.next is not None and segment.next.stored.block.number == number:
                found = found or segment.next
                segment.advance()
            if segment.next is None:
                self._active.remove(segment)
                if segment.fault:
                    self._fault(f"segment {segment.row.name}", segment.fault)
        return found

    # blocks ----------------------------------------------------------------------------------------------------------

    async def _stored(self, number: int) -> Stored | None:
        if number not in self._page:
            page = await self._read(lambda rows: sealing.stored_blocks(rows, self._who, number, _PAGE))
            self._page = {stored.block.number: stored for stored in page}
        return self._page.get(number)

    async def _check_stored(self, stored: Stored) -> bool:
        """A block in the journal; False when it is not there any more."""
        try:
            return await self._compute(stored)
        except (ValueError, TypeError, KeyError) as error:  # rows of another form than any that we write
            self._fault(f"block {stored.block.number}", f"its rows cannot be read: {error}")
            self._take(stored, archived=False)
            return True

    async def _compute(self, stored: Stored) -> bool:
        found = await self._read(partial(_rows_of, stored=stored))
        if found is None:
            return False
        events, blobs = found
        spoken, present = spoken_of(events), set[bytes]()
        for ids in _steps(blobs):
            present |= await self._read(partial(_hashed, ids=ids))
        if spoken - present and await self._learn_segments():
            return False  # it is being archived: the segment has all of it
        place = f"block {stored.block.number}"
        wrong = wrong_in(stored, events, self._report.journal)
        if wrong:
            self._fault(place, f"{wrong} ({_told(stored)})")
        if present - spoken:
            self._fault(place, f"bytes that belong to its events were changed ({_told(stored)})")
        self._chain.erased += max(0, len(spoken - present) - len(present - spoken))
        if not present - spoken:
            self._note_gone(spoken - present, events)
        self._take(stored, archived=False)
        return True

    def _take(self, stored: Stored, *, archived: bool) -> None:
        """The part of a block that ties it to those before."""
        block, chain = stored.block, self._chain
        place = f"block {block.number}"
        broken = block.number > 1 and self._hash and block.previous != self._hash
        if broken or (block.number == 1 and block.previous):
            self._fault(place, "it does not follow the block before it")
        if self._signed.get(block.number, {stored.hash}) != {stored.hash}:
            self._fault(place, "it is another one than was signed")
        for found in block.ranges:
            before = self._numbers.get(found[:2], found.first - 1 if self._cut.number else 0)
            if found.first != before + 1 and (
                self._hash or block.number == 1
            ):  # else the block before is missing anyway
                self._fault(place, gap_text(found, before))
            self._numbers[found[:2]] = found.last
        self._hash = stored.hash
        chain.blocks += 1
        chain.archived += archived
        chain.events += block.events
        chain.first_ns = min(chain.first_ns or block.first_ns, block.first_ns)
        chain.last_ns = max(chain.last_ns, block.last_ns)

    async def _check_rest(self) -> None:
        """Events in no block: those that wait for theirs go on from the sealed ones, and there are no others."""
        rest, outside = await self._read(lambda rows: _rest(rows, self._who))
        for writer, epoch, sealed, first, last, count in rest:
            self._chain.unsealed += count
            if first != sealed + 1 or count != last - first + 1:
                missing = last - sealed - count
                self._fault("not sealed yet", f"{writer}/{epoch}: {missing} events after number {sealed} are missing")
        if outside > 0:
            self._fault(
                "journal",
                f"{outside} events stand outside of every block: put in later, or left of a block that was taken out",
            )

    def _note_gone(self, gone: Iterable[bytes], events: Sequence[Event]) -> None:
        self._gone |= set(gone)
        said = [event for event in events if event.kind in (erasing.ERASED, erasing.RETURN_ERASED)]
        self._named |= {digest for event in said for digest in erasing.digests_in(event.data)}
        self._told = max([self._told, *(retention.cut_in(e.data) for e in events if e.kind == retention.RETIRED)])

    async def _check_erased(self) -> None:
        """Bytes are missing only where an event says who erased them, and why."""
        unsaid = self._gone - self._named
        if unsaid:
            unsaid -= await self._read(lambda rows: erasing.named(rows, self._who))
        if unsaid:
            told = ", ".join(digest.hex()[:16] for digest in sorted(unsaid)[:_TOLD])
            self._fault("journal", f"the bytes of {len(unsaid)} are gone, and no event says who erased them: {told}")

    async def _check_retired(self) -> None:
        """The chain begins later only where an event says that what was before had its time."""
        here = await self._read(lambda rows: retention.told(rows, self._who))
        if max(self._told, here) < self._cut:
            self._fault(
                f"block {self._cut.number}", "it and those before are gone, and no event says that they were retired"
            )

    def _fault(self, place: str, text: str) -> None:
        self._report.faults.append(Fault(participant=self._who, place=place, text=text))


def _told(stored: Stored) -> str:
    writers = ", ".join(f"{r.writer}/{r.epoch} {r.first}-{r.last}" for r in stored.block.ranges[:5])
    return f"events {writers}{' …' if len(stored.block.ranges) > 5 else ''}"


def _rows_of(rows: Rows, stored: Stored) -> tuple[list[Event], dict[int, int]] | None:
    """Events and blob sizes of a block; None when it left the journal since it was listed."""
    if sealing.block_hash(rows, stored.block.participant, stored.block.number) is None:
        return None
    found = archive.block_rows(rows, stored)
    return found.events, found.blobs


def _hashed(rows: Rows, ids: Sequence[int]) -> set[bytes]:
    return {hashlib.sha256(nonce + data).digest() for _, nonce, data in archive.blob_bytes(rows, ids)}


def _steps(sizes: dict[int, int]) -> Iterator[list[int]]:
    step: list[int] = []
    room = _BLOB_BYTES
    for id_, size in sizes.items():
        if step and size > room:
            yield step
            step, room = [], _BLOB_BYTES
        step.append(id_)
        room -= size
    if step:
        yield step


def _rest(rows: Rows, participant: str) -> tuple[list[tuple[str, int, int, int, int, int]], int]:
    """Per writer what is not sealed (writer, epoch, last sealed, first, last, count), and how many events are neither sealed nor waiting."""
    waiting = rows.all(
        "SELECT e.writer, e.epoch, coalesce(w.number, 0), min(e.number), max(e.number), count(*) FROM events e"
        " LEFT JOIN sealed_writers w ON w.participant = e.participant AND w.writer = e.writer AND w.epoch = e.epoch"
        " WHERE e.participant = ? AND e.number > coalesce(w.number, 0) GROUP BY e.writer, e.epoch, coalesce(w.number, 0)",
        (participant,),
    )
    total, sealed = rows.all(
        "SELECT (SELECT count(*) FROM events WHERE participant = ?), (SELECT coalesce(sum(events), 0) FROM blocks WHERE participant = ?)",
        (participant, participant),
    )[0]
    found = [(row[0], row[1], row[2], row[3], row[4], row[5]) for row in waiting]
    return found, int(total) - sum(row[5] for row in found) - int(sealed)
