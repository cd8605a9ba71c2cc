"""From the start of the process to the first record at SMP, with ten sites; and what that time is made of."""

import asyncio
import json
import sys
import time
from statistics import median

from children import cpu_s
from figures import Row
from many import many_sites, texts
from rig import BenchFailed, stamps_of
from worlds import running_bridge

MOST_S = 2.0
SENT_S = 60.0
SLOTS = 4
QUIET_S = 1.0
SHOWN = 12
MODULES = "import bridge.cli.run; import adapters.mqtt.session, adapters.modbus.session, adapters.opcua.session"


async def start(chosen, world, smp):
    """Rows and raw samples. Each site has one new asset to tell when the bridge comes; the first start makes the journal and is shown apart."""
    directory = world.directory / "start"
    await _compiled(world, directory, smp)
    async with many_sites(directory, slots=SLOTS) as sites:
        first = await _started(world, smp, sites, directory, new=True)
        starts = [await _started(world, smp, sites, directory) for _ in range(max(3, chosen.runs))]
        parts = await _started(world, smp, sites, directory, probe=("BENCH_PARTS", directory / "parts.json"))
        imports = await _started(world, smp, sites, directory, probe=("BENCH_IMPORTS", directory / "imports.json"))
    found, whole, used = (median(one[name] for one in starts) for name in ("first_s", "all_s", "cpu_s"))
    rows = [
        Row(figure="start → first record sent, 10 sites, s", value=f"{found:.2f}", goal=f"≤ {MOST_S:g} s", met=found <= MOST_S),
        Row(figure="start → a record of each of 10 sites sent, s", value=f"{whole:.2f} (CPU {used:.2f})", goal="reported"),
        Row(figure="start without a journal → first record sent, s", value=f"{first['first_s']:.2f}", goal="reported"),
    ]  # fmt: skip
    print("starts: " + ", ".join(f"{one['first_s']:.2f} s" for one in starts) + f"; the parts of one of {parts['first_s']:.2f} s:")  # fmt: skip
    print("\n".join(f"  {name}: {ms:.0f} ms (at {at:.0f} ms)" for name, at, ms in _parts(parts)))
    costs = sorted(imports["probe"].items(), key=lambda each: -each[1][0])
    print(f"imports, {sum(own[0] for _, own in costs):.2f} s and {sum(own[1] for _, own in costs):.0f} MB: " + ", ".join(f"{name} {1000 * own[0]:.0f} ms, {own[1]:.1f} MB" for name, own in costs[:SHOWN]))  # fmt: skip
    return rows, {"first": first, "starts": starts, "parts": parts, "imports": imports}


async def _compiled(world, directory, smp):
    """The bytecode is there, as it is of an installed service."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", MODULES, env=world.environment(directory, smp.port))  # fmt: skip
    if await process.wait():
        raise BenchFailed("the bridge cannot be imported")


async def _started(world, smp, sites, directory, *, new=False, probe=None):
    """One start: seconds until the first byte of the first record, and of the last site's; with the first record's own stamps."""
    await smp.ask("reset")
    tags = {}
    for site in sites:
        if site.shows or not new:  # a broker keeps what was published meanwhile only for whom it knows
            tags[site.name] = world.new_tag()
            await site.put(tags[site.name], 1)
    environment = {probe[0]: str(probe[1])} if probe else None
    async with running_bridge(world, directory, texts(sites), smp.port, probe=environment) as bridge:
        creates = await _sent(smp, directory, len(tags))
        used = cpu_s(bridge.pid)
        told = await bridge.told(probe[1]) if probe else None
        await asyncio.sleep(QUIET_S)
    _check(creates, tags)
    creates.sort(key=lambda create: create["first_ns"])
    stamps = stamps_of(directory)[creates[0]["assets"][0][0]]
    at = {name: (stamp[1] - bridge.began_ns) / 1e6 for name, stamp in stamps.items() if name != "source"}
    first, last = ((creates[index]["first_ns"] - bridge.began_ns) / 1e9 for index in (0, -1))
    return {"first_s": first, "all_s": last, "cpu_s": used, "began_ns": bridge.began_ns, "stamps_ms": at, "probe": told}


async def _sent(smp, directory, count):
    ends = time.monotonic() + SENT_S
    while (found := (await smp.ask("count"))["assets"]) < count:
        if time.monotonic() > ends:
            raise BenchFailed(f"{directory.name}: {found} of {count} sites sent a record within {SENT_S:g} s")
        await asyncio.sleep(0.1)
    file = directory / "received.json"
    await smp.ask("dump", file=str(file))
    return json.loads(file.read_text())


def _check(creates, tags):
    """One asset of each site came, once, and signed."""
    references = [reference for create in creates for reference, _ in create["assets"]]
    told = sorted(tag for tag in tags.values() for reference in references if reference.startswith(tag))
    if told != sorted(tags.values()) or len(references) != len(tags) or not all(create["good"] for create in creates):
        raise BenchFailed(f"a start: {len(references)} assets of {len(tags)} sites came, or a signature is wrong")


def _parts(started):
    """Name, beginning and length (ms, from the start of the process) of each part, in order; the record's way last."""
    began = started["began_ns"]
    found = [(name, (max(at, began) - began) / 1e6, (end - max(at, began)) / 1e6) for name, at, end in started["probe"]]
    at = started["stamps_ms"]
    ready = max(start + length for _, start, length in found)
    found.append(("link opened, first record read", ready, at["received"] - ready))
    found.append(("first record → first byte at SMP", at["received"], 1000 * started["first_s"] - at["received"]))
    return sorted(found, key=lambda part: part[1])
