"""The composition root's own loops, with parts that are told what to do."""

import asyncio
from types import SimpleNamespace

import pytest

from bridge.app import RENEW_S, Host, Running
from bridge.errors import Fenced, JournalFull
from bridge.marketside import Market


class Journal:
    """Has no room at first, then another owner has the lease."""

    def __init__(self, *errors):
        self.errors = list(errors)

    async def renew(self, fences):
        raise self.errors.pop(0)

    async def release(self, fences):
        raise self.errors.pop(0)


def host():
    return Host(SimpleNamespace(sites={}, host=None))


async def test_a_full_disk_does_not_end_the_service_over_its_leases(monkeypatch):
    """DESIGN, "Full disk": "recover by itself"; a lease that was taken over does end it."""
    pauses = []

    async def sleep(seconds):
        pauses.append(seconds)

    monkeypatch.setattr("bridge.app.asyncio.sleep", sleep)
    with pytest.raises(Fenced):
        await host()._renew(Journal(JournalFull("full"), JournalFull("full"), Fenced("taken")))
    assert pauses == [RENEW_S] * 3


async def test_an_orderly_stop_on_a_full_disk():
    """The leases' lock files are given back anyway."""
    stopping = host()
    stopping._shared.fences.append(SimpleNamespace())
    await stopping._give_back(Journal(JournalFull("full")))


async def test_a_stop_drains_all_participants_at_once():
    """One whose platform does not answer must not leave the others sending for as long."""
    begun = []

    class Part:
        async def run(self):
            await asyncio.Event().wait()

        async def drain(self, within_s):
            begun.append(within_s)
            async with asyncio.timeout(5):
                while len(begun) < 2:
                    await asyncio.sleep(0)

    stopping = host()
    for name in ("one", "two"):
        stopping._market[name] = Market(Part(), Part(), Part(), None, Part(), None, Part(), Part())
    stopping._watch_ends = lambda journal, supervisors: Part()
    running = Running()
    running.stop.set()
    await stopping._work(Journal(), [], running)
    assert len(begun) == 2
