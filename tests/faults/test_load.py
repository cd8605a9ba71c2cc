"""Load: SMP is down while records pile up. The bridge's memory stays flat, and afterwards all go out, in order, never faster than SMP allows."""

import asyncio
import json
import os
import sys
import time
from bisect import bisect_left
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from fault_table import Row
from load_child import reference
from service import PARTICIPANT, prepared

from bridge.sandbox import Knobs
from bridge.testing.proxy import FaultProxy

CHILD = Path(__file__).parents[1] / "support/load_child.py"
MOST_GROWTH_MB = 100
UNITS, MEMBERS = 5, 20
JITTER = 2  # calls that may arrive together although they left apart


@dataclass(frozen=True, kw_only=True)
class Size:
    """How many records, in calls of how many, at which rate."""

    records: int
    per_call: int
    rate_per_minute: int
    burst: int
    again: int  # every how many-th record is asked for again with other values

    @property
    def profile(self):
        limits = {
            "records": self.per_call,
            "rate_per_minute": self.rate_per_minute,
            "burst": self.burst,
            "concurrency": 4,
        }
        return {"limits": limits, "poll": {"delays_s": [30, 60], "every_s": 300, "until_s": 3600, "overdue_s": 900}}


class Bridge:
    """The process, what it has said, and what it takes."""

    def __init__(self, process):
        self._process = process
        self.said = {}
        self._changed = asyncio.Event()

    async def read(self):
        async for line in self._process.stdout:
            self.said |= json.loads(line)
            self._changed.set()
        self._changed.set()

    async def until(self, condition, within_s):
        try:
            async with asyncio.timeout(within_s):
                while not condition(self.said):
                    assert self._process.returncode is None, "the bridge has ended"
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"the bridge says {self.said}") from None

    def ask(self, *words):
        self._process.stdin.write(" ".join(str(word) for word in words).encode() + b"\n")

    def memory_mb(self, what="VmRSS"):
        lines = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(what)) / 1024

    def forget_peak(self):
        """VmHWM begins anew at what is taken now."""
        Path(f"/proc/{self._process.pid}/clear_refs").write_text("5")


@asynccontextmanager
async def loaded(directory, size):
    """A bridge as a process, its way to SMP, and the sandbox in this one."""
    kept = {}

    @asynccontextmanager
    async def through(sandbox):
        async with FaultProxy("127.0.0.1", int(sandbox.base_url.rpartition(":")[2])) as proxy:
            kept["proxy"] = proxy
            yield f"https://127.0.0.1:{proxy.port}"

    knobs = Knobs(return_delay_s=0.05)
    async with prepared(directory, changes=size.profile, through=through, knobs=knobs) as made:
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(CHILD), str(directory / "config"), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )  # fmt: skip
        bridge = Bridge(process)
        reading = made._group.create_task(bridge.read())
        try:
            await bridge.until(lambda said: "ready" in said, 30)
            path = made.sandbox_profile.return_path.replace("{participant}", PARTICIPANT)
            made.sandbox.set_return_url(PARTICIPANT, f"https://127.0.0.1:{bridge.said['ready']}{path}")
            yield made, bridge, kept["proxy"]
            bridge.ask("stop")
            async with asyncio.timeout(60):
                assert await process.wait() == 0
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
            await reading


def told(said, state):
    return said.get("told", {}).get(str(state), 0)


async def outage_and_drain(directory, table, size, *, within_s, fault):
    """All of it: pile up, come back, drain; and every check of it."""
    async with loaded(directory, size) as (made, bridge, proxy):
        bridge.ask("assets", 1, size.per_call, 1)  # all of the code has run once, and one connection is warm
        await bridge.until(lambda said: told(said, 3) == size.per_call, 60)
        await proxy.refuse()
        await proxy.cut()
        bridge.forget_peak()
        before_mb, started = bridge.memory_mb(), time.monotonic()
        first, last = size.per_call + 1, size.per_call + size.records
        bridge.ask("assets", first, size.records, 1)
        for unit in range(UNITS):
            bridge.ask("unit", unit, last - (unit + 1) * MEMBERS + 1, MEMBERS)
        again = range(first, last + 1, size.again)
        for number in again:
            bridge.ask("assets", number, 1, 2)
        everything = size.per_call + size.records + UNITS + len(again)
        await bridge.until(lambda said: said.get("acked") == everything, within_s)
        taken_s = time.monotonic() - started
        piled_mb = bridge.memory_mb()
        calls = len(made.ledger.of("asset.create"))
        await proxy.listen()
        back = time.monotonic()
        while len(made.ledger.of("asset.create")) == calls:
            await asyncio.sleep(0.02)
        resumed_s = time.monotonic() - back
        await bridge.until(lambda said: told(said, 3) + told(said, 10) == last + UNITS, within_s)
        drained_s = time.monotonic() - back
        peak_mb = bridge.memory_mb("VmHWM")
        _in_order(made, size, first, last)
        _paced(made, size)
        numbers = range(1, last + 1)
        creates = [made.ledger.creates(reference(number)) for number in numbers]
        _newest(made, again, drift=told(bridge.said, 10))
    figures = f"{size.records} taken in {taken_s:.1f} s, resumed after {resumed_s:.1f} s, drained in {drained_s:.1f} s"
    memory = f"{before_mb:.0f} MB before, {piled_mb:.0f} MB with all waiting, at most {peak_mb:.0f} MB"
    print(f"\n{fault}: {figures}; {memory}")
    assert peak_mb - before_mb < MOST_GROWTH_MB, memory
    table.add(
        Row(
            fault=fault, rounds=1, requested=len(creates), accepted_once=creates.count(1), lost=creates.count(0),
            twice=sum(count > 1 for count in creates), recovery_s=resumed_s,
        )
    )  # fmt: skip


def _in_order(made, size, first, last):
    """Calls hold the records in the order in which they were asked for; units come after the last of their assets."""
    sent = [name for entry in made.ledger.of("asset.create") for name in entry.references if not entry.problem]
    calls = made.ledger.of("asset.create")
    for entry in calls:
        assert entry.references == sorted(entry.references), "within a call"
    # Four calls may be under way at once, so that one may overtake the next three, and no more.
    firsts = [entry.references[0] for entry in calls]
    for place, name in enumerate(sorted(firsts)):
        assert abs(firsts.index(name) - place) < 4, f"{name} is out of line"
    assert len(sent) == len(set(sent)) == last
    units = made.ledger.of("unit.create")
    assert len(units) == UNITS
    arrived = {name: entry.arrived_ns for entry in calls for name in entry.references}
    members = [reference(number) for number in range(last - UNITS * MEMBERS + 1, last + 1)]
    assert min(entry.arrived_ns for entry in units) > min(arrived[name] for name in members)


def _paced(made, size):
    """By SMP's own clock: no minute holds more calls, questions about their status included, than the rate and one burst, and no shorter stretch does either."""
    paced = [entry for entry in made.ledger.requests if entry.operation != "authenticate"]
    assert {entry.operation for entry in paced} >= {"asset.create", "unit.create"}
    times = sorted(entry.arrived_ns / 1e9 for entry in paced)
    per_s = size.rate_per_minute / 60
    for index, at in enumerate(times):
        assert bisect_left(times, at + 60) - index <= size.rate_per_minute + size.burst
        for later in range(index + 1, min(index + 200, len(times))):
            calls, span_s = later - index + 1, times[later] - at
            assert calls <= size.burst + per_s * span_s + JITTER, f"{calls} calls within {span_s:.2f} s"


def _newest(made, again, drift):
    """What was asked for again while it waited went out with its newest values, once.

    A call that was tried meanwhile goes out as it was signed: a change of its records is for a person, and the EMS is told so (drift).
    """
    names = {
        made.sandbox.register.reference(transaction.operation, item): item["assetName"]
        for transaction in made.sandbox.register.transactions.values()
        for item in transaction.items
        if "assetName" in item
    }
    asked_again = {reference(number) for number in again}
    assert {name for ref, name in names.items() if ref not in asked_again} == {"Battery 1"}
    assert sum(names[ref] != "Battery 2" for ref in asked_again) == drift
    assert drift < len(asked_again) / 2


async def test_thousands_wait_while_smp_is_down(tmp_path, table):
    """5,000 records: flat memory, everything in order, newest values, paced by the profile's rate."""
    size = Size(records=5000, per_call=250, rate_per_minute=180, burst=3, again=250)
    await outage_and_drain(tmp_path, table, size, within_s=60, fault="SMP down, 5,000 records waiting")


@pytest.mark.long
@pytest.mark.timeout(1200)
async def test_a_hundred_thousand_wait_while_smp_is_down(tmp_path, table):
    """100,000 records in calls of 1,000, three calls a second at most."""
    size = Size(records=100_000, per_call=1000, rate_per_minute=180, burst=5, again=1000)
    await outage_and_drain(tmp_path, table, size, within_s=900, fault="SMP down, 100,000 records waiting")
