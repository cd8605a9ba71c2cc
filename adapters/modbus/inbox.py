"""Arrivals on their way to the core, bounded: a full box makes the poll loop wait, so nothing is dropped."""

import asyncio
from collections import deque

from bridge.api import Arrival, LinkError


class Inbox:
    """A queue that ends with an error."""

    def __init__(self, *, arrivals: int, records: int) -> None:
        self._waiting: deque[Arrival] = deque()
        self._most = arrivals
        self._records = records
        self._error: LinkError | None = None
        self._ready = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    async def put(self, arrival: Arrival) -> None:
        """Wait for room, then keep it. Raises `LinkError` once the link has ended."""
        while True:
            self._check()
            if len(self._waiting) < self._most:
                break
            self._room.clear()
            await self._room.wait()
        self._waiting.append(arrival)
        self._ready.set()

    async def take(self) -> list[Arrival]:
        """Wait for arrivals and return as many as are there, at least one, the rest of them only while they hold few records. Raises `LinkError`."""
        while True:
            self._check()
            if self._waiting:
                break
            self._ready.clear()
            await self._ready.wait()
        taken = [self._waiting.popleft()]
        count = len(taken[0].records)
        while self._waiting and count + len(self._waiting[0].records) <= self._records:
            taken.append(self._waiting.popleft())
            count += len(taken[-1].records)
        self._room.set()
        return taken

    def fail(self, error: LinkError) -> None:
        """End it: what waits is read again by the next session."""
        self._error = self._error or error
        self._ready.set()
        self._room.set()

    def _check(self) -> None:
        if self._error is not None:
            raise LinkError(str(self._error), hint=self._error.hint)
