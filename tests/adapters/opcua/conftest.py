"""One node-opcua server for each module that asks for it: it takes two seconds to start. Every test finds it as if fresh."""

import pytest_asyncio
from opcua_peer import opcua_peer


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running_peer(tmp_path_factory):
    async with opcua_peer(tmp_path_factory.mktemp("peer")) as peer:
        await peer.layout()
        await peer.start()
        yield peer


@pytest_asyncio.fixture(loop_scope="module")
async def peer(running_peer):
    await running_peer.fresh()
    return running_peer
