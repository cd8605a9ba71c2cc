"""One direction of the links through a fault proxy: what is wrong with it, what passed, and the traps that wait in it."""

import asyncio
import enum
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Final
from weakref import WeakKeyDictionary

SLICE_S: Final = 0.05  # a throttled direction passes bytes this often


class Way(enum.Enum):
    """A direction."""

    UP = "up"
    """From the client to the server."""
    DOWN = "down"
    """From the server to the client."""


class Then(enum.Enum):
    """What happens when a trap springs."""

    CUT = "cut"
    BLACKHOLE = "blackhole"


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """What is wrong with one direction; by default nothing.

    `blackhole`: nothing is read or passed, and nothing said; what was held goes on when it ends, as after a pause of the network. `delay_s` is how late
    each byte comes; `rate_bytes_per_s` is what all connections together may pass, 0 for no limit. `garble` is the share (0 to 1) of bytes that are
    changed, drawn from the proxy's seed; `garble_at` are offsets in each connection's stream whose byte is changed. `rewrite` makes of each piece, as
    it was read, what passes instead.
    """

    blackhole: bool = False
    delay_s: float = 0.0
    rate_bytes_per_s: float = 0.0
    garble: float = 0.0
    garble_at: frozenset[int] = frozenset()
    rewrite: Callable[[bytes], bytes] | None = None

    def __post_init__(self) -> None:
        if self.delay_s < 0 or self.rate_bytes_per_s < 0:
            raise ValueError("delay_s and rate_bytes_per_s cannot be below 0")
        if not 0 <= self.garble <= 1:
            raise ValueError("garble is a share between 0 and 1")


class Trap:
    """Springs on a connection once `after` bytes have passed, counted from the first of `at` (or from the next byte, without `at`)."""

    def __init__(self, *, at: bytes, after: int, times: int, then: Then) -> None:
        if after < 0 or times < 1:
            raise ValueError("after cannot be below 0, and times not below 1")
        self.at = at
        self.left = times
        self.then = then
        self._after = after
        self._seen: WeakKeyDictionary[object, bytes] = WeakKeyDictionary()
        self._due: WeakKeyDictionary[object, int] = WeakKeyDictionary()

    def spring(self, connection: object, data: bytes) -> int | None:
        """How many of these bytes still pass before it springs; None: it does not spring within them."""
        due = self._due.get(connection)
        if due is None:
            before = self._seen.get(connection, b"")
            found = (before + data).find(self.at)
            if found < 0:
                self._seen[connection] = (before + data)[-(len(self.at) - 1) :] if len(self.at) > 1 else b""
                return None
            due = max(0, found - len(before) + self._after)
        if due > len(data):
            self._due[connection] = due - len(data)
            return None
        self.left -= 1
        self._due.pop(connection, None)
        self._seen.pop(connection, None)
        return due


class Lane:
    """One direction, shared by all connections: its faults may change at any time, and those who wait in it see the change at once."""

    def __init__(self, random: Random) -> None:
        self.faults = Faults()
        self.traps: list[Trap] = []
        self.passed = 0
        """Bytes that were handed on."""
        self.garbled = 0
        """Bytes that were changed."""
        self._random = random
        self._changed = asyncio.Event()
        self._free_at = 0.0

    def change(self, **values: Any) -> None:
        """Set these of its faults, the others stay."""
        self.faults = replace(self.faults, **values)
        if "rate_bytes_per_s" in values:
            self._free_at = 0.0
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def passing(self) -> None:
        """Wait until it is no blackhole."""
        while self.faults.blackhole:
            await self._changed.wait()

    async def late(self, came_at: float) -> None:
        """Wait until what came at this time of the loop is due."""
        loop = asyncio.get_running_loop()
        await self._wait(lambda: came_at + self.faults.delay_s - loop.time())

    async def throttled(self, count: int) -> None:
        """Wait until the rate allows these many bytes."""
        rate = self.faults.rate_bytes_per_s
        if not rate:
            return
        loop = asyncio.get_running_loop()
        mine = self._free_at = max(self._free_at, loop.time()) + count / rate
        await self._wait(lambda: mine - loop.time() if self.faults.rate_bytes_per_s == rate else 0.0)

    def slice(self) -> int:
        """The most bytes that may pass at once, 0 for no limit."""
        rate = self.faults.rate_bytes_per_s
        return max(1, int(rate * SLICE_S)) if rate else 0

    def spoil(self, data: bytes, offset: int) -> bytes:
        """These bytes as they leave; `offset` is where they stand in their connection's stream."""
        faults = self.faults
        hits = {at - offset for at in faults.garble_at if offset <= at < offset + len(data)}
        if faults.garble:
            hits |= {index for index in range(len(data)) if self._random.random() < faults.garble}
        if not hits:
            return data
        spoiled = bytearray(data)
        for index in hits:
            spoiled[index] ^= self._random.randrange(1, 256)
        self.garbled += len(hits)
        return bytes(spoiled)

    def sprung(self, connection: object, data: bytes) -> tuple[Trap, int] | None:
        """The trap that springs within these bytes, and how many of them pass before."""
        for trap in self.traps:
            allowed = trap.spring(connection, data)
            if allowed is not None:
                if not trap.left:
                    self.traps.remove(trap)
                return trap, allowed
        return None

    async def _wait(self, left_s: Callable[[], float]) -> None:
        while (left := left_s()) > 0:
            try:
                async with asyncio.timeout(left):
                    await self._changed.wait()
            except TimeoutError:
                continue
