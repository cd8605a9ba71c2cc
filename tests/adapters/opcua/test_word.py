"""The alarm word in a variable of a node-opcua server, as its own type, and where it may stand."""

import asyncio
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio
from opcua_peer import opcua_peer
from opcua_site import options_of, read_site, security_of, selections_of

from adapters.opcua import ADAPTER
from bridge.api import AlarmWord, WordSession

pytestmark = pytest.mark.asyncio(loop_scope="module")
WRITABLE = ["Objects/ems:EMS/ems:Words/*", "Objects/ems:EMS/ems:Assets/*/ems:Registration/*", "Objects/ems:EMS/ems:Units/*/ems:Registration/*"]  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def peer(tmp_path_factory):
    async with opcua_peer(tmp_path_factory.mktemp("peer")) as peer:
        await peer.layout()
        for name, more in (("UInt16", {}), ("UInt32", {}), ("Int16", {}), ("Int32", {}), ("Byte", {}), ("String", {})):
            first = "" if name == "String" else 0
            await peer.variable(f"EMS/Words/{name}", name, first, writable=True, **more)
        await peer.variable("EMS/Words/ReadOnly", "UInt16", 0)
        await peer.start()
        yield peer


@asynccontextmanager
async def opened(peer, name):
    context = peer.context(writable=WRITABLE)._replace(word=ADAPTER.word(node=f"Objects/ems:EMS/ems:Words/{name}"))
    async with asyncio.timeout(20), ADAPTER.open(context) as session:
        yield session


def word(bits):
    return AlarmWord(bits=bits, words=(), at_ns=0)


@pytest.mark.parametrize(
    ("name", "held"), [("UInt16", 0x8001), ("UInt32", 0x8001), ("Int32", 0x8001), ("Int16", -32767)]
)
async def test_written_as_the_nodes_own_type(peer, name, held):
    """All sixteen bits, whatever the sign; and back to none."""
    async with opened(peer, name) as session:
        assert isinstance(session, WordSession)
        assert await session.write_word(word(0x8001)) == ""
        assert await peer.value(f"EMS/Words/{name}") == held
        assert await session.write_word(word(0)) == ""
        assert await peer.value(f"EMS/Words/{name}") == 0


@pytest.mark.parametrize(
    ("name", "said"),
    [("Byte", "Byte"), ("ReadOnly", "BadUserAccessDenied|BadNotWritable"), ("Nowhere", "does not exist")],
)
async def test_what_cannot_be_written_is_a_text(peer, name, said):
    """The session goes on: outcomes need it."""
    async with opened(peer, name) as session:
        error = await session.write_word(word(0x8001))
        assert any(text in error for text in said.split("|")), error
        assert (await session.read([]))[:] == []


def check(node):
    site = read_site()
    security = security_of(certificate=__file__, key=__file__, servers=[__file__], user="u", password="p")
    options = options_of(site, url="opc.tcp://127.0.0.1:4840", security=security, writable=WRITABLE)
    return [problem.text for problem in ADAPTER.check_word(options, selections_of(site), ADAPTER.word(node=node))]


@pytest.mark.parametrize(
    ("node", "said"),
    [
        ("Objects/ems:EMS/ems:Words/A", ""),
        ("Objects/ems:EMS/ems:AlarmWord", 'add "Objects/ems:EMS/ems:AlarmWord" there'),
        ("Objects/ems:EMS/ems:Words/*", "must name one node"),
        ("Objects/ems:EMS/other:Words", "`other` is not in `namespaces:`"),
        ("Objects/ems:EMS/ems:Assets/BESS001/ems:Registration/State", "is a node of the flow batteries"),
    ],
)
async def test_checked_beside_the_flows(node, said):
    """Inside `writable:`, one node, and none of a flow."""
    found = check(node)
    assert (found == []) if not said else said in found[0]
