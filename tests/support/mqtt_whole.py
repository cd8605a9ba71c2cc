"""A large EMS behind a broker: 1,000 assets with 20 fields each, retained, and a request for each of them."""

import asyncio
import json
import time
from typing import Any

from mosquitto import Peer
from mqtt_site import ASSET, REQUEST, changing, context_of, read_site, request, selection_of

from adapters.mqtt import ADAPTER
from bridge.api import Selection

PLACES = 1000
FIELDS = 20
NAMES = [f"field{number:02d}" for number in range(FIELDS)]
WITHIN_S = 60.0
UNBOUNDED = "max_inflight_messages 0\nmax_queued_messages 0"  # of mosquitto


def flow(kind: str, *, asked: bool = False) -> Selection:
    """The flow that reads it: `kind` is json, jmespath, csv or plain; on change, or `asked` for by requests."""
    fields = {name: f"not_null({name}, 'none')" if kind == "jmespath" else name for name in NAMES}
    written = "json" if kind == "jmespath" else kind
    each = ASSET.format("{asset}")
    records = {"each": each, "key": "reference", "format": written, "fields": {"reference": "$asset", **fields}}
    if not asked:
        return changing(records=records)
    return selection_of("chargers", {**read_site()["flows"]["chargers"], "records": records})


def messages(kind: str, number: int) -> list[tuple[str, str]]:
    """One asset's retained messages: the end of the topic, and the payload."""
    values = {name: f"{number}.{index}" for index, name in enumerate(NAMES)}
    if kind == "plain":
        return [("/" + name, value) for name, value in values.items()]
    if kind == "csv":
        return [("", ",".join(values) + "\n" + ",".join(values.values()))]
    return [("", json.dumps(values))]


async def fill(broker: Any, kind: str) -> None:
    """Publish every asset, and wait until the broker has them."""
    told = [
        (ASSET.format(f"EV{number:04d}") + end, text)
        for number in range(PLACES)
        for end, text in messages(kind, number)
    ]
    await _publish(broker, told, retain=True)


async def ask(broker: Any) -> None:
    """Publish a request for every asset; the broker keeps them for a session that it knows."""
    told = [(REQUEST.format(f"EV{n:04d}"), json.dumps(request(f"r-{n}"))) for n in range(PLACES)]
    await _publish(broker, told, retain=False)


async def _publish(broker: Any, told: list[tuple[str, str]], *, retain: bool) -> None:
    ems = Peer(broker)
    ems.client.max_inflight_messages_set(100)
    async with ems:
        for topic, text in told:
            info = ems.client.publish(topic, text, 1, retain)
        await asyncio.to_thread(info.wait_for_publish, WITHIN_S)
        assert info.is_published()


async def read_whole(options: Any, selection: Selection) -> tuple[float, float]:
    """From the opening of a session until the last record is there: seconds, and seconds of this process's CPU."""
    begun, cpu = time.perf_counter(), time.process_time()
    seen: set[str] = set()
    async with asyncio.timeout(WITHIN_S), ADAPTER.open(context_of(options, selection)) as session:
        while len(seen) < PLACES:
            for arrival in await session.receive():
                (record,) = arrival.records
                arrival.ack(True)
                if record.complete:  # a request that comes before its registration comes again with it
                    assert all(record.fields[name].value is not None for name in NAMES), record.place
                    seen.add(record.place)
        return time.perf_counter() - begun, time.process_time() - cpu
