"""Reads that several tasks ask for in the same turn of the loop travel in the same requests."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

Read: TypeAlias = Callable[[Sequence[Any]], Awaitable[list[Any]]]


class ReadBatch:
    """Whoever asks first waits one turn of the loop for the others and then reads for all. Used by works that run side by side: a failure ends all."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._waiting: list[tuple[Sequence[Any], asyncio.Future[list[Any]]]] = []

    async def read(self, nodes: Sequence[Any]) -> list[Any]:
        """The values of these nodes."""
        answer: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self._waiting.append((nodes, answer))
        if len(self._waiting) == 1:
            await asyncio.sleep(0)
            await self._read_for_all()
        return await answer

    async def _read_for_all(self) -> None:
        waiting, self._waiting = self._waiting, []
        values = await self._read([node for nodes, _ in waiting for node in nodes])
        start = 0
        for nodes, answer in waiting:
            if not answer.done():
                answer.set_result(values[start : start + len(nodes)])
            start += len(nodes)
