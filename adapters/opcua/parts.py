"""Services cut into parts: none larger than the server takes, and several on their way while it answers quickly."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Generic, TypeVar

from adapters.opcua.errors import translated
from adapters.opcua.library import ua
from adapters.opcua.together import side_by_side
from bridge.api import LinkError

Item = TypeVar("Item")
Result = TypeVar("Result")

# Service, our own limit per request, and the node where the server states its limit (OPC 10000-5, OperationLimitsType).
# Ours are small where answers are long: one is decoded in one step, in which nothing else goes on in this process.
LIMITS: Final = {
    "read": (250, 11705),
    "write": (500, 11707),
    "call": (100, 11709),
    "browse": (200, 11710),
    "translate": (250, 11712),
    "monitor": (250, 11714),
}
# What changes nothing and holds nothing open at the server may overtake itself.
_SIDE_BY_SIDE: Final = frozenset({"read", "translate"})
_WAYS: Final = 4
_QUICK: Final = 1 / 8  # of the time-out: so many waiting for each other still have time
_TOO_MUCH: Final = frozenset(
    {
        ua.StatusCodes.BadTooManyOperations,
        ua.StatusCodes.BadResponseTooLarge,
        ua.StatusCodes.BadRequestTooLarge,
        ua.StatusCodes.BadEncodingLimitsExceeded,
        ua.StatusCodes.BadTcpMessageTooLarge,
    }
)


class _Job(Generic[Item, Result]):
    """One call's items, what was answered so far, and which stretches of them still wait."""

    def __init__(self, items: Sequence[Item], call: Callable[[Sequence[Item]], Awaitable[list[Result]]]) -> None:
        self.items = items
        self.call = call
        self.results: dict[int, list[Result]] = {}
        self.waiting = deque([(0, len(items))] if items else ())
        self.workers = 0

    def take(self, size: int) -> tuple[int, int]:
        """The next stretch of at most this size."""
        start, stop = self.waiting.popleft()
        if stop - start > size:
            self.waiting.appendleft((start + size, stop))
        return start, min(stop, start + size)

    def answers(self) -> list[Result]:
        """In the order of the items."""
        return [result for start in sorted(self.results) for result in self.results[start]]


class Parts:
    """The limits of one server, and how quickly it answers."""

    def __init__(self, timeout_s: float) -> None:
        self._limits = {service: ours for service, (ours, _) in LIMITS.items()}
        self._quick_s = timeout_s * _QUICK
        self._quick = False

    def learn(self, service: str, stated: object) -> None:
        """A limit as the server states it; 0 is none."""
        if isinstance(stated, int) and stated > 0:
            self._limits[service] = min(self._limits[service], stated)

    async def run(
        self, service: str, items: Sequence[Item], call: Callable[[Sequence[Item]], Awaitable[list[Result]]]
    ) -> list[Result]:
        """One result for each item; a server that finds a part too large gets half of it from then on. Raises `LinkError` or `LinkRefused`."""
        job = _Job(items, call)
        with translated(service):
            await self._work(service, job)
            if job.waiting:
                await self._work_side_by_side(service, job)
        return job.answers()

    async def _work_side_by_side(self, service: str, job: _Job[Any, Any]) -> None:
        try:
            await side_by_side(self._work(service, job, several=True) for _ in range(_WAYS))
        except BaseExceptionGroup as error:
            raise error.exceptions[0] from error

    async def _work(self, service: str, job: _Job[Any, Any], *, several: bool = False) -> None:
        """Part after part, until none waits; alone until the server turns out to be quick, or beside others while it is."""
        job.workers += 1
        try:
            while job.waiting:
                await self._one(service, job)
                if several and not self._quick and job.workers > 1:
                    return
                if not several and self._quick and service in _SIDE_BY_SIDE:
                    return
        finally:
            job.workers -= 1

    async def _one(self, service: str, job: _Job[Any, Any]) -> None:
        start, stop = job.take(self._limits[service])
        begun = asyncio.get_running_loop().time()
        try:
            answered = await job.call(job.items[start:stop])
        except ua.UaStatusCodeError as error:
            if error.code not in _TOO_MUCH or stop - start == 1:
                raise
            self._limits[service] = min(self._limits[service], max(1, (stop - start) // 2))
            job.waiting.appendleft((start, stop))
            return
        if len(answered) != stop - start:
            raise LinkError(f"{service}: {len(answered)} results for {stop - start} items")
        self._quick = asyncio.get_running_loop().time() - begun <= self._quick_s
        job.results[start] = answered
