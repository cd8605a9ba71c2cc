"""Work done side by side within one task."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

T = TypeVar("T")


async def side_by_side(works: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Their results; the first failure ends the others, and is raised with what else failed as a `BaseExceptionGroup`.

    No `TaskGroup`: on Python 3.11 and 3.12 one that fails while it waits leaves its own cancellation on our task, and `errors.translated` would take that
    for the word of whoever ends the session.
    """
    loop = asyncio.get_running_loop()
    tasks = [loop.create_task(work) for work in works]
    if not tasks:
        return []
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    failed = [error for task in tasks if not task.cancelled() and (error := task.exception()) is not None]
    if failed:
        raise BaseExceptionGroup("side by side", failed)
    return [task.result() for task in tasks]


@asynccontextmanager
async def running(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """`work` goes on beside the block, and ends with it; it tells of its failure itself."""
    task = asyncio.get_running_loop().create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
