"""Onboarding: so many new assets over MQTT, one a message, 1000 a call; the bridge's processor time beside that of its reference script."""

import asyncio
import itertools
import json
import time
from contextlib import closing

from children import cpu_s, peak_mb
from figures import Row
from peers import mqtt_peer
from rig import BenchFailed, journal_of
from sites import mqtt_site
from worlds import BRIDGE, FLOOR, running_bridge, running_floor

CALL = 1000
LINGER = "3s"  # so that calls are full, as they are when a whole fleet comes
SITE = "onboarding"
MOST_CPU = 3.0
START_S, DRAIN_S = 40.0, 600.0
PROBE_S = 5.0
STALLED_S = 30.0  # without one more asset at SMP


async def onboarding(chosen, world, smp):
    """Rows and raw samples. One run of each: the figure is a mean over all of its messages already."""
    async with mqtt_peer(world.directory / "onboarding") as peer:
        floor = await _measured(FLOOR, world, smp, peer, chosen.assets)
        bridge = await _measured(BRIDGE, world, smp, peer, chosen.assets)
    ratio = bridge["cpu_s"] / floor["cpu_s"]
    rows = [
        Row(
            figure=f"onboarding {chosen.assets} assets: CPU s", value=f"{bridge['cpu_s']:.1f}", floors=f"{floor['cpu_s']:.1f} / -",
            ratio=f"{ratio:.2f} ×", goal=f"≤ {MOST_CPU:g} ×", met=ratio <= MOST_CPU,
        ),
        Row(figure="onboarding: records per second", value=f"{bridge['rate']:.0f}", floors=f"{floor['rate']:.0f} / -"),
        Row(figure="onboarding: most memory meanwhile, MB", value=f"{bridge['peak_mb']:.0f}", floors=f"{floor['peak_mb']:.0f} / -"),
        Row(figure="onboarding: calls", value=str(bridge["calls"]), floors=f"{floor['calls']} / -"),
    ]  # fmt: skip
    return rows, {"floor": floor, "bridge": bridge}


async def _measured(contender, world, smp, peer, count):
    directory = world.directory / f"onboarding-{contender}"
    await smp.ask("reset")
    async with _running(contender, world, smp, peer, directory) as process:
        tag = world.new_tag()
        await _first(smp, peer, f"{tag}P", contender)
        await smp.ask("reset")
        before, began = cpu_s(process.pid), time.monotonic()
        publishing = asyncio.ensure_future(peer.flood(f"{tag}M", count))
        arrived = await _arrived(smp, count, contender)
        used = cpu_s(process.pid) - before
        published = await publishing
        creates = await _judged(smp, directory, f"{tag}M", count)
        found = {
            "cpu_s": used, "seconds": arrived[-1][0] - began, "published_s": published["last_ns"] / 1e9 - began, "rate": count / (arrived[-1][0] - began),
            "calls": len(creates), "peak_mb": peak_mb(process.pid), "arrived": [(at - began, assets) for at, assets in arrived],
        }  # fmt: skip
    if contender == BRIDGE:
        _check_journal(directory, f"{tag}M", count)
    print(f"onboarding, {contender}: {used:.1f} s of CPU, {found['rate']:.0f} records/s, {len(creates)} calls, at most {found['peak_mb']:.0f} MB", flush=True)  # fmt: skip
    return found


def _running(contender, world, smp, peer, directory):
    if contender == FLOOR:
        return running_floor(world, directory, "floor_onboarding.py", smp.port, peer.port, journal=False)
    site = mqtt_site(peer.port, site=SITE, max_items=CALL, linger=LINGER)
    return running_bridge(world, directory, {SITE: site}, smp.port)


async def _first(smp, peer, tag, contender):
    """The contender is there: one call came, and what was asked for meanwhile has left it, too."""
    ends = time.monotonic() + START_S
    for number in itertools.count():
        if time.monotonic() > ends:
            raise BenchFailed(f"{contender} sent nothing within {START_S:g} s; its log lies beside its journal")
        await peer.burst(f"{tag}{number}", 1)
        if await _came(smp, PROBE_S):  # long enough for whoever waits until nothing comes any more
            break
    while await _came(smp, PROBE_S):
        await smp.ask("reset")


async def _came(smp, within_s):
    """Whether an asset came within so many seconds."""
    ends = time.monotonic() + within_s
    while not (await smp.ask("count"))["assets"]:
        if time.monotonic() > ends:
            return False
        await asyncio.sleep(0.1)
    return True


async def _arrived(smp, count, contender):
    """How many assets had come at which moment, until all have."""
    found, moved = [(time.monotonic(), 0)], time.monotonic()
    ends = moved + DRAIN_S
    while found[-1][1] < count:
        await asyncio.sleep(0.1)
        now, assets = time.monotonic(), (await smp.ask("count"))["assets"]
        if assets > found[-1][1]:
            found.append((now, assets))
            moved = now
        if now > ends or now - moved > STALLED_S:
            raise BenchFailed(f"{contender}: {assets} of {count} assets came, and no more")
    return found


async def _judged(smp, directory, prefix, count):
    """Every asset came once, in a call that the participant signed; calls are full."""
    file = directory / "onboarded.json"
    await smp.ask("dump", file=str(file))
    creates = json.loads(file.read_text())
    references = [reference for create in creates for reference, _ in create["assets"]]
    if set(references) != {f"{prefix}{number:06d}" for number in range(count)} or len(references) != count:
        raise BenchFailed(
            f"{directory.name}: {len(references)} assets came, {len(set(references))} different, of {count}"
        )
    if not all(create["good"] for create in creates):
        raise BenchFailed(f"{directory.name}: a signature is wrong")
    if len(creates) > count / CALL * 1.25 + 4:
        raise BenchFailed(f"{directory.name}: {len(creates)} calls for {count} assets are not {CALL} a call")
    return creates


def _check_journal(directory, prefix, count):
    query = "SELECT count(*), count(DISTINCT i.key) FROM items i WHERE i.key GLOB ? AND i.submission IN (SELECT submission FROM calls)"
    with closing(journal_of(directory)) as db:
        found = db.execute(query, (f"{prefix}*",)).fetchone()
    if found != (count, count):
        raise BenchFailed(f"{directory.name}: {found} of {count} assets are in the journal with their call")
