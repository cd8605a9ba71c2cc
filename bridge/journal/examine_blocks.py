"""The lines of an exported file: blocks in a chain, events under their roots, bytes under their digests, heads under their signatures."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from bridge.envelope import PublicKey
from bridge.envelope.base64url import decode
from bridge.journal.blocks import Block, Event, Range, merkle_root, root_above, spoken_of
from bridge.journal.facts import FACTS
from bridge.journal.heads import signing_input, verified

_TOLD: Final = 60


class Wrong(Exception):
    """The first thing that is wrong, and where."""

    def __init__(self, place: str, text: str) -> None:
        super().__init__(f"{place}: {text}")
        self.place = place
        self.text = text


class UnknownKey(Wrong):
    """A signature of a key that is none of those that were given: perhaps an earlier one of the host's."""


@dataclass(slots=True)
class Count:
    """What was looked at."""

    blocks: int = 0
    events: int = 0
    blobs: int = 0
    erased: int = 0
    heads: int = 0
    first_ns: int = 0
    last_ns: int = 0


class Chain:
    """One participant's blocks, line by line. Raises `Wrong`."""

    def __init__(self, manifest: Mapping[str, Any], keys: Mapping[str, PublicKey], count: Count) -> None:
        self.hashes: dict[int, bytes] = {}
        self._manifest = manifest
        self._scope: Mapping[str, Any] = manifest["scope"]
        self._keys = keys
        self._count = count
        self._place = "line 1"
        self._block: Block | None = None
        self._headed = True  # the block before ended with a signed head, or there is none
        self._spanned = False  # a block of the span was there: between such blocks none may be left out
        self._last_head: list[Any] = []
        self._numbers: dict[tuple[str, int], int] = {}
        self._leaves: list[bytes] = []
        self._index = -1  # of the last event that came with a path
        self._spoken: set[bytes] = set()
        self._held: set[bytes] = set()

    def take(self, number: int, line: bytes) -> None:
        """The next line."""
        self._place = f"line {number}" + (f" (block {self._block.number})" if self._block else "")
        try:
            value = orjson.loads(line)
            if "block" in value:
                self._begin(number, value["block"])
            elif self._block is None:
                raise Wrong(self._place, "it comes before the first block")
            elif "event" in value:
                self._event(self._block, value)
            elif "blob" in value:
                self._blob(value)
            elif "erased" in value:
                self._erased(value)
            elif "head" in value:
                self._head(self._block, value)
            else:
                raise Wrong(self._place, "it is none of block, event, blob, erased, head")
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError) as error:
            raise Wrong(self._place, f"it has another form ({str(error)[:_TOLD]})") from error

    def end(self) -> None:
        """After the last line."""
        self._place = "after the last line"
        self._close()
        if not self._headed or self._last_head != self._manifest["head"]:
            raise Wrong(self._place, "the last block is not the signed head that the manifest names")
        found = {"blocks": self._count.blocks, "events": self._count.events, "blobs": self._count.blobs}
        for what, count in found.items():
            if count != self._manifest[what]:
                raise Wrong(self._place, f"{count} {what} are there, and the manifest names {self._manifest[what]}")

    # blocks ----------------------------------------------------------------------------------------------------------

    def _begin(self, line: int, fields: Sequence[Any]) -> None:
        self._close()
        block = _block(self._manifest["participant"], fields)
        self._place = f"line {line} (block {block.number})"
        before = self._block
        if before is None or block.number != before.number + 1:
            if not self._headed:
                assert before is not None
                raise Wrong(
                    self._place, f"block {before.number + 1} is left out: no signed head ends the blocks before"
                )
            if before is not None and block.number <= before.number:
                raise Wrong(self._place, f"it comes after block {before.number}")
            if before is not None and self._spanned and self._in_span(block):
                raise Wrong(self._place, f"{_between(before, block)} left out of the span")
            self._numbers = {}
        elif block.previous != self.hashes[before.number]:
            raise Wrong(
                self._place, f"it does not follow block {before.number}: one of the two was changed or made anew"
            )
        if (block.number == 1) != (not block.previous):
            raise Wrong(self._place, "only block 1 has none before it")
        self._ranges(block)
        self._block, self._headed, self._spanned = block, False, self._spanned or self._in_span(block)
        self.hashes[block.number] = block.hash(self._manifest["journal"])
        self._leaves, self._index = [], -1
        self._spoken, self._held = set(), set()
        self._count.blocks += 1

    def _ranges(self, block: Block) -> None:
        if sum(found.last - found.first + 1 for found in block.ranges) != block.events:
            raise Wrong(self._place, "its numbers are not as many as its events")
        for found in block.ranges:
            before = self._numbers.get(found[:2], 0 if block.number == 1 else found.first - 1)
            if found.first != before + 1 or found.last < found.first:
                text = f"{found.writer}/{found.epoch}: after number {before} comes {found.first}: events are missing, or stand twice"
                raise Wrong(self._place, text)
            self._numbers[found[:2]] = found.last

    def _close(self) -> None:
        """What can be said of a block when all of its lines were read."""
        block = self._block
        if block is None:
            return
        whole = len(self._leaves) == block.events
        if self._leaves and not whole:
            raise Wrong(
                self._place, f"{len(self._leaves)} of the {block.events} events of block {block.number} are there"
            )
        if whole and merkle_root(self._leaves) != block.root:
            raise Wrong(
                self._place, f"the events of block {block.number} are not those that were sealed, or in another order"
            )
        if not whole and self._in_span(block):
            raise Wrong(self._place, f"block {block.number} is of the span, and not all of its events are there")
        missing = self._spoken - self._held
        if missing:
            raise Wrong(self._place, f"the bytes of {min(missing).hex()[:16]} are missing")

    def _in_span(self, block: Block) -> bool:
        """Whether a span of time was asked for, and the block is of it."""
        if "submission" in self._scope:
            return False
        return bool(block.first_ns <= self._scope["to_ns"] and block.last_ns >= self._scope["from_ns"])

    # events and bytes ------------------------------------------------------------------------------------------------

    def _event(self, block: Block, value: Mapping[str, Any]) -> None:
        *plain, digest = value["event"]
        event = Event._make([*plain, bytes.fromhex(digest) if digest is not None else None])
        index = value["index"] if "path" in value else len(self._leaves)
        if event.participant != block.participant:
            raise Wrong(self._place, "it is an event of another participant")
        if _numbered(block, index) != event[1:4]:
            text = f"number {event.number} of {event.writer}/{event.epoch} does not stand at place {index} of the block"
            raise Wrong(self._place, f"{text}: events were renumbered, swapped or taken out")
        if "path" in value:
            self._under_root(block, event, index, value["path"])
        else:
            self._leaves.append(event.leaf)
        self._spoken |= spoken_of([event])
        envelope = orjson.loads(event.data).get("envelope")
        if envelope is not None:
            self._spoken.add(bytes.fromhex(envelope))
        mine = (self._scope.get("submission"), FACTS)
        if "submission" in self._scope and event.subject not in mine and event.kind.split(".")[0] != "return":
            raise Wrong(self._place, "it is an event of something else than the submission")
        self._count.events += 1
        self._count.first_ns = min(self._count.first_ns or event.at_ns, event.at_ns)
        self._count.last_ns = max(self._count.last_ns, event.at_ns)

    def _under_root(self, block: Block, event: Event, index: int, path: Sequence[str]) -> None:
        if index <= self._index or self._leaves:
            raise Wrong(self._place, "its place in the block is not after that of the event before")
        self._index = index
        if root_above(event.leaf, index, block.events, [bytes.fromhex(step) for step in path]) != block.root:
            raise Wrong(self._place, "it is not the event that was sealed at its place in the block")

    def _blob(self, value: Mapping[str, Any]) -> None:
        digest = bytes.fromhex(value["blob"])
        data = value["text"].encode() if "text" in value else base64.b64decode(value["base64"], validate=True)
        if hashlib.sha256(bytes.fromhex(value["nonce"]) + data).digest() != digest:
            raise Wrong(self._place, f"its bytes are not those of the digest {digest.hex()[:16]}")
        self._hold(digest)
        self._count.blobs += 1

    def _erased(self, value: Mapping[str, Any]) -> None:
        self._hold(bytes.fromhex(value["erased"]))
        self._count.erased += 1

    def _hold(self, digest: bytes) -> None:
        if digest not in self._spoken or digest in self._held:
            raise Wrong(self._place, f"no event of the block speaks of {digest.hex()[:16]}, or it stands twice")
        self._held.add(digest)

    # heads -----------------------------------------------------------------------------------------------------------

    def _head(self, block: Block, value: Mapping[str, Any]) -> None:
        self._close()
        number, hash_, signed_ns = value["head"]
        if number != block.number or bytes.fromhex(hash_) != self.hashes[block.number]:
            raise Wrong(self._place, f"block {block.number} is not the block that was signed")
        kid, alg = value["kid"], value["alg"]
        signed = signing_input(self._manifest["journal"], block.participant, number, bytes.fromhex(hash_), signed_ns)
        if kid not in self._keys:
            raise UnknownKey(
                self._place, f"the head is signed by the key {str(kid)[:100]}, which is none of the host's public keys"
            )
        if not verified(self._keys, kid, alg, signed, decode(value["signature"])):
            raise Wrong(self._place, f"the head's signature is not of the key {kid[:100]}")
        self._headed, self._last_head = True, [number, hash_, signed_ns]
        self._count.heads += 1


def _block(participant: str, fields: Sequence[Any]) -> Block:
    number, previous, root, events, first_ns, last_ns, sealed_ns, ranges = fields
    block = Block(
        participant=participant,
        number=number,
        previous=bytes.fromhex(previous),
        root=bytes.fromhex(root),
        events=events,
        first_ns=first_ns,
        last_ns=last_ns,
        sealed_ns=sealed_ns,
        ranges=tuple(Range(*found) for found in ranges),
    )
    if any(type(found) is not int for found in (number, events, first_ns, last_ns, sealed_ns)) or events < 1:
        raise ValueError("a number is none")
    return block


def _between(before: Block, after: Block) -> str:
    first, last = before.number + 1, after.number - 1
    return f"block {first} is" if first == last else f"blocks {first} to {last} are"


def _numbered(block: Block, index: int) -> tuple[str, int, int] | None:
    """Which event stands at this place of a block: writer, epoch, number."""
    if index < 0:
        return None
    for found in block.ranges:
        if index <= found.last - found.first:
            return (found.writer, found.epoch, found.first + index)
        index -= found.last - found.first + 1
    return None
