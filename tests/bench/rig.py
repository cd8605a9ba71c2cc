"""One contender measured once: started, warmed, paced, flooded, ended, and checked against what the receiver holds and what the journal holds."""

import asyncio
import json
import sqlite3
import time
from bisect import bisect_left
from contextlib import closing

from children import resident_mb, threads_cpu_s
from figures import percentile
from worlds import BRIDGE, FLOOR, JOURNAL, running_bridge, running_floor

START_S = 40.0
DRAIN_S = 60.0
PROBES_PER_S = 20
QUIET_S = 0.3
MOST_OVERWRITTEN = 0.02  # of what a device shows, where the machine stood still for as long as its slots last


class BenchFailed(Exception):
    """A message was not journalled, signed or durable, or did not arrive: no figure of this run is worth anything."""


class Rig:
    """A world, its receiver, and the peer of one protocol. `after` is the last item that the bridge's journal held before."""

    after = 0

    def __init__(self, world, smp, peer, *, rate, seconds, warm_s, burst):
        self.world = world
        self.smp = smp
        self.peer = peer
        self.rate = rate
        self.seconds = seconds
        self.warm_s = warm_s
        self.burst = burst

    def started(self, contender, directory, *, probe=None):
        if contender == BRIDGE:
            return running_bridge(self.world, directory, self.peer.sites(), self.smp.port, probe=probe)
        return running_floor(
            self.world, directory, self.peer.floor, self.smp.port, self.peer.port, journal=contender == JOURNAL
        )

    async def measure(self, contender, name):
        """Figures and raw samples of one contender in this run."""
        directory = self.world.directory / name
        await self.smp.ask("reset")
        async with self.started(contender, directory) as process:
            await self.began(process)
            tag = self.world.new_tag()
            await self._first(tag, name)
            await self.peer.paced(f"{tag}W", max(1, round(self.rate * self.warm_s)), self.rate)
            warm = await self._all_there(directory, "warm")
            paced = await self._paced(process, f"{tag}M", directory)
            paced |= await self.settled(directory, paced["received"])
            flooded = await self._flooded(f"{tag}B", directory) if self.burst else {}
            paced["resident_mb"] = resident_mb(process.pid)
        everything = [*warm, *paced.pop("received"), *flooded.pop("received", [])]
        self._check(contender, directory, everything)
        return {**paced, **flooded}

    async def began(self, process):
        """The contender was started; nothing was asked of it yet."""

    async def settled(self, directory, received):
        """The paced requests are there; returns what else is known of them."""
        return {}

    async def _first(self, tag, name):
        """Ask until the contender is there and one request came."""
        began = time.monotonic()
        number = 0
        while not (await self.smp.ask("count"))["creates"]:
            if time.monotonic() - began > START_S:
                raise BenchFailed(f"{name} sent nothing within {START_S:g} s; its log lies beside its journal")
            await self.peer.burst(f"{tag}P{number}", 1)
            number += 1
            await asyncio.sleep(1 / PROBES_PER_S)
        await asyncio.sleep(QUIET_S)

    async def _paced(self, process, tag, directory):
        await self.smp.ask("reset")
        count = round(self.rate * self.seconds)
        before = threads_cpu_s(process.pid)
        await self.peer.paced(tag, count, self.rate)
        await asyncio.sleep(QUIET_S)
        cpu_s = threads_cpu_s(process.pid) - before
        received = await self._all_there(directory, "paced", count)
        moments = [
            (int(name.removeprefix("T")), reference, create["first_ns"])
            for create in received
            for reference, name in create["assets"]
        ]
        latencies = [(first_ns - made_ns) / 1e6 for made_ns, _, first_ns in moments]
        return {
            "received": received, "moments": moments, "latencies_ms": latencies, "p50_ms": percentile(latencies, 0.5), "p99_ms": percentile(latencies, 0.99),
            "overwritten": count - len(received),
            "cpu_ms": 1000 * cpu_s / count * 1000,
        }  # fmt: skip

    async def _flooded(self, tag, directory):
        """The rate at which requests leave while messages stand in line, over the middle four fifths of the requests."""
        await self.smp.ask("reset")
        await self.peer.burst(tag, self.burst)
        received = await self._all_there(directory, "flood", self.burst)
        firsts = sorted(create["first_ns"] for create in received)
        middle = firsts[len(firsts) // 10 : -(len(firsts) // 10)]
        return {"received": received, "rate": (len(middle) - 1) / ((middle[-1] - middle[0]) / 1e9), "firsts_ns": firsts}

    async def _all_there(self, directory, phase, count=0):
        """Wait until so many requests came (0: until none comes any more), and fetch them."""
        ends, seen = time.monotonic() + DRAIN_S, -1
        while True:
            have = (await self.smp.ask("count"))["creates"]
            if (count and have >= count) or (
                have == seen and have >= count * (1 - (self.peer.overwrites and MOST_OVERWRITTEN))
            ):
                break
            if time.monotonic() > ends:
                raise BenchFailed(f"{directory.name}: {have} of {count} requests came within {DRAIN_S:g} s ({phase})")
            seen = have
            await asyncio.sleep(0.25)
        file = directory / f"{phase}.json"
        await self.smp.ask("dump", file=str(file))
        return json.loads(file.read_text())

    def _check(self, contender, directory, received):
        """Every request that came is signed by the participant, holds one asset, and (where there is a journal) is in it, once."""
        bad = [create for create in received if not create["good"]]
        if bad:
            raise BenchFailed(f"{directory.name}: {len(bad)} of {len(received)} signatures are wrong")
        references = [reference for create in received for reference, _ in create["assets"]]
        if len(references) != len(received) or len(set(references)) != len(references):
            raise BenchFailed(f"{directory.name}: {len(received)} calls hold {len(set(references))} different assets")
        if contender == FLOOR:
            return
        rows = journalled(directory, contender, self.after)
        missing = set(references) - rows.keys()
        if missing or any(number != 1 for number in rows.values()):
            raise BenchFailed(
                f"{directory.name}: {len(missing)} of {len(references)} messages are not in the journal, or twice"
            )

    async def count_syncs(self, name, count=100):
        """A short run of the bridge whose syncs are noted: each message's own commit was synced after it was signed and before its request came."""
        directory = self.world.directory / name
        directory.mkdir(parents=True)
        file = directory / "syncs.json"
        await self.smp.ask("reset")
        async with self.started(BRIDGE, directory, probe={"BENCH_SYNCS": str(file)}):
            tag = self.world.new_tag()
            await self._first(tag, name)
            await self.peer.paced(f"{tag}S", count, self.rate)
            received = await self._all_there(directory, "synced")
        syncs = json.loads(file.read_text())
        signed = signed_at(directory)
        for create in received:
            reference = create["assets"][0][0]
            if not synced_between(syncs, signed[reference], create["first_ns"]):
                raise BenchFailed(
                    f"{name}: {reference} left without a sync of the log between its signature and its first byte"
                )
        return {"messages": len(received), "syncs": len(syncs)}


def journal_of(directory):
    """The bridge's journal, for reading."""
    return sqlite3.connect(f"file:{directory / 'journal.db'}?mode=ro", uri=True)


def journalled(directory, contender, after=0):
    """How often each reference is in this contender's journal, with the bytes of a call; of the bridge's those after the item `after`."""
    if contender == JOURNAL:
        with closing(sqlite3.connect(directory / "floor.db")) as db:
            return dict(db.execute("SELECT reference, count(*) FROM calls GROUP BY reference").fetchall())
    query = (
        "SELECT i.key, count(*) FROM items i JOIN calls c ON c.submission = i.submission WHERE i.id > ? GROUP BY i.key"
    )
    with closing(journal_of(directory)) as db:
        return dict(db.execute(query, (after,)).fetchall())


def signed_at(directory):
    """When each reference's call was signed (CLOCK_MONOTONIC), by the bridge's own stamps."""
    return {reference: stamps["signed"][1] for reference, stamps in stamps_of(directory).items()}


def stamps_of(directory, after=0):
    """The bridge's own stamps of each reference's call, as its journal holds them; of those after the item `after`."""
    query = "SELECT i.key, c.stamps FROM items i JOIN calls c ON c.submission = i.submission WHERE i.id > ?"
    with closing(journal_of(directory)) as db:
        return {key: json.loads(stamps) for key, stamps in db.execute(query, (after,))}


def synced_between(syncs, after_ns, before_ns):
    """Whether a sync began after the one moment and ended before the other."""
    index = bisect_left(syncs, [after_ns, 0])
    return index < len(syncs) and syncs[index][1] <= before_ns
