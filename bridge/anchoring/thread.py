"""Calls that may never return (a share that is gone, a name service that is silent), each on a thread that nothing waits for."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")


class StillBusy(Exception):
    """The call before this one has not returned."""


class Apart:
    """One call at a time, on a daemon thread: one that hangs costs this thread and its own turn, and neither the event loop nor the end of the process."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._free = asyncio.Event()
        self._free.set()

    async def idle(self) -> None:
        """Return once no call is under way; limit the wait."""
        await self._free.wait()

    async def run(self, work: Callable[[], T], within_s: float) -> T:
        """The result of `work`. Raises what it raises, `TimeoutError` when it takes longer (it may go on), `StillBusy` while one before it does."""
        if not self._free.is_set():
            raise StillBusy
        self._free.clear()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def tell(put: Callable[[Any], None], found: object) -> None:
            self._free.set()
            if not future.done():
                put(found)

        def body() -> None:
            put: Callable[[Any], None] = future.set_result
            found: object
            try:
                found = work()
            except Exception as error:  # noqa: BLE001 - whatever it is, it is raised where the result is awaited
                put, found = future.set_exception, error
            with suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(partial(tell, put, found))

        threading.Thread(target=body, name=self._name, daemon=True).start()
        async with asyncio.timeout(within_s):
            return await future
