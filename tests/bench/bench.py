"""`make bench`: how long the bridge takes, beside two reference scripts in the same run (docs/performance.md says how to read it)."""

import argparse
import asyncio
import json
import platform
import sys
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "support"), str(HERE.parents[1])]

from batch import batch  # noqa: E402
from compare import compared  # noqa: E402
from figures import Row, table  # noqa: E402
from growth import growth  # noqa: E402
from memory import memory  # noqa: E402
from onboarding import onboarding  # noqa: E402
from peers import modbus_peer, mqtt_peer, opcua_peer  # noqa: E402
from reading import MOST_S, PROTOCOLS  # noqa: E402
from rig import BenchFailed  # noqa: E402
from startup import start  # noqa: E402
from with_returns import returned  # noqa: E402
from worlds import World  # noqa: E402

FIGURES = ("mqtt", "modbus", "opcua", "batch", "returns", "reading", "memory", "start", "onboarding", "growth")


def options():
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--only", default=",".join(FIGURES), help=f"some of {', '.join(FIGURES)}, with commas between")
    parser.add_argument("--runs", type=int, default=3, help="interleaved runs of each contender")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long each contender is paced in each run")
    parser.add_argument("--rate", type=float, default=50.0, help="new assets a second")
    parser.add_argument("--warm", type=float, default=2.0, help="seconds of the same before it counts")
    parser.add_argument(
        "--burst", type=int, default=2000, help="messages of the flood that gives the highest rate (0: none)"
    )
    parser.add_argument("--each", type=int, default=1000, help="assets of each of the ten sites whose memory is taken")
    parser.add_argument("--assets", type=int, default=100_000, help="assets that are onboarded")
    parser.add_argument(
        "--events", type=int, default=200_000, help="what the journal grows to (10000000 for all of it)"
    )
    parser.add_argument(
        "--polls",
        action="store_true",
        help="let the bridge poll transactions as the default profile does (the reference scripts never do)",
    )
    parser.add_argument(
        "--progress",
        action="store_true",
        help="let the bridge publish the words before the final one, too (the reference scripts write nothing back)",
    )
    parser.add_argument(
        "--out", type=Path, default=None, help="where raw samples, journals and logs go (default .bench/TIME)"
    )
    chosen = parser.parse_args()
    chosen.only = chosen.only.split(",")
    if unknown := set(chosen.only) - set(FIGURES):
        parser.error(f"there is no figure {', '.join(sorted(unknown))}")
    return chosen


async def bench(chosen, directory):
    """Every chosen figure; returns the rows of the table."""
    world = World(directory / "world", polls=chosen.polls)
    rows = []
    async with AsyncExitStack() as stack:
        smp = await stack.enter_async_context(world.receiver())
        for figure in chosen.only:
            found, raw = await MADE[figure](chosen, world, smp)
            (directory / f"{figure}.json").write_text(
                json.dumps({"machine": platform.platform(), "options": vars(chosen), "raw": raw}, default=str)
            )
            print(table(found), flush=True)
            rows += found
    return rows


async def mqtt(chosen, world, smp):
    async with mqtt_peer(world.directory, progress=chosen.progress) as peer:
        return await compared(chosen, world, smp, peer, "MQTT message → request", goals=(1.25, 1.5))


async def modbus(chosen, world, smp):
    async with modbus_peer() as peer:
        return await compared(chosen, world, smp, peer, "Modbus change (10 ms poll) → request", goals=(1.15, 1.4))


async def opcua(chosen, world, smp):
    async with opcua_peer() as peer:
        return await compared(chosen, world, smp, peer, "OPC UA change (10 ms publishing) → request", goals=(1.15, 1.4))


async def returns(chosen, world, smp):
    """The same calls with their returns, over MQTT and over OPC UA."""
    rows, raw = [], {}
    for made in (mqtt_peer(world.directory / "returns"), modbus_peer(), opcua_peer()):
        async with made as peer:
            found, raw[peer.name] = await returned(chosen, world, smp, peer)
            rows += found
    return rows, raw


async def reading(chosen, world, smp):
    """1,000 assets with 20 fields each, read whole by each adapter alone."""
    directory = world.directory / "reading"
    directory.mkdir(parents=True)
    rows, raw = [], {}
    for measure in PROTOCOLS.values():
        async for row in measure(directory, chosen.runs):
            took, used = median(row.took_s), median(row.cpu_s)
            value = f"{took:.2f} (worst {max(row.took_s):.2f}, CPU {used:.2f})"
            rows.append(Row(figure=f"1,000 assets read whole, {row.name}, s", value=value, goal=f"≤ {MOST_S:g} s", met=took <= MOST_S))  # fmt: skip
            raw[row.name] = row._asdict()
    return rows, raw


MADE = {
    "mqtt": mqtt, "modbus": modbus, "opcua": opcua, "batch": batch, "returns": returns, "reading": reading, "memory": memory, "start": start, "onboarding": onboarding, "growth": growth,
}  # fmt: skip


def main():
    chosen = options()
    directory = chosen.out or HERE.parents[1] / ".bench" / f"{datetime.now(UTC):%Y%m%dT%H%M%S}"
    directory.mkdir(parents=True)
    try:
        rows = asyncio.run(bench(chosen, directory))
    except BenchFailed as error:
        print(f"The bench is worth nothing: {error}", file=sys.stderr)
        return 1
    print()
    print(table(rows))
    (directory / "table.md").write_text(table(rows) + "\n")
    print(f"\nRaw samples, journals and logs: {directory}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
