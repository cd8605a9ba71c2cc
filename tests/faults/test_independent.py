"""Trouble is independent: what happens to one device, site, participant or SMP account is not felt by the others.

Measured from outside: when a record was asked for, seen at SMP, its result pushed, the EMS told; in turns with the trouble and without.
"""

import asyncio
import json
import random
import sys
import time
from contextlib import asynccontextmanager

import pytest
from faulty_ems import REGISTERED, Modbus, Mqtt, NodeOpcUa, each
from neighbours import LAST, OTHER, SUPPORT, Counted, Form, in_turns, neighbours
from neighbours import REGISTERED as REGISTERED_STATE

from bridge.submission import SubmissionState
from bridge.testing.lane import Then
from bridge.testing.proxy import Way

# Among all other tests, two of which run at a time: what is looked for there is work that stands still, not what a busy machine takes.
QUICK = Form(pairs=3, seconds=2.0, rate=40, share=1.0, plus_ms=100)
FULL = Form(pairs=5, seconds=5.0, rate=40, share=0.2, plus_ms=2)
# One journal has one writer, so that a flood's calls of 1,000 are in others' way for as long as one commit of theirs takes.
FLOOD = Form(pairs=5, seconds=5.0, rate=40, share=0.2, plus_ms=50)
NOISE = Form(pairs=5, seconds=5.0, rate=40, share=0.2, plus_ms=10)
TEN_S = 10.0
PAUSE_S = 11.0  # the second pause of an account whose login got no answer


# devices and sites -------------------------------------------------------------------------------------------------------


class Devices:
    """Trouble of these links: an asset is asked for in it, and must be registered afterwards."""

    def __init__(self, made, links, inject):
        self.made = made
        self.links = links
        self.inject = inject
        self.asked = []

    async def begin(self):
        for link in self.links:
            await self.inject(link.proxy)
        self.asked = await each(self.links, lambda link: link.ask())

    async def end(self, counted):
        for link in self.links:
            link.proxy.clear()
            await link.proxy.listen()

        async def registered(link):
            reference = self.asked[self.links.index(link)]
            await link.until([reference], REGISTERED, within_s=30)
            return [[reference, 0, 0, 0, REGISTERED_STATE]]

        for rows in await each(self.links, registered):
            counted.add(rows, self.made.sandbox.ledger.creates)


async def silent(proxy):
    proxy.set(blackhole=True)


async def crawling(proxy):
    proxy.set(rate_bytes_per_s=1000)


async def gone(proxy):
    await proxy.refuse()
    await proxy.cut()


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_devices(tmp_path, table):
    """A Modbus device of the same site that takes connections and says nothing, or crawls; then three sites that cannot be reached at all."""
    async with neighbours(tmp_path, Modbus, Mqtt, NodeOpcUa, other=False) as made:
        modbus = made.links[:1]
        for fault, links, inject in (
            ("a device of the same site is silent", modbus, silent),
            ("a device of the same site at 1 kB/s", modbus, crawling),
            ("three sites unreachable", made.links, gone),
        ):
            trouble = Devices(made, links, inject)
            await in_turns(made, FULL, fault, begin=trouble.begin, end=trouble.end, table=table)


# another participant -----------------------------------------------------------------------------------------------------


class Records:
    """Records of the other participant, asked for in its trouble; afterwards each is registered, once."""

    def __init__(self, made):
        self.made = made
        self.loads = []

    def ask(self, **how):
        self.loads.append(self.made.ask("east", **how))

    async def wait(self, count):
        """So many records wait, and their places say so, before anything is measured."""
        self.ask(rate=count * 4, seconds=0.25, burst=count // 5)
        await self.made.until(lambda: self.loads[-1] in self.made.taken, 30)

    async def count(self, counted):
        loads, self.loads = self.loads, []
        rows = [row for load in loads for row in await self.made.until_told(load)]
        creates = await self.made.other_creates()
        counted.add(rows, lambda reference: creates.get(reference, 0))


@asynccontextmanager
async def noise(url, small, large, new):
    """Garbage at the end point, by a process that gets the processor last."""
    process = await asyncio.create_subprocess_exec(
        *LAST, sys.executable, str(SUPPORT / "noise_child.py"), url, str(small), str(large), str(new), stdout=asyncio.subprocess.PIPE
    )  # fmt: skip
    try:
        async with asyncio.timeout(20):
            told = json.loads(await process.stdout.readline())
        assert told == {"answered": [401, 401, 401]}
        yield
        assert process.returncode is None, "who made the noise has ended"
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def under_way(journal):
    return journal.submissions(participant=OTHER, state=SubmissionState.SENDING)


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_another_participant(tmp_path, table):
    """Its SMP falls silent with thousands waiting; it floods the host; garbage is pushed at its end point."""
    async with neighbours(tmp_path) as made:
        records = Records(made)

        async def silence():
            made.proxy.set(blackhole=True)
            await records.wait(5000)
            async with asyncio.timeout(20):  # every call that may be under way hangs
                while len(await made.read(under_way)) < made.other_profile.limits.concurrency:
                    await asyncio.sleep(0.1)
                # The words "sent" of its thousands are its work and no trouble; its healthy arm is measured after them, too.
                while (await made.read(lambda journal: journal.counts()))["writebacks.pending"]:
                    await asyncio.sleep(0.1)

        async def heard(counted):
            made.proxy.clear()
            await records.count(counted)

        @asynccontextmanager
        async def served(counted):
            await records.wait(5000)
            await records.count(counted)
            yield

        fault = "another's SMP silent, 5,000 records wait"
        await in_turns(made, FULL, fault, begin=silence, end=heard, alike=served, table=table)

        async def flood():
            await records.wait(2000)
            records.ask(rate=300, seconds=FULL.seconds, burst=10)

        await in_turns(
            made,
            FLOOD,
            "another floods: 300 records/s, 2,000 wait (+ 50 ms)",
            begin=flood,
            end=records.count,
            table=table,
        )

        noises = []

        async def loud():
            noises.append(noise(made.return_url(OTHER), 100, 1, 5))
            await noises[-1].__aenter__()

        async def quiet(counted):
            await noises.pop().__aexit__(None, None, None)

        fault = "garbage at another's end point, 106/s (+ 10 ms)"
        await in_turns(made, NOISE, fault, begin=loud, end=quiet, table=table)


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_another_account(tmp_path, table):
    """Its login hangs; its login is refused until the account stops itself."""
    async with neighbours(tmp_path, inside=True) as made:
        records = Records(made)
        login = b"POST " + made.other_profile.calls["authenticate"].path.encode()

        async def hang():
            await made.control("POST", "/expire-tokens")
            made.proxy.trap(Way.UP, at=login, then=Then.BLACKHOLE)
            records.ask(rate=50, seconds=FULL.seconds)
            await made.proxy.until(lambda: made.proxy.lanes[Way.UP].faults.blackhole)

        async def answered(counted):
            made.proxy.clear()
            await records.count(counted)

        @asynccontextmanager
        async def well(counted):
            records.ask(rate=50, seconds=FULL.seconds)
            yield
            await records.count(counted)

        await in_turns(made, FULL, "another's login hangs", begin=hang, end=answered, alike=well, table=table)
        asked = []

        async def wrong():
            await made.stop_host()
            made.environment["OTHER_USER"] = "somebody"
            await made.start()
            asked.append(made.ask("east", rate=50, seconds=FULL.seconds))

        async def right(counted):
            waiting = [row[0] for row in await made.take(asked.pop())]
            await made.stop_host()
            made.environment["OTHER_USER"] = "other"
            await made.start()
            creates = {}
            async with asyncio.timeout(60):
                while set(waiting) - set(creates):
                    await asyncio.sleep(0.1)
                    creates = await made.other_creates()
            counted.add(
                [[reference, 0, 0, 0, REGISTERED_STATE] for reference in waiting], lambda name: creates.get(name, 0)
            )

        await in_turns(made, FULL, "another's login is refused", begin=wrong, end=right, alike=well, table=table)


# together, and at the start ----------------------------------------------------------------------------------------------


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "form", [pytest.param(QUICK, id="quick"), pytest.param(FLOOD, id="whole", marks=pytest.mark.long)]
)
async def test_all_at_once(tmp_path, table, form):
    """A silent device in the same site, a broker that is gone, another's SMP silent while it floods, garbage at its end point."""
    async with neighbours(tmp_path, Modbus, Mqtt) as made:
        modbus, mqtt = made.links
        here, there, records = Devices(made, [modbus], silent), Devices(made, [mqtt], gone), Records(made)
        noises = []

        async def begin():
            await here.begin()
            await there.begin()
            made.proxy.set(blackhole=True)
            records.ask(rate=200, seconds=form.seconds, burst=10)
            noises.append(noise(made.return_url(OTHER), 50, 0.5, 5))
            await noises[-1].__aenter__()

        async def end(counted):
            await noises.pop().__aexit__(None, None, None)
            made.proxy.clear()
            await here.end(counted)
            await there.end(counted)
            await records.count(counted)

        await in_turns(made, form, "all of it at once", begin=begin, end=end, table=table)


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.long), pytest.param(3, marks=pytest.mark.long)])
async def test_nothing_is_reachable_at_the_start(tmp_path, table, seed):
    """No EMS, no SMP, no name service: the host is ready and takes returns; each link recovers alone, in any order, and nothing is lost."""
    async with neighbours(tmp_path, Modbus, Mqtt, NodeOpcUa, reachable=False) as made:
        assert made.ready_s < TEN_S
        async with noise(made.return_url(OTHER), 0, 0, 1):
            pass  # the end point answers
        loads = {site: made.ask(site, rate=50, seconds=1) for site in ("north", "east")}
        # A broker keeps nothing for a client that it has never seen: its EMS asks once the link is up.
        for link in made.links:
            if not isinstance(link, Mqtt):
                await link.ask()

        async def names():
            made.names.touch()

        back = {"smp": made.smp.listen, "names": names, OTHER: made.proxy.listen}
        back |= {link.name: link.proxy.listen for link in made.links}
        order = sorted(back)
        random.Random(seed).shuffle(order)
        came, slowest_s = set(), 0.0
        for peer in order:
            await back[peer]()
            came.add(peer)
            started = time.monotonic()
            for link in made.links:
                if link.name == peer:
                    await link.until_up(within_s=TEN_S)
                    if isinstance(link, Mqtt):
                        await link.ask()
            if peer == OTHER:
                await made.until_told(loads["east"], TEN_S + PAUSE_S)
            if came >= {"smp", "names"} and peer in {"smp", "names"}:
                await made.until_told(loads["north"], TEN_S + PAUSE_S)
            slowest_s = max(slowest_s, time.monotonic() - started)
        for link in made.links:
            await link.until(link.asked, REGISTERED, within_s=30)
        creates = await made.other_creates()
        counted = Counted(recovery_s=slowest_s)
        counted.add(await made.take(loads["north"]), made.sandbox.ledger.creates)
        counted.add(await made.take(loads["east"]), lambda name: creates.get(name, 0))
        asked = [[name, 0, 0, 0, REGISTERED_STATE] for link in made.links for name in link.asked]
        counted.add(asked, made.sandbox.ledger.creates)
        table.add(counted.row("nothing reachable at the start"))
