"""What OPC UA servers do of their own accord, with the whole service in front of them."""

import asyncio
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio
from faulty_ems import REGISTERED, WORDS, NodeOpcUa, faulty_ems, survived
from opcua_peer import ASSETS

from adapters.opcua import ADAPTER

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory):
    async with faulty_ems(tmp_path_factory.mktemp("opcua"), NodeOpcUa) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def made(world):
    yield world
    await world.settle()


async def test_restarted_with_other_namespace_numbers(made, table):
    """Every node has another id afterwards, for the namespaces are numbered anew; the URIs are the same, and so are the assets."""
    [link] = made.links

    async def inject():
        await link.peer.again(namespaces=["urn:other:a", "urn:other:b", "urn:acme:ems"])

    await survived(made, table, "restarted with other namespace numbers", inject)


async def test_subscriptions_ended_by_the_server(made, table):
    """As after a download of its configuration: the session is replaced, and what was asked meanwhile is read."""
    [link] = made.links

    async def inject():
        assert (await link.peer.order("end-subscriptions"))["count"]

    await survived(made, table, "subscriptions ended by the server", inject)


async def test_an_asset_is_added_and_others_are_made_anew(made, table):
    """The EMS's tree changes while the service is connected: an asset that is added is registered, and so is one whose nodes went and came back."""
    [link] = made.links
    await link.peer.again(tells=[ASSETS])
    await link.until_up(up=True, within_s=10)

    async def inject():
        next_place = link.places[len(link.asked)]
        await link.peer.prune(next_place)
        await link.peer.order("grow")
        await link.peer.grow("BESS900", 900)
        await link.peer.request("BESS900")

    await survived(made, table, "assets added and made anew", inject)
    async with asyncio.timeout(20):
        while WORDS[await link.peer.value(f"{ASSETS}/BESS900/Registration/State")] != REGISTERED:
            await asyncio.sleep(0.02)
    assert made.sandbox.ledger.creates("REF900") == 1


async def test_no_session_is_free(made, table):
    """Somebody else holds the only session: the service keeps trying, and is there soon after it was given back."""
    [link] = made.links
    async with AsyncExitStack() as other:

        async def inject():
            await link.proxy.refuse()
            await link.proxy.cut()
            await link.peer.again(capabilities={"maxSessions": 1})
            await other.enter_async_context(ADAPTER.open(link.peer.context()))
            await link.proxy.listen()
            await asyncio.sleep(2)
            assert not await link.up()

        await survived(made, table, "no session free", inject, other.aclose)
    await link.peer.again()


@pytest.mark.long
async def test_subscriptions_that_fall_silent(made, table):
    """The connection stands and answers, and nothing is published any more: noticed by the missing keep-alives."""
    [link] = made.links

    async def inject():
        await link.peer.mute()
        await link.until_up(up=False, within_s=link.noticed_s)

    await survived(made, table, "subscriptions fall silent", inject)
