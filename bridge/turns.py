"""Long work in small steps, or on a thread of its own: whoever else waits for the event loop is served in between."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

STEP_S: Final = 0.001
LARGE_BYTES: Final = 16 * 1024  # what is worked in less than a millisecond
_THREAD: Final = ThreadPoolExecutor(max_workers=1, thread_name_prefix="aside")
_SIGNERS: Final[dict[str, ThreadPoolExecutor]] = {}


async def aside(size: int, work: Callable[P, T], /, *args: P.args, **named: P.kwargs) -> T:
    """The result of pure `work` on so many bytes: at once where they are few, else on one thread beside the loop. One large piece waits for another."""
    if size <= LARGE_BYTES:
        return work(*args, **named)
    return await asyncio.get_running_loop().run_in_executor(_THREAD, lambda: work(*args, **named))


async def signing(whose: str, work: Callable[P, T], /, *args: P.args, **named: P.kwargs) -> T:
    """The result of work with a key that is asked and not held (a hardware module): on a thread of that participant's own, so that a slow module delays nobody else.

    Whoever stops waiting takes his turn out of the line, unless it has begun.
    """
    thread = _SIGNERS.get(whose)
    if thread is None:
        thread = _SIGNERS[whose] = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"sign-{whose}")
    return await asyncio.get_running_loop().run_in_executor(thread, lambda: work(*args, **named))


class Turns:
    """One piece of long work on the loop. Call `give` often in it: once the work has had the loop for `STEP_S`, others have their turn."""

    __slots__ = ("_loop", "_until")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._until = self._loop.time() + STEP_S

    @property
    def over(self) -> bool:
        """Whether this work has had its time, where even a call of `give` for each of thousands counts."""
        return self._loop.time() >= self._until

    async def give(self) -> None:
        """Let others in if this work has had its time; costs next to nothing otherwise."""
        if self._loop.time() < self._until:
            return
        await asyncio.sleep(0)
        self._until = self._loop.time() + STEP_S
