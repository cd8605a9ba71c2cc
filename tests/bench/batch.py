"""The 1000-asset call: from the last record read to the first byte at SMP, and how long the event loop's steps take meanwhile."""

import asyncio
import json
import sqlite3
from contextlib import closing

from children import Child
from figures import Row, percentile
from rig import BenchFailed
from sites import modbus_call_site
from worlds import running_bridge

ASSETS = 1000
PAUSE_S = 1.0  # until what follows the answer is journalled, too
ANSWER_S = 60.0


async def batch(chosen, world, smp):
    """Rows and raw samples. The first call of each process is made warm and not counted; steps are timed in a process of their own."""
    calls = max(3, chosen.runs) * 2
    async with Child("device_modbus.py") as device:
        plain = await _calls(world, smp, device, "batch", calls, probe=None)
        steps_file = world.directory / "batch-steps.json"
        probed = await _calls(world, smp, device, "batch-probed", calls, probe={"BENCH_STEPS": str(steps_file)})
    steps = json.loads(steps_file.read_text())
    own_ms = [own / 1e6 for at, own in zip(steps["began_ns"], steps["own_ns"], strict=True) if _inside(probed, at, own)]
    long = sorted(
        {(name, round(own / 1e6, 1)) for at, own, name in steps["long"] if _inside(probed, at, own)},
        key=lambda found: -found[1],
    )
    p50 = percentile([call["ms"] for call in plain], 0.5)
    worst, high = max(own_ms), percentile(own_ms, 0.999)
    rows = [
        Row(figure=f"{ASSETS}-asset call: last record read → first byte, median ms", value=f"{p50:.1f}", goal="≤ 40 ms", met=p50 <= 40),
        Row(figure="loop steps meanwhile, own CPU time, p99.9 ms", value=f"{high:.1f} (longest {worst:.1f}, of {len(own_ms)})", goal="≤ 10 ms", met=high <= 10),
    ]  # fmt: skip
    print("longest steps: " + ", ".join(f"{name} {ms} ms" for name, ms in long[:6]))
    return rows, {"calls": plain, "probed": probed, "steps_ms": own_ms, "long": long}


def _inside(calls, began_ns, own_ns):
    """Whether a step ran between the last record read and the first byte; the one that reads the last record counts."""
    return any(call["last_ns"] <= began_ns + own_ns and began_ns <= call["first_ns"] for call in calls)


async def _calls(world, smp, device, name, number, *, probe):
    directory = world.directory / name
    found = []
    async with running_bridge(
        world, directory, {"bench": modbus_call_site(device.port, ASSETS)}, smp.port, probe=probe
    ):
        for _ in range(number + 1):
            tag = world.new_tag()
            await smp.ask("reset")
            asked = await device.ask("call", prefix=tag, count=ASSETS)
            found.append({"tag": tag, **asked, **await _received(smp, directory)})
            await asyncio.sleep(PAUSE_S)
    with closing(sqlite3.connect(directory / "journal.db")) as db:
        for call in found:
            query = "SELECT max(received_mono), count(*) FROM items WHERE key GLOB ? AND submission IN (SELECT submission FROM calls)"
            last_ns, rows = db.execute(query, (f"{call['tag']}*",)).fetchone()
            if rows != ASSETS:
                raise BenchFailed(f"{name}: {rows} of {ASSETS} assets are in the journal")
            call["last_ns"], call["ms"] = last_ns, (call["first_ns"] - last_ns) / 1e6
    return found[1:]


async def _received(smp, directory):
    async with asyncio.timeout(ANSWER_S):
        while not (await smp.ask("count"))["creates"]:
            await asyncio.sleep(0.05)
    file = directory / "call.json"
    await smp.ask("dump", file=str(file))
    creates = json.loads(file.read_text())
    sizes = [len(create["assets"]) for create in creates]
    if sizes != [ASSETS] or not creates[0]["good"]:
        raise BenchFailed(f"{directory.name}: calls of {sizes} assets instead of one of {ASSETS}, or a wrong signature")
    return {"first_ns": creates[0]["first_ns"], "bytes": creates[0]["bytes"]}
