"""The archiver: writes old sealed evidence to segments, checks them, and only then lets the journal forget it. Ends well at any moment."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import quote

from bridge.clock import Clock
from bridge.errors import BridgeError, Fenced, JournalFull, LeaseHeld
from bridge.journal import archive
from bridge.journal.archive import BlockRows, Pinned, SegmentRow
from bridge.journal.evidence import Evidence
from bridge.journal.files import digest_of, make_directory, sync_directory
from bridge.journal.held import Leases, held
from bridge.journal.port import Fence
from bridge.journal.sealing import Stored
from bridge.journal.segments import (
    SUFFIX,
    SegmentContent,
    SegmentDamaged,
    SegmentHead,
    SegmentWriter,
    read_content,
)

log = logging.getLogger(__name__)

_DAY_S: Final = 86_400.0
_PAGE: Final = 50
_SEGMENT_BYTES: Final = 32 * 1024 * 1024  # before compression
_STEP_BYTES: Final = 2 * 1024 * 1024  # of blobs, read or deleted at once
_STEP_PAUSE_S: Final = 0.005  # between commits that delete, so that others come first
_YOUNGER_S: Final = (7 * _DAY_S, _DAY_S, 3600.0)  # when there is little room, younger evidence goes too
_REST_S: Final = 600.0  # after a run that could move nothing
_PARTIAL: Final = ".partial"


class Room:
    """How short the room in the journal is, from the sealer to the archiver: 0 enough, 1 little, 2 very little."""

    def __init__(self) -> None:
        self._level = 0
        self._risen = asyncio.Event()

    def tell(self, level: int) -> None:
        """What the sealer saw."""
        if level > self._level:
            self._risen.set()
        self._level = level

    async def short(self) -> None:
        """Wait until room is short."""
        while not self._level:
            self._risen.clear()
            await self._risen.wait()

    async def rest(self, seconds: float) -> None:
        """Nothing could be done about it: wait this long, or until it is shorter still."""
        self._risen.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._risen.wait()


@dataclass(slots=True, kw_only=True)
class ArchiveReport:
    """What one run moved. `raw_bytes` is the evidence before compression, `bytes` the files."""

    segments: int = 0
    blocks: int = 0
    events: int = 0
    raw_bytes: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiverSettings:
    """The directory of the segments, how old evidence is when it moves by itself, and the shares of `max_bytes` (0: no cap) that decide when."""

    directory: Path
    after_s: float
    max_bytes: int = 0
    archive_from: float = 0.6
    hurry_from: float = 0.8


class ArchiveFailed(BridgeError):
    """A segment could not be written or is not what it should be; everything that it would hold is still in the journal."""


class Archiver:
    """Moves evidence; one run at a time on one journal, under the lease `archive.ARCHIVE`."""

    def __init__(self, settings: ArchiverSettings, *, evidence: Evidence, journal: Leases, clock: Clock) -> None:
        self._settings = settings
        self._directory = settings.directory
        self._evidence = evidence
        self._journal = journal
        self._clock = clock
        self.alone = asyncio.Lock()  # of this process's tasks: the lease tells processes apart alone

    async def run(self, room: Room) -> None:
        """Archive whenever room is short, until cancelled; while nothing can be moved it rests between tries."""
        while True:
            await room.short()
            if await self._make_room():
                room.tell(0)  # until the sealer looks again
            else:
                await room.rest(_REST_S)

    async def archive(self, older_than_s: float) -> ArchiveReport:
        """One run: finish what an earlier one left, then move what is settled and older. Raises `LeaseHeld`, `Fenced`, `ArchiveFailed`, `JournalFull`."""
        async with self.alone, held(self._journal, archive.ARCHIVE) as fence:
            return await self._archive(fence, older_than_s)

    async def _archive(self, fence: Fence, older_than_s: float) -> ArchiveReport:
        report = ArchiveReport()
        try:
            await asyncio.to_thread(self._tidy)
            broken = await self._resume(fence)
            now_ns = self._clock.wall_ns()
            pinned = await self._evidence.read(lambda rows: archive.pinned(rows, now_ns))
            await self._adopt(fence, pinned, report)
            before_ns = now_ns - int(older_than_s * 1e9)
            for participant in await self._evidence.read(archive.participants):
                if participant in broken:
                    continue
                try:
                    await self._participant(fence, participant, before_ns, pinned, report)
                except ArchiveFailed as error:  # its own evidence is not what it should be
                    broken[participant] = error
        except OSError as error:
            raise self._unusable(error) from error
        if broken:
            raise next(iter(broken.values()))
        return report

    def _unusable(self, error: OSError) -> ArchiveFailed:
        return ArchiveFailed(
            f"the archive cannot be used: {error.filename or self._directory}: {error.strerror or error}",
            hint="is there room, and may the service write there? Nothing was lost",
        )

    # by itself -------------------------------------------------------------------------------------------------------

    async def _make_room(self) -> bool:
        """Runs with younger and younger evidence while there is little room; whether anything was moved."""
        moved = False
        for age in (self._settings.after_s, *(age for age in _YOUNGER_S if age < self._settings.after_s)):
            used = await self._evidence.used_bytes()
            cap = self._settings.max_bytes
            share = self._settings.archive_from if age == self._settings.after_s else self._settings.hurry_from
            if used < cap * share:
                break
            moved |= await self._try(age)
        return moved

    async def _try(self, age_s: float) -> bool:
        try:
            report = await self.archive(age_s)
        except (LeaseHeld, Fenced):  # somebody else works on the archive, or took it over
            return False
        except (ArchiveFailed, JournalFull) as error:
            log.warning("archive_failed", extra={"cause": str(error)})
            await self._tell(str(error))
            return False
        await self._tell("")
        if report.segments:
            log.info("archived", extra={"segments": report.segments, "blocks": report.blocks, "bytes": report.bytes})
        return report.segments > 0

    async def _tell(self, problem: str) -> None:
        try:
            await self._journal.alarm("ARCHIVE", text=problem, clear=not problem)
        except JournalFull:  # its own alarm stands
            log.warning("alarm_waits")

    # what an earlier run left ----------------------------------------------------------------------------------------

    def _tidy(self) -> None:
        """Half-written files were never named by anybody."""
        make_directory(self._directory)
        for left in self._directory.glob(f".*{_PARTIAL}"):
            left.unlink()

    async def _resume(self, fence: Fence) -> dict[str, ArchiveFailed]:
        """Let the journal forget what a named segment holds; why that cannot be done, by participant: it is in nobody else's way."""
        broken: dict[str, ArchiveFailed] = {}
        for row in await self._evidence.read(archive.segments):
            if row.emptied:
                continue
            try:
                await self._take_up(fence, row)
            except ArchiveFailed as error:
                broken.setdefault(row.participant, error)
            except OSError as error:
                broken.setdefault(row.participant, self._unusable(error))
        return broken

    async def _take_up(self, fence: Fence, row: SegmentRow) -> None:
        content = await asyncio.to_thread(self._read, row.name)
        if await asyncio.to_thread(digest_of, self._directory / row.name) != row.sha256:
            raise ArchiveFailed(f"{row.name} was changed after it was written", hint=_KEEP)
        await self._empty(fence, row.id, content)

    async def _adopt(self, fence: Fence, pinned: Pinned, report: ArchiveReport) -> None:
        """A segment that was written but not named yet is named now, where the journal still holds all of it and needs none of it; any other file is left alone.

        In a journal that was restored from a backup a call may still be open that had ended when the segment was written.
        """
        journal = await self._evidence.read(archive.journal_id)
        for name in unlisted(self._directory, await self._evidence.read(archive.segments)):
            try:
                content = await asyncio.to_thread(read_content, self._directory / name)
            except SegmentDamaged:  # `journal verify` tells of it
                continue
            hashes = _hashes(content)
            here = await self._evidence.read(
                partial(archive.still_here, participant=content.head.participant, hashes=hashes)
            )
            if content.head.journal == journal and hashes and here == hashes and not await self._held(content, pinned):
                await self._name_and_empty(fence, name, content, report)

    async def _held(self, content: SegmentContent, pinned: Pinned) -> bool:
        """Whether something unsettled keeps one of these blocks in the journal."""
        for stored in content.blocks:
            if (await self._evidence.read(partial(archive.block_rows, stored=stored))).held_by(pinned):
                return True
        return False

    # one segment -----------------------------------------------------------------------------------------------------

    async def _participant(
        self, fence: Fence, participant: str, before_ns: int, pinned: Pinned, report: ArchiveReport
    ) -> None:
        blocks = self._settled(participant, before_ns, pinned)
        while (first := await anext(blocks, None)) is not None:
            name, content = await self._write(first, blocks, report)
            await self._name_and_empty(fence, name, content, report)

    async def _settled(self, participant: str, before_ns: int, pinned: Pinned) -> AsyncIterator[BlockRows]:
        """The blocks that may go, oldest first."""
        first = 1
        while True:
            page, following = await self._evidence.read(
                partial(archive.candidates, participant=participant, first=first, before_ns=before_ns, limit=_PAGE)
            )
            for stored in page:
                found = await self._evidence.read(partial(archive.block_rows, stored=stored))
                if not found.held_by(pinned):
                    yield found
            if following is None:
                return
            first = following

    async def _write(
        self, first: BlockRows, blocks: AsyncIterator[BlockRows], report: ArchiveReport
    ) -> tuple[str, SegmentContent]:
        """Write the next segment, from this block on, checked and durable under its name."""
        participant = first.stored.block.participant
        head = SegmentHead(journal=await self._evidence.read(archive.journal_id), participant=participant)
        beside = self._directory / f".{quote(participant, safe='') or 'host'}-{self._clock.mono_ns()}{_PARTIAL}"
        written: list[Stored] = []
        with SegmentWriter(beside, head) as writer:
            found: BlockRows | None = first
            while found is not None:
                await self._write_block(writer, found)
                written.append(found.stored)
                if writer.raw_bytes >= _SEGMENT_BYTES:
                    break
                found = await anext(blocks, None)
            await asyncio.to_thread(writer.finish)
        report.raw_bytes += writer.raw_bytes
        return await asyncio.to_thread(self._publish, beside, written)

    async def _write_block(self, writer: SegmentWriter, found: BlockRows) -> None:
        await asyncio.to_thread(writer.block, found.stored, found.events)
        for ids in _steps(found.blobs):
            await asyncio.to_thread(writer.blobs, await self._evidence.read(partial(archive.blob_bytes, ids=ids)))

    def _publish(self, beside: Path, written: list[Stored]) -> tuple[str, SegmentContent]:
        """Read the file again, compare it with what was meant, and give it its name."""
        content = self._read(beside.name)
        if content.blocks != written:
            raise ArchiveFailed("a segment does not read back as it was written", hint=_KEEP)
        numbers = [stored.block.number for stored in written]
        start = quote(content.head.participant, safe="") or "host"
        name = f"{start}-{numbers[0]:08}-{numbers[-1]:08}-{digest_of(beside).hex()[:8]}{SUFFIX}"
        beside.rename(self._directory / name)
        sync_directory(self._directory)
        return name, content

    def _read(self, name: str) -> SegmentContent:
        try:
            return read_content(self._directory / name)
        except SegmentDamaged as error:
            raise ArchiveFailed(f"{name} is damaged: {error}", hint=_KEEP) from error

    async def _name_and_empty(self, fence: Fence, name: str, content: SegmentContent, report: ArchiveReport) -> None:
        path = self._directory / name
        size, sha256 = path.stat().st_size, await asyncio.to_thread(digest_of, path)
        segment = await self._evidence.write_beyond(
            lambda tx: archive.register(
                tx,
                fence,
                participant=content.head.participant,
                name=name,
                sha256=sha256,
                size=size,
                blocks=content.numbers,
                held=content.blocks,
            )
        )
        await self._empty(fence, segment, content)
        report.segments += 1
        report.blocks += content.counts.blocks
        report.events += content.counts.events
        report.bytes += size

    async def _empty(self, fence: Fence, segment: int, content: SegmentContent) -> None:
        """Delete what a named segment holds, block by block."""
        participant, hashes = content.head.participant, _hashes(content)
        here = await self._evidence.read(lambda rows: archive.still_here(rows, participant, hashes))
        if not here.items() <= hashes.items():
            raise ArchiveFailed(f"segment {segment} holds other blocks of these numbers than the journal", hint=_KEEP)
        for stored in content.blocks:
            if stored.block.number in here:
                await self._empty_block(fence, segment, stored)
        await self._evidence.write_beyond(lambda tx: archive.emptied(tx, fence, segment))

    async def _empty_block(self, fence: Fence, segment: int, stored: Stored) -> None:
        found = await self._evidence.read(lambda rows: archive.block_rows(rows, stored))
        for ids in _steps(found.blobs):
            await self._evidence.write_beyond(partial(archive.delete_blobs, fence=fence, ids=ids))
            await asyncio.sleep(_STEP_PAUSE_S)
        await self._evidence.write_beyond(lambda tx: archive.delete_block(tx, fence, segment, found))
        await asyncio.sleep(_STEP_PAUSE_S)


_KEEP: Final = "keep the file, run `journal verify`; what it holds is still in the journal unless verify says otherwise"


def unlisted(directory: Path, known: Sequence[SegmentRow]) -> list[str]:
    """Names of segment files that the journal does not name."""
    names = {row.name for row in known}
    return [path.name for path in sorted(directory.glob(f"*{SUFFIX}")) if path.name not in names]


def _hashes(content: SegmentContent) -> dict[int, bytes]:
    return {stored.block.number: stored.hash for stored in content.blocks}


def _steps(sizes: dict[int, int]) -> list[list[int]]:
    """Blob ids in steps of bounded size."""
    steps: list[list[int]] = []
    room = 0
    for id_, size in sizes.items():
        if not steps or size > room:
            steps.append([])
            room = _STEP_BYTES
        steps[-1].append(id_)
        room -= size
    return steps
