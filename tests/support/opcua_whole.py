"""An EMS of 1,000 assets with 20 fields each on node-opcua, and how long it takes to read it whole."""

import asyncio
import time

from asyncua import ua
from opcua_peer import Peer
from opcua_site import selection_of

from adapters.opcua import ADAPTER
from adapters.opcua.link import Link

ASSETS = 1000
NAMES = [f"Field{number:02d}" for number in range(20)]
WITHIN_S = 120.0
FLOOR_PART = 1000


async def fill(peer: Peer, assets: int = ASSETS) -> None:
    """Every variable; before `start`."""
    for number in range(assets):
        for field in NAMES:
            await peer.variable(f"EMS/All/A{number:04d}/{field}", "String", f"{number}.{field}")
        await peer.variable(f"EMS/All/A{number:04d}/State", "Int32", 0, writable=True)


def flow():
    """Every field of every asset on change, and a state that nothing is written to here."""
    fields = {"reference": NAMES[0], **{name.lower(): name for name in NAMES[1:]}}
    return selection_of(
        "all",
        {
            "records": {"each": "Objects/ems:EMS/ems:All/*", "key": "reference", "fields": fields},
            "submit": {"when": "change"},
            "outcome": {"state": "State"},
        },
    )


def context_of(peer: Peer, **changes):
    """The intervals that a site has which names none."""
    options = {"sampling_interval": None, "publishing_interval": None, **changes}
    return peer.context(**options)._replace(selections=[flow()])


async def read_whole(peer: Peer, assets: int = ASSETS, **changes) -> tuple[float, float]:
    """Seconds and CPU seconds of this process from the opening of a session to the last record."""
    begun, cpu = time.perf_counter(), time.process_time()
    async with asyncio.timeout(WITHIN_S), ADAPTER.open(context_of(peer, **changes)) as session:
        seen: set[str] = set()
        while len(seen) < assets:
            for arrival in await session.receive():
                (record,) = arrival.records
                assert all(each.value is not None for each in record.fields.values())
                seen.add(record.place)
        return time.perf_counter() - begun, time.process_time() - cpu


async def read_floor(peer: Peer, assets: int = ASSETS) -> tuple[float, float]:
    """The same values by the library alone, their node ids known beforehand: one Read request after the other, each of the server's limit."""
    context = context_of(peer)
    begun, cpu = time.perf_counter(), time.process_time()
    link = Link(context.options, context.clock)
    await link.open()
    try:
        session = link._client.uaclient.session
        index = (await link.read_values([ua.NodeId(2255)]))[0].Value.Value.index("urn:acme:ems")
        nodes = [ua.NodeId(f"EMS/All/A{number:04d}/{field}", index) for number in range(assets) for field in NAMES]
        for start in range(0, len(nodes), FLOOR_PART):
            parameters = ua.ReadParameters()
            parameters.NodesToRead = [
                ua.ReadValueId(NodeId=node, AttributeId=ua.AttributeIds.Value)
                for node in nodes[start : start + FLOOR_PART]
            ]
            found = await session.read(parameters)
            assert all(each.Value.Value is not None for each in found)
        return time.perf_counter() - begun, time.process_time() - cpu
    finally:
        await link.close()
