"""Golden cases: registers of a libmodbus device in; what the site's flow makes of each record out. Each folder below `cases` holds one.

`site.yaml` says what is different from the shipped site of Rugby (a null takes a setting away), `registers.txt` holds what the EMS wrote, its command
included, and `expected.json` every record that comes: its item, or the host's refusal with its text.
"""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from modbus_device import modbus_device
from modbus_site import context_of
from ruamel.yaml import YAML

from bridge import registry
from bridge.app import Host
from bridge.config import Config, load
from bridge.flow import FlowPlan
from bridge.model import Record

pytestmark = pytest.mark.asyncio(loop_scope="module")

WITHIN_S = 20.0
ROOT = Path(__file__).parents[3]
CASES = sorted(path.parent for path in Path(__file__).parent.glob("cases/*/site.yaml"))
SHIPPED = "rugby.yaml"
HEARTBEAT, LAST = 5, 6599


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def device():
    """One device for all cases; its heartbeat moves."""
    async with modbus_device() as device:
        await device.order("beat", at=HEARTBEAT, on=True)
        yield device


@pytest.fixture(scope="module")
def sites(device, tmp_path_factory):
    """The host of all cases' sites, and their configuration."""
    return read_sites(tmp_path_factory.mktemp("config"), host=device.host, port=device.port, poll="10ms")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_case(device, sites, case):
    """What the flow makes of these registers is what the case expects, record by record and type by type."""
    await device.put(0, *[0] * (LAST + 1))
    for at, data in registers(case / "registers.txt"):
        await device.put_bytes(at, data)
    host, config = sites
    site = config.sites[case.name]
    plans = {name: host._plan(site, name) for name in site.flows}
    (adapter,) = site.adapters.values()
    context = context_of(adapter.options, [plan.selection() for plan in plans.values()])
    async with asyncio.timeout(WITHIN_S), adapter.adapter.open(context) as session:
        (arrival,) = await session.receive()
    found = [told(record, plans[record.flow]) for record in arrival.records]
    assert pretty(found) == pretty(json.loads((case / "expected.json").read_text("utf-8")))


def registers(path: Path) -> list[tuple[int, bytes]]:
    """The lines `ADDRESS: WORDS` in hexadecimal; what follows a # is for the reader."""
    lines = [line.partition("#")[0].partition(":") for line in path.read_text("utf-8").splitlines()]
    return [(int(at), bytes.fromhex(words)) for at, _, words in lines if words]


def told(record: Record, plan: FlowPlan) -> dict[str, Any]:
    """One record after its flow: the item as the journal would keep it, or the refusal as the EMS would read it."""
    found = plan.evaluate(record)
    said = {"flow": record.flow, "place": record.place, "request": record.request, "key": found.key}
    if found.refusal is not None:
        return {**said, "refused": {"code": int(found.refusal.reason), "text": found.refusal.text}}
    return {**said, "item": json.loads(found.content), "members": list(found.members)}


def pretty(value: Any) -> list[str]:
    """Lines of JSON: they keep true, 1 and 1.0 apart, which a comparison of values does not."""
    return json.dumps(value, indent=2, sort_keys=True).splitlines()


def read_sites(directory: Path, **connection: Any) -> tuple[Host, Config]:
    """The sites of all cases, read and checked as one configuration of the default profile, and the host that would run it."""
    (directory / "any").write_text("placeholder")
    (directory / "sites").mkdir()
    yaml = YAML(typ="safe")
    shipped = yaml.load((ROOT / "config/sites" / SHIPPED).read_text("utf-8"))
    (adapter,) = shipped["adapters"].values()
    adapter.update(connection)
    for case in CASES:
        content = merged(shipped, yaml.load((case / "site.yaml").read_text("utf-8")) or {})
        with (directory / f"sites/{case.name}.yaml").open("w") as file:
            yaml.dump({**content, "site": case.name}, file)
    files = dict.fromkeys(("signing_key", "smp_jwks"), "any")
    participant = {"sender": "ACME", "environment": "TEST", "base_url": "https://smp.example.invalid", "username": "u"}
    host = {
        "journal": {"path": "journal.db"},
        "listeners": {"returns": dict.fromkeys(("certificate", "private_key"), "any")},
        "participants": {shipped["participant"]: {**participant, **files, "password": {"file": "any"}}},
    }
    (directory / "bridge.yaml").write_text(json.dumps(host))
    config = load(directory, registry.find, environ={})
    return Host(config), config


def merged(shipped: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """The shipped settings with these in their place; mappings are merged, and null takes away."""
    found = dict(shipped)
    for key, value in change.items():
        both = isinstance(value, dict) and isinstance(found.get(key), dict)
        found[key] = merged(found[key], value) if both else value
        if value is None:
            del found[key]
    return found
