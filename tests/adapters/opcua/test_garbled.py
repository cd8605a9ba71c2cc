"""A server whose replies are broken: each session goes on or ends with a `LinkError`, and nothing else ever happens. Unprotected, so that all reaches the decoder."""

import asyncio
from random import Random

import pytest
import pytest_asyncio
from opcua_site import selection_of

from adapters.opcua import ADAPTER
from bridge.api import Address, LinkError
from bridge.testing.proxy import FaultProxy, Way

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROUNDS = 30
WITHIN_S = 8.0
HEADER = (
    28  # of a message: type, size, channel, token, sequence, request, and the kind of what follows (OPC 10000-6, 6.7.2)
)


class Mangler:
    """Changes a few bytes of each reply behind its header once it is armed."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.armed = False
        self.changed = 0

    def __call__(self, data: bytes) -> bytes:
        if not self.armed or len(data) <= HEADER + 1:
            return data
        spoiled = bytearray(data)
        for _ in range(self.random.choice((1, 1, 2, 8))):
            at = self.random.randrange(HEADER, len(data))
            spoiled[at] = self.random.choice((0, 0x7F, 0x80, 0xFF, self.random.randrange(256)))
            self.changed += 1
        return bytes(spoiled)


@pytest_asyncio.fixture(loop_scope="module")
async def proxy(peer):
    await peer.again(policies=["None"], modes=["None"], user="")
    async with FaultProxy("127.0.0.1", peer.port) as proxy:
        yield proxy


async def use(context, mangler: Mangler, opening: bool) -> str:
    """Open, read and receive; how it ended."""
    address = Address("batteries", "BESS001", "reference")
    mangler.armed = opening
    try:
        async with asyncio.timeout(WITHIN_S), ADAPTER.open(context) as session:
            mangler.armed = True
            for _ in range(3):
                await session.read([address] * 5)
            async with asyncio.timeout(0.05):
                await session.receive()
    except LinkError:
        return "ended"
    except TimeoutError:
        pass
    return "went on"


async def test_no_reply_does_more_than_end_its_session(peer, proxy):
    """While it opens, and while it stands; nobody else's exception, and no task of the library's that fails unseen."""
    unseen: list[dict] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, details: unseen.append(details))
    context = peer.context(security={"policy": "None"}, url=f"opc.tcp://127.0.0.1:{proxy.port}", timeout="500ms")
    context = context._replace(selections=[selection_of("batteries", batteries())])
    ends, changed = [], 0
    try:
        for seed in range(ROUNDS):
            mangler = Mangler(seed)
            proxy.set(Way.DOWN, rewrite=mangler)
            begun = loop.time()
            ends.append(await use(context, mangler, opening=seed % 2 == 0))
            assert loop.time() - begun < WITHIN_S, seed
            changed += mangler.changed
    finally:
        loop.set_exception_handler(None)
        proxy.clear()
    assert changed > ROUNDS
    assert ends.count("ended") > ROUNDS / 2
    assert not unseen, unseen[0]
    assert await use(context, Mangler(0), opening=False) is not None


def batteries():
    return {
        "records": {
            "each": "Objects/ems:EMS/ems:Assets/*",
            "key": "reference",
            "fields": {"reference": "AssetReference", "name": "Name", "kw": "MaxExport_kW", "since": "CommissionedOn"},
        },
        "submit": {"when": "request", "request": "Registration/Request", "sequence": "Registration/RequestSeq"},
        "outcome": {"state": "Registration/State"},
    }
