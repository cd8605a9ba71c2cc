"""When a lost link is tried again: waits that grow, and are spread."""

import asyncio

import pytest
from virtual_time import in_virtual_time

from bridge.errors import LinkError, LinkRefused
from bridge.field.supervisor import FIRST_DELAY_S, LONGEST_DELAY_S, REFUSED_DELAY_S, Supervisor

TRIES = 7
LOST = [min(LONGEST_DELAY_S, FIRST_DELAY_S * 2**number) for number in range(TRIES)]


class Clock:
    """The loop's own time."""

    def mono_ns(self):
        return int(asyncio.get_running_loop().time() * 1e9)


class Nothing:
    """Whatever is told of a link is heard, and that is all."""

    def __getattr__(self, _):
        return lambda *_, **__: None


class Journal(Nothing):
    async def awaited(self, site):
        return []


class Desk:
    def __init__(self):
        self.shown = []

    def ahead(self, record):
        self.shown.append(record)


class Links(Nothing):
    async def run(self):
        await asyncio.Event().wait()


class Adapter:
    def __init__(self, error):
        self._error, self.tries = error, 0

    def open(self, context):
        self.tries += 1
        context.ahead(self.tries)
        raise self._error


async def waits(error, jitter):
    """The first waits of a link that always fails so."""
    slept, enough = [], asyncio.Event()

    async def sleep(seconds):
        slept.append(seconds)
        if len(slept) == TRIES:
            enough.set()
            await asyncio.Event().wait()

    adapter, desk = Adapter(error), Desk()
    supervisor = Supervisor(
        site="north", name="ems", adapter=adapter, options=None, plans={}, journal=Journal(), desk=desk, writebacks=None, clock=Clock(),
        metrics=Nothing(), links=Links(), client_id="t", jitter=lambda: jitter, sleep=sleep,
    )  # fmt: skip
    task = asyncio.get_running_loop().create_task(supervisor.run())
    await asyncio.wait(
        {task, asyncio.get_running_loop().create_task(enough.wait())}, return_when=asyncio.FIRST_COMPLETED
    )
    assert not task.done(), task.exception()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert adapter.tries == TRIES
    assert desk.shown == list(
        range(1, TRIES + 1)
    )  # what a session reads ahead is shown to the desk that takes its arrivals
    return slept


@pytest.mark.parametrize(
    ("error", "jitter", "expected"),
    [
        (LinkError("gone"), 0.0, [wait * 0.5 for wait in LOST]),
        (LinkError("gone"), 1.0, LOST),
        (LinkRefused("no"), 0.0, [REFUSED_DELAY_S * 0.75] * TRIES),
        (LinkRefused("no"), 1.0, [REFUSED_DELAY_S * 1.25] * TRIES),
    ],
    ids=["lost-soonest", "lost-latest", "refused-soonest", "refused-latest"],
)
def test_waits_grow_and_are_spread(error, jitter, expected):
    """Sites that lost the same network do not all come back in one moment; none waits longer than its bound, so that links are back within 10 s."""
    assert in_virtual_time(waits(error, jitter)) == pytest.approx(expected)
    assert max(expected) < 10
