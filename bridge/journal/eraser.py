"""The eraser: finds a person's data in the journal and its archive, and removes them. Ends well at any moment: what is left is found by the next run.

The order is: bytes in the journal, segments written anew, and only then the items, by which the rest is found. A segment's old file is deleted after the
journal names the new one. `bridge.journal.wiping` then takes what deleted rows left in the file.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import quote

from bridge.clock import Clock
from bridge.errors import NotPossible
from bridge.journal import archive, erasing, sealing
from bridge.journal.archive import SegmentRow
from bridge.journal.archiver import ArchiveFailed, unlisted
from bridge.journal.erasing import Items, Place, Subject, Texts
from bridge.journal.evidence import Evidence
from bridge.journal.files import digest_of, sync_directory
from bridge.journal.held import Leases, held
from bridge.journal.people import Decision
from bridge.journal.port import Fence
from bridge.journal.segments import SUFFIX, SegmentDamaged, SegmentHead, SegmentWriter, read_blocks, read_content
from bridge.journal.store import Rows, dump
from bridge.journal.terms import Terms

_STEP: Final = 100  # blobs or items of one commit
_NAMED: Final = 10
_KEEP: Final = "nothing was erased; keep the file and run `smp-bridge journal verify`"


@dataclass(slots=True, kw_only=True)
class InSegment:
    """What of one segment goes."""

    row: SegmentRow
    digests: set[bytes] = field(default_factory=set)
    places: dict[Subject, Place] = field(default_factory=dict)
    messages: set[str] = field(default_factory=set)
    returns: set[int] = field(default_factory=set)


@dataclass(slots=True, kw_only=True)
class Erasure:
    """What is to go, or went. `stays` is what nobody can erase: names of registered things, events that were sealed with it."""

    items: Items
    blobs: dict[bytes, int] = field(default_factory=dict)
    places: dict[Subject, Place] = field(default_factory=dict)
    segments: list[InSegment] = field(default_factory=list)
    texts: Texts = field(default_factory=dict)
    left_over: list[str] = field(default_factory=list)
    """Files of segments that were replaced and are still there."""
    stays: dict[str, int] = field(default_factory=dict)

    @property
    def pieces(self) -> int:
        """How many pieces of bytes."""
        return len(self.blobs) + sum(len(segment.digests) for segment in self.segments)

    @property
    def nothing(self) -> bool:
        """Whether there is nothing to do."""
        return not (self.pieces or self.items.ids or self.texts or self.left_over)

    @property
    def subjects(self) -> list[str]:
        """The submissions, returns and flows that lose bytes."""
        found = {subject for _, subject in self.places}
        found |= {subject for segment in self.segments for _, subject in segment.places}
        return sorted(found | set(self.items.submissions.values()))


class Eraser:
    """Erases for one participant; one run at a time on one journal, under the lease `archive.ARCHIVE`."""

    def __init__(self, directory: Path, *, evidence: Evidence, journal: Leases, clock: Clock) -> None:
        self._directory = directory
        self._evidence = evidence
        self._journal = journal
        self._clock = clock

    async def find(self, participant: str, terms: Terms) -> Erasure:
        """What would go; nothing is changed. Raises `NotPossible` while something unsettled needs it, `ArchiveFailed` for a segment that cannot be read."""
        read = self._evidence.read
        found = Erasure(items=await read(partial(erasing.items, participant=participant, terms=terms)))
        ids = await read(lambda rows: erasing.linked_blobs(rows, found.items))
        after: int | None = 0
        while after is not None:
            step = partial(erasing.blobs_with, participant=participant, terms=terms, after=after)
            mine, after = await read(step)
            ids |= mine
        await self._check_settled(found.items, ids)
        found.blobs = await read(lambda rows: erasing.digests_of(rows, ids))
        found.places, sealed = await read(lambda rows: erasing.speaking(rows, participant, found.blobs, terms))
        for row in await read(lambda rows: archive.segments(rows, participant)):
            inside = await asyncio.to_thread(self._look, row, terms, found.items, sealed)
            if inside.digests:
                found.segments.append(inside)
        found.left_over = await self._replaced(participant, terms)
        found.texts = await read(lambda rows: erasing.texts(rows, participant, terms))
        found.stays = await read(lambda rows: erasing.names(rows, participant, terms))
        found.stays |= {f"event {kind}": count for kind, count in sealed.items()}
        for id_, seq in (await read(lambda rows: _items_of(rows, found.items))).items():
            place = found.places.setdefault((erasing.ERASED, found.items.submissions[seq]), Place())
            place.items.add(id_)
        return found

    async def erase(self, participant: str, terms: Terms, decision: Decision) -> Erasure:
        """Remove it. Raises as `find` does, `LeaseHeld` while the archive is worked on, `Fenced` and `JournalFull`."""
        if terms.within_text(" ".join(map(str, decision.said().values()))):
            raise NotPossible(
                "names and reasons stand in an event, which is never erased, and they name what is to go",
                hint="say it in other words, such as the number of the request",
            )
        try:
            async with held(self._journal, archive.ARCHIVE) as fence:
                found = await self.find(participant, terms)
                await self._erase(fence, participant, found, decision)
        except OSError as error:
            raise ArchiveFailed(
                f"the archive cannot be changed: {error.filename or self._directory}: {error.strerror or error}",
                hint="is there room, and may you write there? What is left is found when you ask again",
            ) from error
        return found

    # looking ---------------------------------------------------------------------------------------------------------

    async def _check_settled(self, items: Items, blobs: set[int]) -> None:
        now_ns = self._clock.wall_ns()
        submissions, returns = await self._evidence.read(lambda rows: erasing.in_use(rows, blobs, now_ns))
        open_ = sorted({*items.open, *submissions})
        if open_:
            raise NotPossible(
                f"{len(open_)} submissions that hold it have not ended: {', '.join(open_[:_NAMED])}; nothing was erased",
                hint="wait for their outcome, or cancel or confirm them (`smp-bridge submissions`), then ask again",
            )
        if returns:
            raise NotPossible(
                f"{len(returns)} returns that hold it were not dealt with yet; nothing was erased",
                hint="one that answers no call of ours is dealt with after a day; then ask again",
            )

    def _look(self, row: SegmentRow, terms: Terms, items: Items, sealed: dict[str, int]) -> InSegment:
        inside = InSegment(row=row)
        try:
            for block in read_blocks(self._directory / row.name, with_bytes=True):
                linked = erasing.content_digests(block.events, items.submissions.values())
                mine = frozenset(
                    digest for digest, (_, data) in block.bytes.items() if digest in linked or terms.within(data)
                )
                inside.digests |= mine
                for event in block.events:
                    erasing.note(inside.places, event, mine)
                    if terms.within_text(f"{event.subject} {event.data}"):
                        sealed[event.kind] = sealed.get(event.kind, 0) + 1
                messages, returns = erasing.envelopes_of(block.events, mine)
                inside.messages |= messages
                inside.returns |= returns
        except (SegmentDamaged, OSError) as error:
            raise ArchiveFailed(f"segment {row.name}: {error}", hint=_KEEP) from error
        return inside

    async def _replaced(self, participant: str, terms: Terms) -> list[str]:
        """Files of this journal that the list does not name and that hold it: of a run that was cut off. Raises `NotPossible` for one that is no copy."""
        rows = await self._evidence.read(archive.segments)
        journal = await self._evidence.read(archive.journal_id)
        found = []
        for name in unlisted(self._directory, rows):
            held = await asyncio.to_thread(self._holding, name, terms)
            if held is None or held[0].participant != participant:
                continue
            here = await self._evidence.read(partial(archive.still_here, participant=participant, hashes=held[1]))
            covered = here.keys() | {
                n for n in held[1] for row in rows if row.participant == participant and row.covers(n)
            }
            if held[0].journal != journal or not held[1].keys() <= covered:
                raise NotPossible(
                    f"{name} holds it and is not of this journal's list (a restore replaced the journal?); nothing was erased",
                    hint="delete that file, or move it away, then ask again",
                )
            found.append(name)
        return found

    def _holding(self, name: str, terms: Terms) -> tuple[SegmentHead, dict[int, bytes]] | None:
        """Whose it is and its blocks, when it holds it."""
        path = self._directory / name
        try:
            content = read_content(path)
            held = any(
                terms.within(data) for block in read_blocks(path, with_bytes=True) for _, data in block.bytes.values()
            )
        except SegmentDamaged:  # `journal verify` tells of it
            return None
        return (content.head, {stored.block.number: stored.hash for stored in content.blocks}) if held else None

    # erasing ---------------------------------------------------------------------------------------------------------

    async def _erase(self, fence: Fence, participant: str, found: Erasure, decision: Decision) -> None:
        write = self._evidence.write_beyond
        if not found.nothing:
            await write(partial(sealing.set_meta, name=erasing.UNWIPED, value=participant))
        await write(partial(erasing.say, participant=participant, places=found.places, decision=decision))
        for ids in _steps(sorted(found.blobs.values())):
            await write(partial(erasing.erase_blobs, fence=fence, ids=ids))
        for inside in found.segments:
            await self._rewrite(fence, inside, decision)
        for name in found.left_over:
            (self._directory / name).unlink()
        if found.left_over:
            sync_directory(self._directory)
        if found.texts:
            await write(partial(erasing.erase_texts, found=found.texts))
        for ids in _steps(sorted(found.items.ids)):
            await write(partial(erasing.erase_items, ids=ids))

    async def _rewrite(self, fence: Fence, inside: InSegment, decision: Decision) -> None:
        """The segment without these bytes, under another name; then the old file goes."""
        row, write = inside.row, self._evidence.write_beyond
        if await asyncio.to_thread(digest_of, self._directory / row.name) != row.sha256:
            raise ArchiveFailed(f"{row.name} was changed after it was written", hint=_KEEP)
        name, sha256, size = await asyncio.to_thread(self._copy, row, frozenset(inside.digests))
        await write(partial(erasing.say, participant=row.participant, places=inside.places, decision=decision))
        await write(
            partial(
                erasing.erase_envelopes, participant=row.participant, messages=inside.messages, returns=inside.returns
            )
        )
        await write(lambda tx: erasing.replace_segment(tx, fence, row.id, name=name, sha256=sha256, size=size))
        (self._directory / row.name).unlink()
        await asyncio.to_thread(sync_directory, self._directory)

    def _copy(self, row: SegmentRow, without: frozenset[bytes]) -> tuple[str, bytes, int]:
        """Write it beside, read it again, compare, and give it its name: name, digest, size."""
        path = self._directory / row.name
        content = read_content(path)
        beside = self._directory / f".{quote(row.participant, safe='') or 'host'}-{self._clock.mono_ns()}.partial"
        with SegmentWriter(beside, content.head) as writer:
            for block in read_blocks(path, with_bytes=True):
                writer.block(block.stored, block.events)
                writer.blobs(
                    (digest, nonce, data) for digest, (nonce, data) in block.bytes.items() if digest not in without
                )
            writer.finish()
        again = read_content(beside)
        if again.blocks != content.blocks or again.counts.blobs != content.counts.blobs - _lost(path, without):
            beside.unlink()
            raise ArchiveFailed(f"{row.name} does not read back as it was written anew", hint=_KEEP)
        sha256 = digest_of(beside)
        name = f"{row.name.removesuffix(SUFFIX).rsplit('-', 1)[0]}-{sha256.hex()[:8]}{SUFFIX}"
        size = beside.stat().st_size
        beside.rename(self._directory / name)
        sync_directory(self._directory)
        return name, sha256, size


def _items_of(rows: Rows, items: Items) -> dict[int, int]:
    """The submission's row of each item."""
    found = rows.all(
        "SELECT id, submission FROM items WHERE id IN (SELECT CAST(value AS BIGINT) FROM json_each(?))",
        (dump(sorted(items.ids)),),
    )
    return dict(found)


def _steps(ids: Sequence[int]) -> list[list[int]]:
    return [list(ids[start : start + _STEP]) for start in range(0, len(ids), _STEP)]


def _lost(path: Path, without: frozenset[bytes]) -> int:
    return sum(len(without & block.bytes.keys()) for block in read_blocks(path, with_bytes=True))
