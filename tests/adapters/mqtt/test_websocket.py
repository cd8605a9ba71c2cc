"""MQTT over WebSocket: mosquitto behind a gateway of the `ws` library (Debian builds mosquitto without WebSockets), and aedes itself."""

import asyncio
import socket
from contextlib import asynccontextmanager

import pytest
from aedes import aedes
from mosquitto import HOST, Peer, free_port, mosquitto
from mqtt_site import ASSET, REQUEST, RESULT, context_of, options_of, outcome, read_site, registration, request, take

from adapters.mqtt import ADAPTER
from bridge.api import LinkError, LinkRefused

PATH = "/plant/mqtt"

pytestmark = pytest.mark.asyncio(loop_scope="module")


def open_at(**options):
    return ADAPTER.open(context_of(options_of(read_site(), **options)))


@asynccontextmanager
async def gateway(directory, node, *, tls=False, upstream=0, path=PATH):
    """Yields the gateway's options for the adapter."""
    async with aedes(directory, tls=tls, process=node) as peer:
        peer.port = await peer.listen(websocket=path, upstream=upstream)
        yield peer


@pytest.mark.parametrize("tls", [False, True], ids=["ws", "wss"])
async def test_a_request_and_its_outcome_through_a_websocket(tmp_path, node, version, tls):
    """To mosquitto, at both versions: 300 kB in, an outcome out, and 300 messages that share WebSocket frames and TLS records."""
    async with (
        mosquitto(tmp_path / "broker", extra="max_inflight_messages 0") as broker,
        Peer(broker) as ems,
        gateway(tmp_path / "gateway", node, tls=tls, upstream=broker.port) as peer,
        open_at(**peer.options(version=version, websocket={"path": PATH})) as link,
    ):
        await ems.subscribe(RESULT.format("+"))
        await ems.publish(ASSET.format("EV001"), registration(remark="x" * 300_000), retain=True)
        await ems.publish(REQUEST.format("EV001"), request("r-1", remark="y" * 300_000))
        (arrival,) = await take(link)
        assert arrival.records[0].complete
        assert len(arrival.records[0].raw) > 600_000
        arrival.ack(True)
        assert not any(entry.error for entry in await link.write(outcome("EV001", "r-1")))
        assert (await ems.until(RESULT.format("EV001")))[0]["reqId"] == "r-1"
        for number in range(300):
            ems.client.publish(REQUEST.format("EV001"), f'{{"reqId":"s-{number}","action":"create"}}', 1)
        arrivals = await take(link, 300)
        assert [arrival.records[0].request for arrival in arrivals] == [f"s-{number}" for number in range(300)]


@pytest.mark.parametrize("tls", [False, True], ids=["ws", "wss"])
async def test_a_gateway_that_pings(tmp_path, node, tls):
    """Its pings are answered with their own payload, masked (RFC 6455, 5.1 and 5.5.3), while the session is idle; requests and outcomes go on after."""
    async with (
        gateway(tmp_path / "peer", node, tls=tls) as peer,
        open_at(**peer.options(websocket={"path": PATH}, status_topic=None)) as link,
    ):
        for payload in ("", "are you there?", "x" * 125):
            assert await peer.ping(payload) == [payload]
        assert not any(entry.error for entry in await link.write(outcome("EV001", "r-1")))


@pytest.mark.long
async def test_an_idle_link_is_kept_by_mqtts_own_pings(tmp_path, node):
    """aedes ends a connection that says nothing for one and a half keepalives: MQTT's ping goes through the WebSocket, and is answered there."""
    async with (
        gateway(tmp_path / "peer", node) as peer,
        open_at(**peer.options(websocket={"path": PATH}, keepalive="2s")) as link,
    ):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(link.receive(), 3.5)
        await link.caught_up()


@pytest.mark.parametrize("tls", [False, True], ids=["ws", "wss"])
async def test_a_broker_that_speaks_websocket_itself(tmp_path, node, tls):
    """aedes, with a status topic, and the broker gone in the end."""
    async with (
        gateway(tmp_path / "peer", node, tls=tls) as peer,
        open_at(**peer.options(websocket={"path": PATH})) as link,
    ):
        assert not any(entry.error for entry in await link.write(outcome("EV001", "r-1")))
        await peer.stop()
        with pytest.raises(LinkError):
            await link.receive()


async def test_the_certificate_is_checked_there_too(tmp_path, node):
    """`wss` trusts nobody unseen."""
    async with gateway(tmp_path / "peer", node, tls=True) as peer:
        with pytest.raises(LinkRefused, match="certificate is not trusted"):
            async with open_at(**peer.options(websocket={"path": PATH}, tls={})):
                pass


async def test_a_wrong_path_and_a_port_without_websocket(tmp_path, node):
    """Each error says which path was asked for, and what may be wrong."""
    async with gateway(tmp_path / "peer", node) as peer, mosquitto(tmp_path / "broker") as broker:
        for options in (peer.options(websocket={"path": "/else"}), broker.options(websocket={})):
            with pytest.raises(LinkError) as caught:
                async with open_at(**options):
                    pass
            assert "websocket.path" in caught.value.hint
        with pytest.raises(LinkError) as caught:
            async with open_at(**peer.options()):
                pass
        assert "websocket" in caught.value.hint


async def test_nobody_there():
    """As without WebSocket: an error that the core tries again."""
    with pytest.raises(LinkError):
        async with open_at(host=HOST, port=free_port(), websocket={}):
            pass


@pytest.mark.parametrize("over", ["tcp", "tls", "ws", "wss"])
async def test_packets_leave_at_once(tmp_path, node, over):
    """Without TCP_NODELAY an outcome may wait 40 ms for the peer's delayed TCP answer to the packet before it."""
    websocket = PATH if over.startswith("ws") else None
    async with aedes(tmp_path / "peer", tls=over in {"tls", "wss"}, process=node) as peer:
        peer.port = await peer.listen(websocket=websocket)
        async with open_at(**peer.options(websocket={"path": PATH} if websocket else None)) as link:
            with socket.socket(fileno=link._link._socket.fileno()) as twin:
                no_delay = twin.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                twin.detach()
    assert no_delay
