"""A lease that is held for as long as a piece of work takes: taken, renewed beside it, and given back."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final, Protocol

from bridge.errors import Fenced, JournalFull, JournalUnusable, LeaseHeld
from bridge.journal.port import Fence

RENEW_S: Final = 10.0  # a third of the time after which the lease of a silent owner is another's


class Leases(Protocol):
    """The part of the journal that gives leases and takes alarms."""

    async def acquire(self, lease: str) -> Fence:
        """See `bridge.journal.port.Journal.acquire`."""
        ...

    async def renew(self, fences: Sequence[Fence]) -> None:
        """See `bridge.journal.port.Journal.renew`."""
        ...

    async def release(self, fences: Sequence[Fence]) -> None:
        """See `bridge.journal.port.Journal.release`."""
        ...

    async def alarm(self, code: str, *, subject: str = "", text: str = "", clear: bool = False) -> None:
        """See `bridge.journal.port.Journal.alarm`."""
        ...


@asynccontextmanager
async def held(journal: Leases, lease: str) -> AsyncIterator[Fence]:
    """Hold `lease` inside the `with` block. Raises `LeaseHeld`. Whoever loses it all the same hears `Fenced` at the next commit."""
    fence, failure = await _acquired(journal, lease), None
    try:
        async with asyncio.TaskGroup() as group:
            renewing = group.create_task(_renew(journal, fence))
            try:
                yield fence
            except BaseException as error:  # noqa: BLE001 - raised below: in the group it would become part of an exception group
                failure = error
            renewing.cancel()
        if failure is not None:
            raise failure
    finally:
        await journal.release([fence])


async def _acquired(journal: Leases, lease: str) -> Fence:
    try:
        return await journal.acquire(lease)
    except LeaseHeld as error:  # a piece of work ends: nobody need stop a process for it
        text = f"the {lease} is worked on by the service or another command; nothing was changed"
        raise LeaseHeld(text, hint="try again when that is done") from error


async def _renew(journal: Leases, fence: Fence) -> None:
    with suppress(Fenced, JournalUnusable):  # the work itself is told at its next commit
        while True:
            await asyncio.sleep(RENEW_S)
            with suppress(JournalFull):  # it goes on by itself once there is room
                await journal.renew([fence])
