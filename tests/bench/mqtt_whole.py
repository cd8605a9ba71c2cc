"""How long the MQTT adapter takes to read an EMS whole, against mosquitto on this machine: `python tests/bench/mqtt_whole.py [FORMAT …]`.

1,000 assets with 20 fields each, retained at QoS 1 over TLS, submitted on change: from the opening of a session to the last record, and the
CPU time of it. FORMAT is json, jmespath, csv or plain (20,000 topics); all of them unless named.
"""

import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "support"), str(Path(__file__).parents[2])]

from mosquitto import Peer, mosquitto  # noqa: E402
from mqtt_site import ASSET, changing, context_of, options_of, read_site  # noqa: E402

from adapters.mqtt import ADAPTER  # noqa: E402

PLACES = 1000
FIELDS = 20
EXTRA = "max_inflight_messages 0\nmax_queued_messages 0"
NAMES = [f"field{number:02d}" for number in range(FIELDS)]
WITHIN_S = 60.0


def messages(kind: str, number: int):
    """One asset's retained messages: the end of the topic, and the payload."""
    values = {name: f"{number}.{index}" for index, name in enumerate(NAMES)}
    if kind == "plain":
        return [("/" + name, value) for name, value in values.items()]
    if kind == "csv":
        return [("", ",".join(values) + "\n" + ",".join(values.values()))]
    return [("", json.dumps(values))]


def flow(kind: str):
    """The flow that reads them."""
    fields = {name: f"not_null({name}, 'none')" if kind == "jmespath" else name for name in NAMES}
    written = "json" if kind == "jmespath" else kind
    each = ASSET.format("{asset}")
    return changing(
        records={"each": each, "key": "reference", "format": written, "fields": {"reference": "$asset", **fields}}
    )


async def publish(broker, kind: str) -> None:
    """All assets, and wait until the broker has them."""
    ems = Peer(broker)
    ems.client.max_inflight_messages_set(1000)
    async with ems:
        for number in range(PLACES):
            for end, payload in messages(kind, number):
                info = ems.client.publish(ASSET.format(f"EV{number:04d}") + end, payload, 1, True)
        await asyncio.to_thread(info.wait_for_publish, WITHIN_S)


async def measure(directory: Path, kind: str) -> None:
    """Once, with a broker of its own."""
    async with mosquitto(directory / kind, tls=True, extra=EXTRA) as broker:
        await publish(broker, kind)
        options = options_of(read_site(), **broker.options())
        begun, cpu = time.perf_counter(), time.process_time()
        async with asyncio.timeout(WITHIN_S), ADAPTER.open(context_of(options, flow(kind))) as session:
            seen = set()
            while len(seen) < PLACES:
                for arrival in await session.receive():
                    (record,) = arrival.records
                    assert all(record.fields[name].value is not None for name in NAMES)
                    seen.add(record.place)
                    arrival.ack(True)
            took, used = time.perf_counter() - begun, time.process_time() - cpu
        print(f"{kind}: {PLACES} assets with {FIELDS} fields in {took:.2f} s, {used:.2f} s CPU")


async def main(kinds: list[str]) -> None:
    """One after the other."""
    with tempfile.TemporaryDirectory() as name:
        for kind in kinds:
            await measure(Path(name), kind)


asyncio.run(main(sys.argv[1:] or ["json", "jmespath", "csv", "plain"]))
