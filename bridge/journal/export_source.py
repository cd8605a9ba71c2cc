"""Where an export's blocks come from: the journal, or a segment that they were moved to. Each is checked against its own hash and root before it is handed out."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import orjson

from bridge.journal import archive, sealing
from bridge.journal.archive import SegmentRow
from bridge.journal.blocks import Event, spoken_of
from bridge.journal.calls import envelope_of, load_call
from bridge.journal.files import digest_of
from bridge.journal.heads import EvidenceBroken
from bridge.journal.returns import envelope_of as headers_of
from bridge.journal.sealing import Stored
from bridge.journal.segments import ReadBlock, SegmentDamaged, read_blocks, wrong_in
from bridge.journal.store import Rows, dump
from bridge.journal.verify import Read

Keep = Callable[[Event], bool]

_HINT: Final = "keep the journal and its archive as they are, and run `smp-bridge journal verify`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A block with its events, and the bytes (nonce and content by digest) that the wanted ones speak of. `spoken` has their digests in order."""

    stored: Stored
    events: list[Event]
    spoken: list[bytes]
    bytes: Mapping[bytes, tuple[bytes, bytes]]


class Source:
    """A participant's blocks by number, asked for in ascending order."""

    def __init__(self, read: Read, directory: Path, participant: str, journal: str) -> None:
        self._read = read
        self._directory = directory
        self._participant = participant
        self._journal = journal
        self._segments: list[SegmentRow] = []
        self._open: dict[str, Iterator[ReadBlock]] = {}

    async def get(self, number: int, keep: Keep | None) -> Found:
        """The block of this number, with the bytes of the events that are kept (None: of none). Raises `EvidenceBroken`."""
        found = await self._read(partial(_from_journal, participant=self._participant, number=number, keep=keep))
        if found is None:
            found = await self._archived(number, keep)
        block = found.stored.block
        wrong = "its header was changed" if block.hash(self._journal) != found.stored.hash else ""
        if keep is not None:
            wrong = wrong or wrong_in(found.stored, found.events, self._journal)
        if wrong:
            raise EvidenceBroken(f"{self._participant}: block {number}: {wrong}", hint=_HINT)
        return found

    async def _archived(self, number: int, keep: Keep | None) -> Found:
        covering = [segment for segment in self._segments if segment.covers(number)]
        if not covering:  # it may have been archived since we looked
            self._segments = await self._read(lambda rows: archive.segments(rows, self._participant))
            covering = [segment for segment in self._segments if segment.covers(number)]
        if not covering:
            raise EvidenceBroken(f"{self._participant}: block {number} is missing", hint=_HINT)
        return self._from_segment(covering[0], number, keep)

    def _from_segment(self, segment: SegmentRow, number: int, keep: Keep | None) -> Found:
        try:
            blocks = self._open.get(segment.name) or self._opened(segment)
            for block in blocks:
                if block.stored.block.number == number:
                    wanted = spoken_of([event for event in block.events if keep is not None and keep(event)])
                    return Found(stored=block.stored, events=block.events, spoken=sorted(wanted), bytes=block.bytes)
        except (SegmentDamaged, OSError) as error:
            raise EvidenceBroken(f"segment {segment.name}: {error}", hint=_HINT) from error
        raise EvidenceBroken(f"segment {segment.name}: block {number} is not in it", hint=_HINT)

    def _opened(self, segment: SegmentRow) -> Iterator[ReadBlock]:
        """Its blocks, where the file is the one that the journal names and this participant's: another one's must not be handed out."""
        path = self._directory / segment.name
        if digest_of(path) != segment.sha256:
            raise SegmentDamaged("the file is not the one that was written")
        self._open[segment.name] = read_blocks(path, with_bytes=True, whose=self._participant)
        return self._open[segment.name]


def _from_journal(rows: Rows, participant: str, number: int, keep: Keep | None) -> Found | None:
    stored = next(iter(sealing.stored_blocks(rows, participant, number, 1)), None)
    if stored is None or stored.block.number != number:
        return None
    if keep is None:
        return Found(stored=stored, events=[], spoken=[], bytes={})
    found = archive.block_rows(rows, stored)
    wanted = spoken_of([event for event in found.events if keep(event)])
    ids = rows.all(
        "SELECT id, digest FROM blobs WHERE id IN (SELECT CAST(value AS BIGINT) FROM json_each(?)) ORDER BY id",
        (dump(list(found.blobs)),),
    )
    mine = [id_ for id_, digest in ids if digest in wanted]
    blobs = {digest: (nonce, data) for digest, nonce, data in archive.blob_bytes(rows, mine)}
    return Found(stored=stored, events=found.events, spoken=sorted(wanted), bytes=blobs)


def envelopes(rows: Rows, events: Sequence[Event]) -> dict[bytes, bytes | None]:
    """What travelled beside the bodies (method, path, headers, key id, profile), by the digests that these events seal; None where it was erased.

    Raises `EvidenceBroken`.
    """
    found: dict[bytes, bytes | None] = {}
    for event in events:
        data = orjson.loads(event.data) if '"envelope":"' in event.data else {}
        if "envelope" not in data:
            continue
        content = _call(rows, event, data) if event.kind == "SENDING" else _return(rows, data)
        if content == b"":
            found[bytes.fromhex(data["envelope"])] = None
            continue
        if content is None or hashlib.sha256(content).hexdigest() != data["envelope"]:
            text = f"{event.participant}: the headers of {event.kind} {event.subject} are not those that were sealed"
            raise EvidenceBroken(text, hint=_HINT)
        found[bytes.fromhex(data["envelope"])] = content
    return found


def _call(rows: Rows, event: Event, data: Mapping[str, object]) -> bytes | None:
    """None where there is no such call, nothing where it was erased."""
    ids = rows.all(
        "SELECT c.id, c.headers FROM calls c JOIN submissions s ON s.seq = c.submission WHERE c.participant = ? AND c.message_id = ? AND s.id = ? ORDER BY c.id",
        (event.participant, data["message"], event.subject),
    )
    made = [envelope_of(load_call(rows, row[0])) for row in ids if row[1]]
    if ids and not made:
        return b""
    return next((one for one in made if hashlib.sha256(one).hexdigest() == data["envelope"]), made[0] if made else None)


def _return(rows: Rows, data: Mapping[str, object]) -> bytes | None:
    row = rows.one("SELECT headers FROM returns WHERE id = ?", (data["return"],))
    if row is None:
        return None
    return headers_of(orjson.loads(row[0])) if row[0] else b""
