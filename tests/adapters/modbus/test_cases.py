"""Golden cases: registers of a libmodbus device in; what the site's flow makes of each record out. Each folder below `cases` holds one.

`site.yaml` says what is different from the shipped site of Rugby (a null takes a setting away), `registers.txt` holds what the EMS wrote, its command
included, and `expected.json` every record that comes: its item, or the host's refusal with its text.
"""

import asyncio
import json
from pathlib import Path

import pytest
import pytest_asyncio
from golden import pretty, read_sites, told
from modbus_device import modbus_device
from modbus_site import context_of

from bridge.assembly import flow_plan

pytestmark = pytest.mark.asyncio(loop_scope="module")

WITHIN_S = 20.0
CASES = sorted(path.parent for path in Path(__file__).parent.glob("cases/*/site.yaml"))
SHIPPED = "rugby.yaml"
HEARTBEAT, LAST = 5, 6599


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def device():
    """One device for all cases; its heartbeat moves."""
    async with modbus_device() as device:
        await device.order("beat", at=HEARTBEAT, on=True)
        yield device


@pytest.fixture
def config(device, case, tmp_path):
    """The configuration of one case's site alone, for all of them are of one device and write the same registers."""
    return read_sites(tmp_path, SHIPPED, [case], host=device.host, port=device.port, poll="10ms")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_case(device, config, case):
    """What the flow makes of these registers is what the case expects, record by record and type by type."""
    await device.put(0, *[0] * (LAST + 1))
    for at, data in registers(case / "registers.txt"):
        await device.put_bytes(at, data)
    site = config.sites[case.name]
    plans = {name: flow_plan(config, site, name) for name in site.flows}
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
