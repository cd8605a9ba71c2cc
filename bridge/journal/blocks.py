"""Blocks of events: the bytes that are hashed, the Merkle tree of RFC 6962 section 2.1 over them, and the chain from block to block. Pure."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import orjson

_LEAF: Final = b"\x00"
_NODE: Final = b"\x01"
_HEADER: Final = b"\x02"
_FORM: Final = "smp-bridge block 1"


class Event(NamedTuple):
    """One row of the append-only record, as it is hashed. `data` is the column's text, `digest` that of its blob."""

    participant: str
    writer: str
    epoch: int
    number: int
    at_ns: int
    kind: str
    subject: str
    data: str
    digest: bytes | None

    @property
    def leaf(self) -> bytes:
        """The hash of its canonical bytes: a JSON array of the fields in this order, UTF-8, no blanks, the digest in hex."""
        fields = [*self[:-1], self.digest.hex() if self.digest is not None else None]
        return hashlib.sha256(_LEAF + orjson.dumps(fields)).digest()

    @property
    def readings(self) -> bytes | None:
        """The digest of the readings that a call carries in its data when it left in one commit with its intake."""
        if self.kind != "SENDING" or '"readings":"' not in self.data:
            return None
        try:
            return bytes.fromhex(orjson.loads(self.data)["readings"]) or None
        except (ValueError, TypeError, KeyError):  # not written by us
            return None


def spoken_of(events: Sequence[Event]) -> frozenset[bytes]:
    """The digests of all bytes that these events speak of: their blobs, and the readings of calls that left with their intake."""
    digests = {event.digest for event in events if event.digest is not None}
    return frozenset(digests | {event.readings for event in events if event.readings is not None})


class Range(NamedTuple):
    """The numbers of one writer in a block, first and last included."""

    writer: str
    epoch: int
    first: int
    last: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A closed block: its place in the participant's chain, the root over its events, the writers' numbers in it, times in UTC ns."""

    participant: str
    number: int
    previous: bytes
    root: bytes
    events: int
    ranges: tuple[Range, ...]
    first_ns: int
    last_ns: int
    sealed_ns: int

    def hash(self, journal: str) -> bytes:
        """What the next block names as its previous one; `journal` is the journal's id."""
        fields = [_FORM, journal, self.participant, self.number, self.previous.hex(), self.root.hex(), self.events]
        fields += [self.first_ns, self.last_ns, self.sealed_ns, [list(found) for found in self.ranges]]
        return hashlib.sha256(_HEADER + orjson.dumps(fields)).digest()


def close(events: Sequence[Event], *, number: int, previous: bytes, sealed_ns: int) -> Block:
    """The block over these events of one participant, which must not be empty. Their order in it is that of writer, epoch and number."""
    ordered = sorted(events, key=lambda event: event[1:4])
    times = [event.at_ns for event in ordered]
    return Block(
        participant=ordered[0].participant,
        number=number,
        previous=previous,
        root=merkle_root([event.leaf for event in ordered]),
        events=len(ordered),
        ranges=ranges_of(ordered),
        first_ns=min(times),
        last_ns=max(times),
        sealed_ns=sealed_ns,
    )


def ranges_of(ordered: Iterable[Event]) -> tuple[Range, ...]:
    """The runs of numbers without a hole; a writer with a hole in its numbers has two."""
    runs: list[Range] = []
    for event in ordered:
        last = runs[-1] if runs else None
        if last and last[:2] == event[1:3] and last.last + 1 == event.number:
            runs[-1] = last._replace(last=event.number)
        else:
            runs.append(Range(event.writer, event.epoch, event.number, event.number))
    return tuple(runs)


def merkle_path(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """The hashes that lead from the leaf of this index to the root, from below: its neighbour on each level, where it has one."""
    level, path = list(leaves), []
    while len(level) > 1:
        if index ^ 1 < len(level):
            path.append(level[index ^ 1])
        level, index = _joined(level), index // 2
    return path


def root_above(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes | None:
    """The root that a leaf at this index of `size` leaves has with this path; None where the path has another length."""
    rest, node = list(reversed(path)), leaf
    while size > 1:
        if index ^ 1 < size:
            if not rest:
                return None
            beside = rest.pop()
            pair = beside + node if index % 2 else node + beside
            node = hashlib.sha256(_NODE + pair).digest()
        index, size = index // 2, (size + 1) // 2
    return None if rest else node


def merkle_root(leaves: Sequence[bytes]) -> bytes:
    """The root over leaf hashes: a node splits at the largest power of two below its size, so pairs are joined level by level and an odd last one moves up."""
    level = list(leaves)
    if not level:
        return hashlib.sha256().digest()
    while len(level) > 1:
        level = _joined(level)
    return level[0]


def _joined(level: Sequence[bytes]) -> list[bytes]:
    joined = [hashlib.sha256(_NODE + a + b).digest() for a, b in zip(level[::2], level[1::2], strict=False)]
    if len(level) % 2:
        joined.append(level[-1])
    return joined
