"""How long the OPC UA adapter takes to read an EMS whole, against node-opcua on this machine: `python tests/bench/opcua_whole.py [ASSETS]`.

1,000 assets with 20 fields each unless told otherwise, over Basic256Sha256 and SignAndEncrypt, submitted on change: from the opening of a session
to the last record, with subscriptions and with polling, and the CPU time of it.
"""

import asyncio
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "support"), str(Path(__file__).parents[2])]

from opcua_peer import Peer, opcua_peer  # noqa: E402
from opcua_site import selection_of  # noqa: E402

from adapters.opcua import ADAPTER  # noqa: E402

FIELDS = 20
NAMES = [f"Field{number:02d}" for number in range(FIELDS)]
WITHIN_S = 120.0


def flow():
    """Every field of every asset, and a state that nothing is written to here."""
    fields = {"reference": NAMES[0], **{name.lower(): name for name in NAMES[1:]}}
    return selection_of(
        "all",
        {
            "records": {"each": "Objects/ems:EMS/ems:All/*", "key": "reference", "fields": fields},
            "submit": {"when": "change"},
            "outcome": {"state": "State"},
        },
    )


async def measure(peer: Peer, assets: int, watch: str) -> None:
    """One session, and the session alone."""
    context = peer.context(watch=watch)._replace(selections=[flow()])
    begun, cpu = time.perf_counter(), time.process_time()
    async with asyncio.timeout(WITHIN_S), ADAPTER.open(context) as session:
        opened = time.perf_counter()
        seen: set[str] = set()
        while len(seen) < assets:
            for arrival in await session.receive():
                (record,) = arrival.records
                assert all(each.value is not None for each in record.fields.values())
                seen.add(record.place)
        took, used = time.perf_counter() - begun, time.process_time() - cpu
    found = opened - begun
    print(
        f"{watch}: {assets} assets with {FIELDS} fields in {took:.2f} s ({found:.2f} s of it to find and watch them), {used:.2f} s CPU"
    )


async def main(assets: int) -> None:
    """One server, both ways."""
    with tempfile.TemporaryDirectory() as name:
        async with opcua_peer(Path(name)) as peer:
            for number in range(assets):
                for field in NAMES:
                    await peer.variable(f"EMS/All/A{number:04d}/{field}", "String", f"{number}.{field}")
                await peer.variable(f"EMS/All/A{number:04d}/State", "Int32", 0, writable=True)
            await peer.start()
            for watch in ("subscription", "polling"):
                await measure(peer, assets, watch)


asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000))
