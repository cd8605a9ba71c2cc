"""Resident memory of one bridge with many sites: idle, and with so many assets taken, sent, returned and written back on each; and where it goes."""

import asyncio
import json
import time
from contextlib import closing

from children import kinds_mb, peak_mb
from figures import Row
from many import KINDS, ONE_OF_EACH, many_sites, texts
from rig import BenchFailed, journal_of
from worlds import running_bridge

IDLE_SLOTS = 4
SETTLE_S = 6.0  # longer than the sealer waits
TAKEN_S = 300.0
STALLED_S = 60.0
MOST_IDLE_MB, MOST_FULL_MB = 120, 250
SHOWN = 12


async def memory(chosen, world, smp):
    """Rows and raw samples. What the heap holds is asked of a process of its own, for asking takes memory."""
    raw = {
        "3 sites, idle": await _measured(world, smp, "memory-3-idle", ONE_OF_EACH, 0),
        "10 sites, idle": await _measured(world, smp, "memory-10-idle", KINDS, 0),
        "10 sites, full": await _measured(world, smp, "memory-10-full", KINDS, chosen.each),
        "heap": await _measured(world, smp, "memory-heap", KINDS, chosen.each, heap=True),
    }
    idle, full = raw["10 sites, idle"], raw["10 sites, full"]
    each = (idle["resident"] - raw["3 sites, idle"]["resident"]) / 7
    rows = [
        Row(figure="resident MB, 10 sites of three protocols, idle", value=f"{idle['resident']:.0f} ({each:.1f} for each more site)", goal=f"≤ {MOST_IDLE_MB} MB", met=idle["resident"] <= MOST_IDLE_MB),
        Row(figure=f"resident MB, 10 sites with {chosen.each} assets each", value=f"{full['resident']:.0f} (most {full['peak']:.0f})", goal=f"≤ {MOST_FULL_MB} MB", met=full["resident"] <= MOST_FULL_MB),
    ]  # fmt: skip
    for name in ("3 sites, idle", "10 sites, idle", "10 sites, full"):
        print(f"memory, {name}: " + ", ".join(f"{kind} {mb:.1f} MB" for kind, mb in raw[name].items()))
    for state, found in raw["heap"]["heap"].items():
        total = sum(mb for _, mb in found)
        print(f"Python's own heap, {state}: {total:.1f} MB: " + ", ".join(f"{name} {mb:.1f}" for name, mb in found[:SHOWN]))  # fmt: skip
    return rows, raw


async def _measured(world, smp, name, kinds, assets, *, heap=False):
    directory = world.directory / name
    await smp.ask("reset")
    async with many_sites(directory, slots=max(assets, IDLE_SLOTS), kinds=kinds) as sites:
        snapshots = directory / "heap.json"
        probe = {"BENCH_HEAP": str(snapshots)} if heap else None
        async with running_bridge(world, directory, texts(sites), smp.port, probe=probe) as bridge:
            await bridge.logged("link_open", len(sites))
            await smp.ask("returns", url=await bridge.returns_url())
            await asyncio.sleep(SETTLE_S)
            heaps = {"idle": await bridge.told(snapshots)} if heap else {}
            if assets:
                await _fill(world, smp, directory, sites, assets)
                await asyncio.sleep(SETTLE_S)
                heaps |= {"full": await bridge.told(snapshots)} if heap else {}
            found = kinds_mb(bridge.pid) | {"peak": peak_mb(bridge.pid)}
        await smp.ask("returns", url=None)
    return found | ({"heap": heaps} if heap else {})


async def _fill(world, smp, directory, sites, assets):
    """Each site shows so many new assets; all of them are registered, and the sites know."""
    tags = {site.name: world.new_tag() for site in sites}
    for site in sites:
        await site.put(tags[site.name], assets)
    await _written_back(directory, len(sites) * assets)
    file = directory / "received.json"
    await smp.ask("dump", file=str(file))
    creates = json.loads(file.read_text())
    references = [reference for create in creates for reference, _ in create["assets"]]
    if not all(create["good"] for create in creates):
        raise BenchFailed(f"{directory.name}: a signature is wrong")
    if len(set(references)) != len(references) or len(references) != len(sites) * assets:
        raise BenchFailed(f"{directory.name}: {len(references)} assets came, {len(set(references))} different ones")


async def _written_back(directory, count):
    query = "SELECT count(*) FROM writebacks w JOIN items i ON i.id = w.follows WHERE i.outcome = 'registered' AND w.step IN ('written', 'read_back_ok')"
    done, began = 0, time.monotonic()
    moved = began
    with closing(journal_of(directory)) as db:
        while done < count:
            await asyncio.sleep(0.5)
            (now,) = db.execute(query).fetchone()
            moved = time.monotonic() if now > done else moved
            done = now
            if time.monotonic() - began > TAKEN_S or time.monotonic() - moved > STALLED_S:
                raise BenchFailed(f"{directory.name}: {done} of {count} assets were registered and written back")
