"""Messages whose `kid` or certificate nobody knows yet: refused like any other, and kept for a while, in memory and bounded, until a key is imported.

A platform that rotates its key before it tells us gets 401 and may not send again; what it sent is verified again once its key is known.
"""

from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from bridge.clock import Stamp

MOST: Final = 256
MOST_BYTES: Final = 4 * 1024 * 1024
LARGEST: Final = 256 * 1024  # a larger one is not kept


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """One message as it came."""

    participant: str
    source: str
    body: bytes
    tokens: Sequence[Sequence[str]]
    headers: Mapping[str, str]
    received: Stamp

    @property
    def size(self) -> int:
        """What it takes, in bytes, about."""
        return (
            len(self.body)
            + sum(len(text) for values in self.tokens for text in values)
            + sum(len(name) + len(text) for name, text in self.headers.items())
        )


class UnknownKeys:
    """The bounded quarantine. Where it is full, the oldest message goes of the source that has most: a stranger pushes out his own first."""

    def __init__(self, *, most: int = MOST, most_bytes: int = MOST_BYTES) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._kept: OrderedDict[bytes, Kept] = OrderedDict()
        self._sources: Counter[str] = Counter()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, message: Kept) -> None:
        """Keep it, unless it is too large; the same bytes are kept once."""
        if message.size > min(LARGEST, self._most_bytes):
            return
        shown = [text for values in message.tokens for text in values]
        named = "\n".join([message.participant, *shown]).encode("utf-8", "surrogateescape")
        digest = sha256(named + b"\n" + message.body).digest()
        if digest in self._kept:
            return
        self._kept[digest] = message
        self._sources[message.source] += 1
        self._bytes += message.size
        while len(self._kept) > self._most or self._bytes > self._most_bytes:
            [(greatest, _)] = self._sources.most_common(1)
            self._drop(next(digest for digest, one in self._kept.items() if one.source == greatest))

    def take(self, participant: str) -> list[Kept]:
        """All of this participant, oldest first; they are kept no longer."""
        mine = [digest for digest, one in self._kept.items() if one.participant == participant]
        return [self._drop(digest) for digest in mine]

    def _drop(self, digest: bytes) -> Kept:
        message = self._kept.pop(digest)
        self._sources[message.source] -= 1
        self._sources += Counter()  # forgets those that have none left
        self._bytes -= message.size
        return message
