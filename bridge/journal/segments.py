"""Segments: files of old sealed evidence, each readable with `xz -dc`, one JSON value a line.

A segment is never changed after it was written; where bytes are erased it is written anew without them, under another name.

{"segment": "smp-bridge segment 1", "journal": ID, "participant": NAME}
{"block": [number, previous, root, events, first_ns, last_ns, sealed_ns, ranges], "hash": HEX}
{"event": [participant, writer, epoch, number, at_ns, kind, subject, data, digest]}       the block's events, in its order
{"blob": DIGEST, "nonce": HEX, "text": …}  or "base64" for bytes that are no UTF-8         the bytes that they speak of
…
{"end": {"blocks": N, "events": N, "blobs": N}, "sha256": HEX}                             over all bytes before this line
"""

import base64
import hashlib
import lzma
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import orjson

from bridge.journal.blocks import Block, Event, Range, merkle_root, spoken_of
from bridge.journal.files import make_file
from bridge.journal.sealing import Stored

SUFFIX: Final = ".jsonl.xz"
_FORM: Final = "smp-bridge segment 1"
_PRESET: Final = 1  # a third of the time of the default for nine tenths of its effect
_MOST_LINE_BYTES: Final = 256 * 1024 * 1024


class SegmentDamaged(Exception):
    """A segment that is not what was written; the text says where. Caught where its name is known."""


@dataclass(slots=True)
class Counts:
    """What a segment holds."""

    blocks: int = 0
    events: int = 0
    blobs: int = 0

    def plain(self) -> dict[str, int]:
        """For its last line."""
        return {"blocks": self.blocks, "events": self.events, "blobs": self.blobs}


@dataclass(slots=True, kw_only=True)
class ReadBlock:
    """A block as it stands in a segment, whole and checked but for its blobs: `erased` digests, those of `gone`, have no bytes here.

    `bytes` holds nonce and bytes by digest, where they were asked for.
    """

    stored: Stored
    events: list[Event]
    blobs: int
    erased: int
    gone: frozenset[bytes] = frozenset()
    bytes: dict[bytes, tuple[bytes, bytes]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentHead:
    """Whose evidence a segment holds."""

    journal: str
    participant: str


@dataclass(slots=True, kw_only=True)
class SegmentContent:
    """A segment that was read to its end and found whole."""

    head: SegmentHead
    counts: Counts
    blocks: list[Stored] = field(default_factory=list)
    erased: int = 0

    @property
    def numbers(self) -> list[list[int]]:
        """The numbers of its blocks as runs: [[first, last], …]."""
        return runs([stored.block.number for stored in self.blocks])


class SegmentWriter:
    """Writes one segment to a new file that only we can read; on disk once `finish` returned, gone when the `with` block is left before that."""

    def __init__(self, path: Path, head: SegmentHead) -> None:
        self._path = path
        self._head = head
        self._hash = hashlib.sha256()
        self._counts = Counts()
        self._done = False
        self.raw_bytes = 0

    def __enter__(self) -> Self:
        self._file = os.fdopen(make_file(self._path), "wb")
        self._xz = lzma.LZMAFile(self._file, "wb", preset=_PRESET, check=lzma.CHECK_SHA256)
        self._line({"segment": _FORM, "journal": self._head.journal, "participant": self._head.participant})
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._file.close()
        finally:  # on a full disk closing writes once more what found no room
            if not self._done:
                self._path.unlink(missing_ok=True)

    def block(self, stored: Stored, events: list[Event]) -> None:
        """A block and its events; its blobs follow."""
        b = stored.block
        header = [
            b.number,
            b.previous.hex(),
            b.root.hex(),
            b.events,
            b.first_ns,
            b.last_ns,
            b.sealed_ns,
            [list(r) for r in b.ranges],
        ]
        self._line({"block": header, "hash": stored.hash.hex()})
        for event in events:
            self._line({"event": [*event[:-1], event.digest.hex() if event.digest is not None else None]})
        self._counts.blocks += 1
        self._counts.events += len(events)

    def blobs(self, rows: Iterable[tuple[bytes, bytes, bytes]]) -> None:
        """Bytes that events of the block before speak of: digest, nonce and bytes of each."""
        for digest, nonce, data in rows:
            self._blob(digest, nonce, data)

    def _blob(self, digest: bytes, nonce: bytes, data: bytes) -> None:
        try:
            content = {"text": data.decode()}
        except UnicodeDecodeError:
            content = {"base64": base64.b64encode(data).decode()}
        self._line({"blob": digest.hex(), "nonce": nonce.hex(), **content})
        self._counts.blobs += 1

    def finish(self) -> None:
        """The last line; everything is on disk afterwards."""
        self._line({"end": self._counts.plain(), "sha256": self._hash.hexdigest()})
        self._xz.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._done = True

    def _line(self, value: Mapping[str, object]) -> None:
        line = orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE)
        self._hash.update(line)
        self.raw_bytes += len(line)
        self._xz.write(line)


def read_blocks(
    path: Path, content: SegmentContent | None = None, *, with_bytes: bool = False, whose: str | None = None
) -> Iterator[ReadBlock]:
    """Every block of a segment, recomputed from its events, and at the end its counts and its digest. `whose` is the participant that it must be of.

    Raises `SegmentDamaged` and `OSError`.
    """
    reading = _Reading(content, with_bytes=with_bytes, whose=whose)
    try:
        with lzma.open(path, "rb") as file:
            while line := file.readline(_MOST_LINE_BYTES):
                done = reading.take(line)
                if done is not None:
                    yield done
    except (lzma.LZMAError, EOFError) as error:
        raise SegmentDamaged(f"after {reading.counts.blocks} blocks: {error}") from error
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise SegmentDamaged(f"after {reading.counts.blocks} blocks: a line has another form ({error})") from error
    if not reading.ended:
        raise SegmentDamaged(f"it ends after {reading.counts.blocks} blocks, without its last line")


def read_content(path: Path) -> SegmentContent:
    """Read a segment to its end and check all of it. Raises `SegmentDamaged` and `OSError`."""
    content = SegmentContent(head=SegmentHead(journal="", participant=""), counts=Counts())
    for found in read_blocks(path, content):
        content.blocks.append(found.stored)
        content.erased += found.erased
    return content


def runs(numbers: list[int]) -> list[list[int]]:
    """Ascending numbers as runs: [[first, last], …]."""
    found: list[list[int]] = []
    for number in numbers:
        if found and found[-1][1] + 1 == number:
            found[-1][1] = number
        else:
            found.append([number, number])
    return found


class _Reading:
    """The lines of one segment, one after the other."""

    def __init__(self, content: SegmentContent | None, *, with_bytes: bool, whose: str | None) -> None:
        self._content = content
        self._whose = whose
        self._with_bytes = with_bytes
        self._bytes: dict[bytes, tuple[bytes, bytes]] = {}
        self._hash = hashlib.sha256()
        self._head: SegmentHead | None = None
        self._stored: Stored | None = None
        self._events: list[Event] = []
        self._blobs: set[bytes] = set()
        self.counts = Counts()
        self.ended = False

    def take(self, line: bytes) -> ReadBlock | None:
        """One line; the block that it ends, if it ends one."""
        value = orjson.loads(line)
        if self.ended:
            raise SegmentDamaged("something follows its last line")
        if self._head is None:
            self._begin(value)
        elif "event" in value:
            self._event(value["event"])
        elif "blob" in value:
            self._blob(value)
        elif "block" in value or "end" in value:
            return self._next(value, line)
        else:
            raise SegmentDamaged(f"after {self.counts.blocks} blocks: an unknown line")
        self._hash.update(line)
        return None

    def _begin(self, value: Mapping[str, Any]) -> None:
        if value.get("segment") != _FORM:
            raise SegmentDamaged("it is not a segment of this form")
        self._head = SegmentHead(journal=value["journal"], participant=value["participant"])
        if self._whose not in (None, self._head.participant):
            raise SegmentDamaged("it is of another participant")
        if self._content is not None:
            self._content.head, self._content.counts = self._head, self.counts

    def _event(self, fields: list[Any]) -> None:
        *plain, digest = fields
        self._events.append(Event._make([*plain, bytes.fromhex(digest) if digest is not None else None]))
        self.counts.events += 1

    def _blob(self, value: Mapping[str, Any]) -> None:
        data = value["text"].encode() if "text" in value else base64.b64decode(value["base64"], validate=True)
        digest = bytes.fromhex(value["blob"])
        nonce = bytes.fromhex(value["nonce"])
        if hashlib.sha256(nonce + data).digest() != digest:
            raise SegmentDamaged(f"{self._where()}: the bytes of {digest.hex()[:16]} are not those of its digest")
        self._blobs.add(digest)
        if self._with_bytes:
            self._bytes[digest] = (nonce, data)
        self.counts.blobs += 1

    def _next(self, value: Mapping[str, Any], line: bytes) -> ReadBlock | None:
        done = self._close()
        if "end" in value:
            if value["end"] != self.counts.plain() or value["sha256"] != self._hash.hexdigest():
                raise SegmentDamaged("it does not hold what its last line says")
            self.ended = True
            return done
        assert self._head is not None
        self._stored = _stored(self._head.participant, value)
        self.counts.blocks += 1
        self._hash.update(line)
        return done

    def _close(self) -> ReadBlock | None:
        stored, events, blobs = self._stored, self._events, self._blobs
        found, self._bytes = self._bytes, {}
        self._stored, self._events, self._blobs = None, [], set()
        if stored is None:
            return None
        assert self._head is not None
        wrong = wrong_in(stored, events, self._head.journal)
        if wrong:
            raise SegmentDamaged(f"block {stored.block.number}: {wrong}")
        spoken = spoken_of(events)
        if blobs - spoken:
            raise SegmentDamaged(f"block {stored.block.number}: it holds bytes that none of its events speaks of")
        gone = spoken - blobs
        return ReadBlock(
            stored=stored, events=events, blobs=len(blobs), erased=len(gone), gone=frozenset(gone), bytes=found
        )

    def _where(self) -> str:
        return f"block {self._stored.block.number}" if self._stored else "before the first block"


def wrong_in(stored: Stored, events: list[Event], journal: str) -> str:
    """What is wrong with a block and the events that it should be over; '' when nothing is."""
    block = stored.block
    if block.hash(journal) != stored.hash:
        return "its header was changed"
    if len(events) != block.events:
        return f"{len(events)} of its {block.events} events are there"
    if merkle_root([event.leaf for event in events]) != block.root:
        return "one of its events was changed"
    return ""


def _stored(participant: str, value: Mapping[str, Any]) -> Stored:
    number, previous, root, events, first_ns, last_ns, sealed_ns, ranges = value["block"]
    block = Block(
        participant=participant,
        number=number,
        previous=bytes.fromhex(previous),
        root=bytes.fromhex(root),
        events=events,
        ranges=tuple(Range(*found) for found in ranges),
        first_ns=first_ns,
        last_ns=last_ns,
        sealed_ns=sealed_ns,
    )
    return Stored(block=block, hash=bytes.fromhex(value["hash"]))
