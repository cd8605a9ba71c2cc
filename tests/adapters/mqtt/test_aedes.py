"""Delivery as aedes does it (MQTT 3.1.1): what mosquitto is not asked twice, another broker is."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
import pytest_asyncio
from aedes import aedes
from mosquitto import Peer
from mqtt_site import (
    ASSET,
    REQUEST,
    RESULT,
    context_of,
    nothing,
    options_of,
    outcome,
    read_site,
    registration,
    request,
    take,
)

from adapters.mqtt import ADAPTER
from bridge.api import LinkRefused

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHILD = Path(__file__).parents[2] / "support" / "mqtt_child.py"
ENVIRONMENT = os.environ | {"PYTHONPATH": f"{CHILD.parents[2]}:{CHILD.parent}"}


@pytest_asyncio.fixture(loop_scope="module")
async def broker(tmp_path, node):
    async with aedes(tmp_path / "broker", process=node) as broker:
        await broker.start()
        yield broker


@pytest_asyncio.fixture(loop_scope="module")
async def ems(broker):
    async with Peer(broker) as peer:
        yield peer


def open_at(broker, **changes):
    return ADAPTER.open(context_of(options_of(read_site(), **broker.options(**changes))))


async def test_what_was_asked_while_we_were_away_and_what_was_not_acknowledged_comes_in_order(broker, ems):
    """The session is persistent there too; an acknowledgement waits for those before it."""
    async with open_at(broker):
        pass
    for number in range(30):
        await ems.publish(REQUEST.format("EV001"), request(f"r-{number:02}"))
    async with open_at(broker) as link:
        arrivals = await take(link, 30)
        assert [arrival.records[0].request for arrival in arrivals] == [f"r-{number:02}" for number in range(30)]
        for arrival in arrivals[1:10]:
            arrival.ack(True)
    async with open_at(broker) as link:
        arrivals = await take(link, 30)
        for arrival in arrivals:
            arrival.ack(True)
    async with open_at(broker) as link:
        await nothing(link)


async def test_300_kilobytes_come_whole(broker, ems):
    """A retained registration and a request."""
    await ems.publish(ASSET.format("EV001"), registration(remark="x" * 300_000), retain=True)
    async with open_at(broker) as link:
        await link.caught_up()
        await ems.publish(REQUEST.format("EV001"), request("r-1", remark="y" * 300_000))
        (arrival,) = await take(link)
        assert arrival.records[0].complete
        assert len(arrival.records[0].raw) > 600_000


async def test_killed_without_an_acknowledgement(broker, ems):
    """kill -9: the last will is heard, and the request comes again to the next session."""
    await ems.subscribe("acme/host/status")
    command = [sys.executable, str(CHILD), str(broker.port), "3.1.1"]
    child = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, env=ENVIRONMENT)
    try:
        assert await ems.until("acme/host/status") == ["online"]
        await ems.publish(REQUEST.format("EV001"), request("r-1"))
        async with asyncio.timeout(10):
            assert await child.stdout.readline() == b"r-1\n"
    finally:
        child.kill()
        await child.wait()
    assert await ems.until("acme/host/status", 2) == ["online", "offline"]
    async with Peer(broker) as late:  # the last will is retained
        await late.subscribe("acme/host/status")
        assert await late.until("acme/host/status") == ["offline"]
    async with open_at(broker) as link:
        (arrival,) = await take(link)
        assert arrival.records[0].request == "r-1"
        arrival.ack(True)


async def test_hundreds_of_outcomes_are_all_acknowledged(broker, ems):
    """In order, each once."""
    await ems.subscribe(RESULT.format("+"))
    async with open_at(broker) as link:
        writes = [write for number in range(256) for write in outcome("EV001", f"r-{number}")]
        assert not any(entry.error for entry in await link.write(writes))
    found = await ems.until(RESULT.format("EV001"), 256)
    assert [body["reqId"] for body in found] == [f"r-{number}" for number in range(256)]


async def test_a_wrong_password_is_refused(tmp_path, node):
    """With a hint, and without the password."""
    async with aedes(tmp_path / "secured", tls=True, process=node) as broker:
        broker.port = await broker.listen(user="smp-bridge", password="right")
        async with open_at(broker, user="smp-bridge", password="right"):
            pass
        with pytest.raises(LinkRefused) as caught:
            async with open_at(broker, user="smp-bridge", password="wrong-secret"):
                pass
        assert caught.value.hint
        assert "wrong-secret" not in str(caught.value)


async def test_a_client_certificate(tmp_path, node):
    """Where the broker asks for one it is shown."""
    async with aedes(tmp_path / "secured", tls=True, process=node) as broker:
        files = broker.certificates
        tls = {"key": str(files.key), "cert": str(files.chain), "ca": str(files.ca)}
        own = files.authority.issue_cert("smp-bridge")
        own.private_key_pem.write_to_path(str(tmp_path / "own.key"))
        own.cert_chain_pems[0].write_to_path(str(tmp_path / "own.pem"))
        ours = {"certificate": str(tmp_path / "own.pem"), "private_key": str(tmp_path / "own.key")}
        for websocket in (None, {"path": "/mqtt"}):
            broker.port = await broker.listen(tls=tls, websocket=websocket and websocket["path"])
            async with open_at(broker, tls={"ca": str(files.ca), **ours}, websocket=websocket):
                pass
            with pytest.raises(Exception, match="TLS|broke|closed|lost"):
                async with open_at(broker, websocket=websocket) as link:
                    await link.receive()
