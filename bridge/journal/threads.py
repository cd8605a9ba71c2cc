"""The threads of an engine: each owns its connection and is fed requests; all that wait are served together, and answered with one wake-up of the loop.

A heavy request, of many records, is served alone and after the light ones that wait with it: one participant's thousand records delay
another's single record by one commit of theirs at most.
"""

import asyncio
import logging
import queue
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from bridge.clock import Stamp
from bridge.errors import JournalFull, JournalUnusable

T = TypeVar("T")

log = logging.getLogger(__name__)

_BATCH: Final = 512
_LIGHT: Final = 50  # records; more are in the way of others for longer than a commit takes anyway


@dataclass(frozen=True, slots=True)
class Done(Generic[T]):
    """What a request returned, and when its commit was on disk."""

    value: T
    at: Stamp


@dataclass(slots=True)
class Request:
    """One call on its way through a thread."""

    work: Callable[[Any], Any]
    future: asyncio.Future[Any]
    weight: int = 1
    """How many records it is about."""
    result: Any = None
    error: Exception | None = None
    told: Callable[[Any], None] | None = None
    """Called on the loop with the result, None for an error, before anybody else hears of it, and whether or not anybody still waits."""


class Worker:
    """A thread that is fed requests; results go back to the loop that asked, one wake-up per batch. `full` while the last batch found no room.

    `heard` is called on the loop, in the same wake-up, with the topics of what was committed.
    """

    def __init__(self, name: str, heard: Callable[[set[str]], None] = lambda _: None) -> None:
        self.full = False
        self._heard = heard
        self._topics: set[str] = set()
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._heavy: deque[Request] = deque()
        self._closing = False
        self._ended = False
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    async def ask(self, work: Callable[[Any], Any], *, weight: int = 1) -> Any:
        """Hand `work`, about so many records, to the thread and wait for its result."""
        self._still_open()
        request = Request(work, self._loop.create_future(), weight)
        self._queue.put(request)
        return await request.future

    async def close(self) -> None:
        """Finish what was handed in, then close the connection. Safe to call twice."""
        if not self._closing:
            self._closing = True
            self._queue.put(None)
        await self._loop.run_in_executor(None, self._thread.join)

    def _still_open(self) -> None:
        if self._closing:
            raise JournalUnusable("the journal is closed")

    def _work(self) -> None:
        while not self._ended or self._heavy:
            self._round(self._light())
            if self._heavy:
                self._round([self._heavy.popleft()])
        self._end()

    def _round(self, batch: list[Request]) -> None:
        if batch:
            self._serve(batch)
            self._judge(batch)
            topics, self._topics = self._topics, set()
            self._resolve(batch, topics)
            if topics:
                self._tell(topics)
        self._between()

    def _judge(self, batch: list[Request]) -> None:
        self.full = any(isinstance(request.error, JournalFull) for request in batch)

    def _light(self) -> list[Request]:
        """The light requests that wait, the heavy ones put aside; without any of either, wait for the first."""
        batch: list[Request] = []
        while len(batch) < _BATCH and not self._ended:
            try:
                request = self._queue.get(block=not batch and not self._heavy)
            except queue.Empty:
                break
            if request is None:
                self._ended = True
            elif request.weight > _LIGHT:
                self._heavy.append(request)
            else:
                batch.append(request)
        return batch

    def _serve(self, batch: list[Request]) -> None:
        """Give every request of the batch its result or its error, and `_topics` what was committed."""
        raise NotImplementedError

    def _tell(self, topics: set[str]) -> None:
        """Tell other processes what was committed; the callers here have their answers."""

    def _between(self) -> None:
        """What can wait until the callers have their answers."""

    def _end(self) -> None:
        """Close the connection."""
        raise NotImplementedError

    def _resolve(self, batch: list[Request], topics: set[str]) -> None:
        with suppress(RuntimeError):  # the loop is gone: nobody waits any more
            self._loop.call_soon_threadsafe(self._answer, batch, topics)

    def _answer(self, batch: list[Request], topics: set[str]) -> None:
        answer(batch)
        self._heard(topics)


def answer(batch: list[Request]) -> None:
    """Give every caller that still waits its result or its error; on the loop."""
    for request in batch:
        if request.told is not None:
            _tell(request.told, None if request.error is not None else request.result)
    for request in batch:
        if request.future.done():
            continue
        if request.error is not None:
            request.future.set_exception(request.error)
        else:
            request.future.set_result(request.result)


def _tell(told: Callable[[Any], None], result: Any) -> None:
    """If what a caller gave us fails, that is its own defect, and nobody else's answer waits for it."""
    try:
        told(result)
    except Exception:
        log.exception("a_caller_failed")
