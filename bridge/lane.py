"""The one thing field and market share besides the journal: a send slot that is free at the moment a record arrives.

Under `--role all` the market side implements `FastLane` and the composition root hands it to the field side's intake, so that commit 1 can
hold the signed bytes and SENDING at once. Split roles have none and always take commit 2.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from bridge.clock import Stamp
from bridge.model import Operation


@dataclass(frozen=True, slots=True)
class RenderedItem:
    """One record in its wire form."""

    content: bytes

    def __len__(self) -> int:
        return len(self.content)


class Fence(NamedTuple):
    """A lease as its holder knows it: `field:<site>` or `market:<participant>`, and the epoch that began when the holder took it."""

    lease: str
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedCall:
    """The exact bytes of one Create call. `headers` holds what the profile puts beside the body (signature, ids), never the token.

    `clock` is what was known of this machine's clock when it was signed; it is told once, when the call goes out.
    """

    message_id: str
    correlation_id: str
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    kid: str
    profile: str
    stamps: Mapping[str, Stamp] = field(default_factory=dict)
    clock: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class FastCall:
    """A send slot that was free when the candidates arrived: all of `keys` signed as one call, to be journalled as SENDING in the same commit.

    `rows` are the positions of the signed records among the candidates, rising, one for each of `keys`. The call stands only if every one of
    them is admitted NEW; otherwise the journal drops it and the new items wait as usual.
    """

    submission: str
    keys: tuple[str, ...]
    call: SignedCall
    market: Fence
    rows: tuple[int, ...] = ()


class Slot(Protocol):
    """A claimed send slot. Exactly one of `send` and `release` is called, once."""

    async def sign(
        self, keys: Sequence[str], items: Sequence[RenderedItem], stamps: Mapping[str, Stamp]
    ) -> FastCall | None:
        """Sign these as one call, many of them beside the loop; None when they exceed the profile's limits (then release the slot)."""
        ...

    def send(self, journalled: Stamp, site: str, flow: str) -> None:
        """The call is on disk as SENDING, for this flow of this site: let it leave now. Does not wait."""
        ...

    def release(self) -> None:
        """The call did not stand, or there was none: the slot is free again."""
        ...


class FastLane(Protocol):
    """Claim a send slot without I/O."""

    def claim(self, participant: str, operation: Operation) -> Slot | None:
        """A slot when circuit, rate, concurrency, clock and hold allow a call of this participant right now and nothing waits in front; else None."""
        ...
