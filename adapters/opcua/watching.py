"""Which variables are watched already: what asks for a submission at once, fields that may change step by step once their records were read.

To make twenty thousand watched variables keeps a server busy for seconds, in which it reads slowly; what a field does meanwhile is told by the first
notification of it.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from adapters.opcua.config import needed_queue
from adapters.opcua.errors import status_name
from adapters.opcua.link import Monitored, Subscribed, log
from adapters.opcua.requests import OWN, Asked
from adapters.opcua.subscriptions import Subscriptions
from bridge.api import LinkError, SessionContext

PART: Final = 250
_BAD: Final = 0x80000000  # the severity of a status code


class Watching:
    """The variables of one session that are to be watched, by their handles, in their order. Those from `OWN` on are the session's own, and may be refused."""

    def __init__(
        self,
        context: SessionContext,
        subscriptions: Subscriptions,
        handles: Sequence[int],
        asked: Callable[[int], Asked],
    ) -> None:
        self._context = context
        self._subscriptions = subscriptions
        self._waiting = deque(handles)
        self._asked = asked
        self._count = sum(each < OWN for each in handles)
        self._made: Subscribed | None = None
        self._slowest: tuple[float, float] = (0.0, 0.0)
        self._told_of_queue = False
        self._status = 0
        self.refused: list[int] = []

    def more(self, handles: Sequence[int]) -> None:
        """These are to be watched, too."""
        self._waiting.extend(handles)
        self._count += len(handles)

    @property
    def left(self) -> int:
        """How many are not watched yet."""
        return len(self._waiting)

    @property
    def why(self) -> str:
        """The status with which the first was refused."""
        return status_name(self._status)

    async def some(self, count: int = PART) -> list[int]:
        """Watch so many more; returns the handles that the server refused. Raises `LinkError`, also when it refused each and every one."""
        if self._made is None:
            self._made = await self._subscriptions.open()
        refused: list[int] = []
        while count > 0 and self._waiting:
            asked = [self._asked(self._waiting.popleft()) for _ in range(min(PART, count, len(self._waiting)))]
            refused += self._sort(self._made, asked, await self._subscriptions.watch(asked))
            count -= len(asked)
        if self.refused and len(self.refused) == self._count:
            raise LinkError(f"subscribing: the server answered {self.why} for every node")
        return refused

    def _sort(self, subscribed: Subscribed, asked: Sequence[Asked], made: Sequence[Monitored]) -> list[int]:
        found = [each for each in zip(asked, made, strict=True) if each[0].handle < OWN]
        self._tell(subscribed, [each for each in found if not each[1].code & _BAD])
        refused = [each for each in found if each[1].code & _BAD]
        if refused and not self.refused:
            self._status = refused[0][1].code
        handles = [each.handle for each, _ in refused]
        self.refused += handles
        return handles

    def _tell(self, subscribed: Subscribed, watched: Sequence[tuple[Asked, Monitored]]) -> None:
        """The slowest sampling so far, and the first queue that is too short for what the server samples between two publishes."""
        slowest = max(((made.sampling_s, asked.sampling_s) for asked, made in watched), default=self._slowest)
        if slowest > self._slowest:
            self._slowest = slowest
            self._context.intervals.agreed("sampling", configured_s=slowest[1], revised_s=slowest[0])
        for _, made in watched:
            needed = needed_queue(subscribed.interval_s, made.sampling_s)
            if made.queue < needed and not self._told_of_queue:
                self._told_of_queue = True
                names = {"site": self._context.site, "adapter": self._context.adapter}
                log.warning("opcua_queue_too_short", extra={**names, "needed": needed, "given": made.queue})
