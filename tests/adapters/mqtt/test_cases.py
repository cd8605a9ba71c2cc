"""Golden cases: messages through a real mosquitto in; what the site's flow makes of each record out. Each folder below `cases` holds one.

`site.yaml` says what is different from the shipped site of Crawley (a null takes a setting away). `messages.yaml` holds what the EMS publishes,
as `json` (with `filler` members of so many letters), as `text`, or as `bytes`, whose letters are one byte each: the retained ones before the
session opens, the others after it, in their order.
`expected.json` holds every record that comes (its item, or the host's refusal with its text) and every line about
a message that was put aside. The last message of a case brings its last record, so that nothing unexpected hides behind the end.
"""

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from golden import pretty, read_sites, told
from mosquitto import Peer, mosquitto
from mqtt_site import context_of
from quick_yaml import read_yaml

from bridge.assembly import flow_plan
from bridge.model import Record

pytestmark = pytest.mark.asyncio(loop_scope="module")

WITHIN_S = 10.0
SHIPPED = "crawley.yaml"
CASES = sorted(path.parent for path in Path(__file__).parent.glob("cases/*/site.yaml"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def peer(tmp_path_factory):
    """One broker, and the EMS beside it, for all cases."""
    directory = tmp_path_factory.mktemp("broker")
    async with mosquitto(directory, extra="max_inflight_messages 0") as broker, Peer(broker) as peer:
        yield broker, peer


@pytest.fixture(scope="module")
def sites(peer, tmp_path_factory):
    """The configuration of all cases' sites."""
    broker, _ = peer
    connection = {"host": broker.host, "port": broker.port, "tls": None, "user": None, "password": None}
    return read_sites(tmp_path_factory.mktemp("config"), SHIPPED, CASES, **connection)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_case(peer, sites, case, caplog):
    """What the flow makes of these messages is what the case expects, record by record and type by type."""
    broker, ems = peer
    config = sites
    site = config.sites[case.name]
    plans = {name: flow_plan(config, site, name) for name in site.flows}
    (adapter,) = site.adapters.values()
    selections = [plan.selection() for plan in plans.values()]
    messages = read_yaml(case / "messages.yaml")
    kept = [message for message in messages if message.get("retained")]
    expected = json.loads((case / "expected.json").read_text("utf-8"))
    try:
        for message in kept:
            await ems.publish(message["topic"], payload(message), retain=True)
        async with adapter.adapter.open(context_of(adapter.options, *selections, client_id=case.name)) as session:
            for message in messages:
                if message not in kept:
                    await ems.publish(message["topic"], payload(message))
            records = await received(session, len(expected["records"]))
    finally:
        for message in kept:
            await ems.publish(message["topic"], b"", retain=True)
    lines = [entry for entry in caplog.records if entry.message == "mqtt_message_put_aside"]
    found = {
        "records": [told(record, plans[record.flow]) for record in records],
        "aside": [{"count": line.count, "topic": line.topic, "why": line.why} for line in lines],
    }
    assert pretty(found) == pretty(expected)


async def received(session: Any, count: int) -> list[Record]:
    """The next records, at least so many unless they do not come in time; each is acknowledged."""
    found: list[Record] = []
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(WITHIN_S):
            while len(found) < count:
                for arrival in await session.receive():
                    found += arrival.records
                    arrival.ack(True)
    return found


def payload(message: dict[str, Any]) -> bytes:
    """The bytes of one message."""
    if "bytes" in message:
        return message["bytes"].encode("latin-1")
    if "text" in message:
        return message["text"].encode()
    filler = {name: "x" * size for name, size in message.get("filler", {}).items()}
    return json.dumps({**message["json"], **filler}).encode()
