"""One node-opcua server for each module that asks for it: it takes two seconds to start. Every test finds it as if fresh.

`@pytest.mark.serves(limits={…})` names the settings that a test needs; tests of the same settings that stand together share one restart.
"""

import pytest
import pytest_asyncio
from opcua_peer import opcua_peer


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running_peer(tmp_path_factory):
    async with opcua_peer(tmp_path_factory.mktemp("peer")) as peer:
        await peer.layout()
        await peer.start()
        yield peer


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "serves(**settings): settings of the node-opcua server of this test")


@pytest_asyncio.fixture(loop_scope="module")
async def peer(running_peer, request):
    marker = request.node.get_closest_marker("serves")
    await running_peer.fresh(**(marker.kwargs if marker else {}))
    return running_peer
