"""Two node-opcua servers of one set: the bridge goes to the healthy one, and leaves one that says it is not."""

import asyncio

import pytest
import pytest_asyncio
from opcua_peer import opcua_peer

from adapters.opcua import ADAPTER
from adapters.opcua.library import ua
from adapters.opcua.servers import stated_level
from bridge.api import Address, LinkError, LinkRefused, Secret

pytestmark = pytest.mark.asyncio(loop_scope="module")

WITHIN_S = 20.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running_other(tmp_path_factory):
    async with opcua_peer(tmp_path_factory.mktemp("other")) as other:
        await other.layout(["BESS009"])
        await other.start()
        yield other


@pytest_asyncio.fixture(loop_scope="module")
async def other(running_other):
    await running_other.fresh()
    await running_other.order("level", value=255)
    return running_other


def both(peer, other, **changes):
    security = peer.security(server_certificates=[peer.own.certificate, other.own.certificate])
    return peer.context(security={**security, **changes.pop("security", {})}, redundant_urls=[other.url], **changes)


async def place_of(context):
    async with asyncio.timeout(WITHIN_S), ADAPTER.open(context) as session:
        (place,) = session.places("batteries")[:1]
        await session.read([Address("batteries", place, "reference")])
        return place


async def test_the_first_server_is_taken_while_it_is_healthy(peer, other, caplog):
    """And nothing is said of it."""
    assert await place_of(both(peer, other)) == "BESS001"
    assert not [entry for entry in caplog.records if entry.message == "opcua_other_server"]


async def test_the_next_server_is_taken_when_the_first_is_gone(peer, other, caplog):
    """With the reason in the log."""
    await peer.stop()
    assert await place_of(both(peer, other)) == "BESS009"
    (entry,) = [entry for entry in caplog.records if entry.message == "opcua_other_server"]
    assert (entry.url, entry.level) == (other.url, 255)
    assert peer.url in entry.reason


@pytest.mark.parametrize("watching", [{}, {"watch": "polling", "poll_interval": "20ms"}], ids=["told", "polled"])
async def test_a_server_whose_service_level_falls_is_left(peer, other, watching):
    """The session ends, and the next one goes to the better server; that one is taken again once it is healthy."""
    context = both(peer, other, **watching)
    async with asyncio.timeout(WITHIN_S), ADAPTER.open(context) as session:
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(ended(session))
            await peer.order("level", value=100)
        assert "fell from 255 to 100" in str(waiting.result())
    assert await place_of(context) == "BESS009"
    await peer.order("level", value=255)
    assert await place_of(context) == "BESS001"


async def ended(session):
    try:
        while True:
            await session.receive()
    except LinkError as error:
        return error


async def test_of_two_degraded_servers_the_better_one_is_kept(peer, other):
    """It does not go back and forth, is not left for what it said when it was chosen, and the worse one is let go."""
    await peer.order("level", value=50)
    await other.order("level", value=150)
    async with asyncio.timeout(WITHIN_S), ADAPTER.open(both(peer, other)) as session:
        assert (await peer.order("stats"))["sessions"] == 0
        await asyncio.sleep(0.1)  # its level is told
        await other.request("BESS009")
        (arrival,) = await session.receive()
        assert arrival.records[0].place == "BESS009"
    await other.order("level", value=50)
    assert await place_of(both(peer, other)) == "BESS001"
    await peer.order("level", value=255)


async def test_when_no_server_can_be_used_each_reason_is_told(peer, other):
    """A refusal only where all refuse."""
    wrong = both(peer, other, security={"password": Secret("wrong")})
    with pytest.raises(LinkRefused, match="none of the redundant servers can be used: ") as raised:
        await place_of(wrong)
    assert str(raised.value).count("BadUserAccessDenied") == 2
    await peer.stop()
    with pytest.raises(LinkError) as raised:
        await place_of(wrong)
    assert not isinstance(raised.value, LinkRefused)
    assert "BadUserAccessDenied" in str(raised.value)


async def test_a_handshake_asks_every_server(peer, other):
    """For the doctor: each of them must be let in and let us in."""
    context = both(peer, other)._replace(selections=())
    assert (await ADAPTER.handshake(context)).endswith("as smp-bridge (2 servers)")
    await other.stop()
    with pytest.raises(LinkError, match="connecting to"):
        await ADAPTER.handshake(context)


@pytest.mark.parametrize(
    ("value", "level"),
    [
        (ua.DataValue(ua.Variant(17, ua.VariantType.Byte)), 17),
        (ua.DataValue(ua.Variant(0, ua.VariantType.Byte)), 0),
        (
            ua.DataValue(ua.Variant(17, ua.VariantType.Byte), StatusCode=ua.StatusCode(ua.StatusCodes.BadNotReadable)),
            255,
        ),
        (ua.DataValue(ua.Variant(300, ua.VariantType.Int32)), 255),
        (ua.DataValue(ua.Variant("low", ua.VariantType.String)), 255),
        (ua.DataValue(), 255),
    ],
    ids=["stated", "none", "not readable", "too high", "text", "nothing"],
)
async def test_a_server_that_states_no_level_is_not_blamed(value, level):
    """Only a good number from 0 to 255 counts."""
    assert stated_level(value) == level
