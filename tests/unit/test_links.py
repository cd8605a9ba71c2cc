"""The alarms of a link: LINK_REFUSED at once, LINK_DOWN after a stated time, both cleared when a session opens."""

import asyncio
from contextlib import asynccontextmanager

from bridge.clock import SystemClock
from bridge.errors import JournalFull, LinkError, LinkRefused
from bridge.field import links
from bridge.field.links import STEADY_S, LinkAlarms


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
async def watched(after_s=0.05, clock=None):
    rows = Rows()
    alarms = LinkAlarms(
        site="north",
        adapter="ems",
        participant="acme",
        journal=rows,
        clock=clock or SystemClock.here(),
        after_s=after_s,
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
        async with asyncio.timeout(10):
            while ("LINK_DOWN", True) not in rows.said:
                await asyncio.sleep(0.001)
        alarms.lost(LinkError("blink"))
        await asyncio.sleep(0.01)
        alarms.opened()
        await asyncio.sleep(0.01)
        assert ("LINK_DOWN", False) not in rows.said


class HandClock:
    """Moves only when it is told to."""

    ns = 1_000_000_000

    def mono_ns(self):
        return self.ns


async def flap(alarms, clock, *, open_s, lost_s, error="another client"):
    """A session that lasts so long, and the time until the next one."""
    alarms.opened()
    await asyncio.sleep(0.001)
    clock.ns += int(open_s * 1e9)
    alarms.lost(LinkError(error))
    await asyncio.sleep(0.001)
    clock.ns += int(lost_s * 1e9)


async def test_a_link_that_never_lasts_is_down():
    """Two hosts with one client id throw each other out for ever: told once, and cleared once when a session has lasted."""
    clock = HandClock()
    async with watched(after_s=60, clock=clock) as (rows, alarms):
        await flap(alarms, clock, open_s=3600, lost_s=2)
        for _ in range(14):
            await flap(alarms, clock, open_s=2, lost_s=2)
        assert not rows.standing
        for _ in range(20):
            await flap(alarms, clock, open_s=2, lost_s=2)
        assert rows.standing == {"LINK_DOWN": "no session that lasted 10 s for 60 s: LinkError: another client"}
        alarms.opened()
        await asyncio.sleep(0.001)
        clock.ns += int(STEADY_S * 1e9)
        alarms._changed.set()  # the timer that would end stands still with the clock
        await rows.until([])
        assert rows.said.count(("LINK_DOWN", False)) == rows.said.count(("LINK_DOWN", True)) - 1 == 1


async def test_a_refusal_after_the_opening_is_told_once(monkeypatch):
    """A broker may refuse a topic when the session is open already; the alarm stands until one has lasted."""
    clock = HandClock()
    async with watched(after_s=600, clock=clock) as (rows, alarms):
        for _ in range(5):
            alarms.opened()
            await asyncio.sleep(0.001)
            alarms.lost(LinkRefused("the broker refuses acme/host/status"))
            await rows.until(["LINK_REFUSED"])
        assert rows.said.count(("LINK_REFUSED", False)) == 1
        monkeypatch.setattr(links, "STEADY_S", 0.02)  # nobody has to say that it has lasted
        clock.ns += int(1e9)
        alarms.opened()
        clock.ns += int(1e9)
        await rows.until([])


async def test_two_short_losses_are_none():
    """With a session that lasts behind them."""
    clock = HandClock()
    async with watched(after_s=60, clock=clock) as (rows, alarms):
        for _ in range(20):
            await flap(alarms, clock, open_s=2, lost_s=2)
            await flap(alarms, clock, open_s=20, lost_s=2)
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
