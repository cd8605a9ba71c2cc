"""The two sides of an engine that run use cases."""

from collections.abc import Callable
from typing import Protocol, TypeVar

from bridge.journal.engine import Done
from bridge.journal.store import Rows, Tx

T = TypeVar("T")


class ReadSide(Protocol):
    """Runs reading calls, each on one snapshot."""

    async def run(self, work: Callable[[Rows], T]) -> T:
        """The result of `work`."""
        ...

    async def close(self) -> None:
        """Finish what was handed in, then end. Safe to call twice."""
        ...


class WriteSide(Protocol):
    """Runs changing calls, each durable when it returns."""

    async def run(self, work: Callable[[Tx], T]) -> Done[T]:
        """The result of `work` once it is on disk."""
        ...

    async def close(self) -> None:
        """Finish what was handed in, then end. Safe to call twice."""
        ...
