"""Golden cases: nodes of a node-opcua server in; readings, written values and refusals out. Each folder below `cases` holds one."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from opcua_peer import opcua_peer
from opcua_site import selection_of
from quick_yaml import read_yaml

from adapters.opcua import ADAPTER
from bridge.api import Address, Code, OutcomeField, Quality, Reading, Write

pytestmark = pytest.mark.asyncio(loop_scope="module")

WITHIN_S = 20.0
CASES = sorted(Path(__file__).parent.glob("cases/*/case.yaml"))


def load(path: Path) -> dict[str, Any]:
    return read_yaml(path)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory):
    """One server with the nodes of all cases, each below a folder of the case's name."""
    async with opcua_peer(tmp_path_factory.mktemp("peer")) as peer:
        for path in CASES:
            for node, details in load(path)["nodes"].items():
                kind, value = details.pop("type"), details.pop("value")
                await peer.variable(f"{path.parent.name}/{node}", kind, value, **details)
        await peer.start(types=True)
        yield peer


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.parent.name)
async def test_case(server, path):
    """What comes in is what the case expects, and what goes out stands in the server or is refused in the case's words."""
    case, name = load(path), path.parent.name
    context = server.context(writable=[f"Objects/ems:{name}/*/{'*/' * depth}*" for depth in range(2)])
    context = context._replace(selections=[selection_of(name, case["flow"])])
    async with asyncio.timeout(WITHIN_S), ADAPTER.open(context) as session:
        readings = await session.read([Address(name, "A", field) for field in case["expect"]])
        for field, found in zip(case["expect"], readings, strict=True):
            assert_reading(field, found, case["expect"][field])
        writes = [
            Write(address=Address(name, "A", OutcomeField(key)), value=plain(value))
            for key, value in case.get("write", {}).items()
        ]
        written = await session.write(writes)
        errors = {entry.address.name.value: entry.error for entry in written if entry.error}
        assert errors == case.get("refused", {})
        back = await session.read([entry.address for entry in written if not entry.error])
        assert [found.value for found in back] == [entry.value for entry in written if not entry.error]
    for node, value in case.get("held", {}).items():
        assert await server.value(f"{name}/{node}") == value, node


def assert_reading(field: str, found: Reading, expected: Any) -> None:
    if expected == "absent":
        assert found.absent or "does not exist" in found.detail, (field, found)
        return
    if isinstance(expected, dict):
        assert found.quality is Quality(expected["quality"]), (field, found)
        assert found.detail == expected["detail"], field
        expected = expected.get("value")
    else:
        assert found.quality is Quality.GOOD, (field, found)
    assert found.value == plain(expected), field


def plain(value: Any) -> Any:
    """YAML's own types as the bridge's: moments in UTC, lists as tuples, words as codes."""
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value
    if isinstance(value, list):
        return tuple(plain(item) for item in value)
    return Code(value["number"], value["text"]) if isinstance(value, dict) else value
