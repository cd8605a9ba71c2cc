"""The alarms of a link: LINK_REFUSED at once, LINK_DOWN after a stated time, both cleared when a session opens."""

import asyncio
from contextlib import asynccontextmanager

from bridge.clock import SystemClock
from bridge.errors import JournalFull, LinkError, LinkRefused
from bridge.field import links
from bridge.field.links import LinkAlarms


class Rows:
    """The alarms of a journal that may be full."""

    def __init__(self):
        self.standing = {}
        self.said = []
        self.full = 0
        self.changed = asyncio.Event()

    async def alarm(self, code, *, participant, site, subject, text, clear):
        if self.full:
            self.full -= 1
            raise JournalFull("no room")
        assert (participant, site, subject) == ("acme", "north", "ems")
        self.said.append((code, clear))
        if clear:
            self.standing.pop(code, None)
        else:
            self.standing[code] = text
        self.changed.set()

    async def until(self, codes):
        async with asyncio.timeout(10):
            while sorted(self.standing) != sorted(codes):
                self.changed.clear()
                await self.changed.wait()


@asynccontextmanager
async def watched(after_s=0.05):
    rows = Rows()
    alarms = LinkAlarms(
        site="north", adapter="ems", participant="acme", journal=rows, clock=SystemClock.here(), after_s=after_s
    )
    task = asyncio.get_running_loop().create_task(alarms.run())
    try:
        yield rows, alarms
    finally:
        task.cancel()
        await asyncio.wait({task})


async def test_down_after_the_stated_time():
    """Never open, and then lost: an alarm each time, raised once however often it is tried; cleared when a session opens."""
    async with watched() as (rows, alarms):
        await rows.until(["LINK_DOWN"])
        assert "never open" in rows.standing["LINK_DOWN"]
        for _ in range(3):
            alarms.lost(LinkError("no answer"))
            await asyncio.sleep(0)
        alarms.opened()
        await rows.until([])
        alarms.lost(LinkError("cable"))
        await rows.until(["LINK_DOWN"])
        assert "LinkError: cable" in rows.standing["LINK_DOWN"]
        assert rows.said.count(("LINK_DOWN", False)) == 2


async def test_what_is_left_out_is_an_alarm_as_long_as_the_session_lasts():
    """It may be told before the session is open; the first text stands, and it ends with the session. What an earlier process left is cleared by one that keeps all."""
    async with watched(after_s=60) as (rows, alarms):
        alarms.beyond("chargers: more than 10 registrations")
        alarms.opened()
        alarms.beyond("units: more than 10 registrations")
        await rows.until(["BEYOND_LIMIT"])
        assert rows.standing["BEYOND_LIMIT"].startswith("chargers")
        alarms.lost(LinkError("cable"))
        await rows.until([])
    async with watched(after_s=60) as (rows, alarms):
        rows.standing["BEYOND_LIMIT"] = "of an earlier process"
        alarms.opened()
        await rows.until([])


async def test_a_short_loss_is_none():
    """Back before the time is over."""
    async with watched(after_s=60) as (rows, alarms):
        alarms.opened()
        alarms.lost(LinkError("blink"))
        alarms.opened()
        async with asyncio.timeout(10):
            while ("LINK_DOWN", True) not in rows.said:
                await asyncio.sleep(0.001)
        assert ("LINK_DOWN", False) not in rows.said


async def test_refused_at_once():
    """Wrong credentials need a person at once; they stay wrong until a session opens, whatever else happens meanwhile."""
    async with watched(after_s=60) as (rows, alarms):
        alarms.lost(LinkRefused("bad user name or password"))
        await rows.until(["LINK_REFUSED"])
        alarms.lost(LinkError("no answer"))
        await asyncio.sleep(0.02)
        assert sorted(rows.standing) == ["LINK_REFUSED"]
        alarms.opened()
        await rows.until([])


async def test_what_an_earlier_process_left_is_cleared_when_a_session_opens():
    """And not before: the link may be down still."""
    async with watched(after_s=60) as (rows, alarms):
        rows.standing = {"LINK_DOWN": "old", "LINK_REFUSED": "old"}
        alarms.lost(LinkError("no answer"))
        await asyncio.sleep(0.02)
        assert sorted(rows.standing) == ["LINK_DOWN", "LINK_REFUSED"]
        alarms.opened()
        await rows.until([])


async def test_told_once_there_is_room(monkeypatch):
    """A full journal only delays it."""
    monkeypatch.setattr(links, "AGAIN_S", 0.01)
    async with watched() as (rows, _):
        rows.full = 3
        await rows.until(["LINK_DOWN"])
        assert rows.full == 0
