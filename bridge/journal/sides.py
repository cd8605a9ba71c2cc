"""The sides of an engine: what runs the use cases, and what wakes those who wait."""

import asyncio
from collections.abc import Callable
from typing import Protocol, TypeVar

from bridge.journal.store import Rows, Tx
from bridge.journal.threads import Done

T = TypeVar("T")


class ReadSide(Protocol):
    """Runs reading calls, each on one snapshot."""

    async def run(self, work: Callable[[Rows], T], *, quick: bool = False) -> T:
        """The result of `work`."""
        ...

    async def close(self) -> None:
        """Finish what was handed in, then end. Safe to call twice."""
        ...


class WriteSide(Protocol):
    """Runs changing calls, each durable when it returns. `full` while the last ones found no room."""

    full: bool

    async def run(
        self,
        work: Callable[[Tx], T],
        *,
        weight: int = 1,
        quick: bool = False,
        lazy: bool = False,
        told: Callable[[Done[T] | None], None] | None = None,
    ) -> Done[T]:
        """The result of `work`, about so many records, once it is on disk. Many are served after those who ask for few.

        `quick` is what takes a few statements for each record, so that an engine may run them on the event loop; `lazy` what may wait a few ms for another commit.
        `told`: see `bridge.journal.threads.Request`.
        """
        ...

    async def close(self) -> None:
        """Finish what was handed in, then end. Safe to call twice."""
        ...


class WakeSide(Protocol):
    """Tells of the commits of every process on the journal."""

    def event(self, topic: str) -> asyncio.Event:
        """A new waiter's event, for `Journal.woken`."""
        ...

    def close(self) -> None:
        """End. Safe to call twice."""
        ...
