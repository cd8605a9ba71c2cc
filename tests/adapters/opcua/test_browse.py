"""Browsing a server that pages its answers and keeps few continuation points, or breaks them; without a server (with one: test_session.py)."""

from types import SimpleNamespace

import pytest

from adapters.opcua.config import OpcUaOptions
from adapters.opcua.library import ua
from adapters.opcua.link import Link
from bridge.api import LinkError
from bridge.clock import SystemClock


class Stingy:
    """Every node has `children`; a page holds one of them, and `points` pages may be open at a time."""

    def __init__(self, children: int, points: int, broken: bool = False) -> None:
        self.children, self.points, self.broken = children, points, broken
        self.open: dict[bytes, list[str]] = {}
        self.requests: list[int] = []

    def _page(self, names: list[str]):
        result = ua.BrowseResult()
        if len(names) > 1:
            if len(self.open) >= self.points:
                result.StatusCode = ua.StatusCode(ua.StatusCodes.BadNoContinuationPoints)
                return result
            result.ContinuationPoint = names[0].encode()
            self.open[result.ContinuationPoint] = names[1:]
        result.References = names[:1]
        return result

    async def browse(self, parameters):
        self.requests.append(len(parameters.NodesToBrowse))
        return [
            self._page([f"{each.NodeId.Identifier}-{number}" for number in range(self.children)])
            for each in parameters.NodesToBrowse
        ]

    async def browse_next(self, parameters):
        assert not parameters.ReleaseContinuationPoints
        (point,) = parameters.ContinuationPoints
        names = self.open.pop(point)
        if self.broken:
            return [ua.BrowseResult(StatusCode=ua.StatusCode(ua.StatusCodes.BadContinuationPointInvalid))]
        return [self._page(names)]


def link_to(server: Stingy) -> Link:
    options = OpcUaOptions.model_validate({"url": "opc.tcp://127.0.0.1:1", "security": {"policy": "None"}})
    link = Link(options, SystemClock.here())
    link._client = SimpleNamespace(uaclient=SimpleNamespace(session=server))
    return link


NODES = [ua.NodeId(name, 2) for name in "abcde"]


@pytest.mark.parametrize("points", [1, 2, 5])
async def test_every_child_is_found_however_few_pages_may_be_open(points):
    """What the server postpones is asked for alone, and stands in its own place."""
    server = Stingy(3, points)
    found = await link_to(server).browse(NODES)
    assert found == [[f"{name}-{number}" for number in range(3)] for name in "abcde"]
    assert not server.open
    assert server.requests == [5] + [1] * (5 - points)


async def test_a_page_that_is_missing_is_an_error():
    """Children that are left out would be taken as assets that are gone."""
    with pytest.raises(LinkError, match="BadContinuationPointInvalid for the rest"):
        await link_to(Stingy(3, 5, broken=True)).browse(NODES)
    with pytest.raises(LinkError, match="no continuation point even for one node alone"):
        await link_to(Stingy(3, 0)).browse(NODES)
