"""The maps that the README shows work as they stand there, against libmodbus."""

import asyncio
import re
import struct
from pathlib import Path

from modbus_device import modbus_device
from modbus_site import context_of, selection_of
from ruamel.yaml import YAML

from adapters.modbus import ADAPTER
from adapters.modbus.config import ModbusOptions

README = Path(__file__).parents[3] / "adapters" / "modbus" / "README.md"
NOWHERE = {"state": {"at": 99, "type": "uint16"}}


def snippet(heading: str) -> dict:
    """The YAML below a heading."""
    part = README.read_text("utf-8").split(f"### {heading}\n")[1]
    return YAML(typ="safe").load(re.search(r"```yaml\n(.*?)```", part, re.DOTALL)[1])


def text(value: str, registers: int) -> bytes:
    return value.encode().ljust(2 * registers, b"\0")


async def test_a_sunspec_device():
    """Models 1 and 120 as SunSpec lays them out: text fields, scale factors, and what is not implemented."""
    common = struct.pack(">HH", 1, 66) + text("Acme", 16) + text("X-49", 16) + text("", 8) + text("1.2.3", 8)
    common += text("SN-0042", 16) + struct.pack(">HH", 1, 0x8000)
    nameplate = struct.pack(">HHHHh", 120, 26, 82, 4950, 1).ljust(2 * 19, b"\0") + struct.pack(">Hh", 0xFFFF, 0)
    flow = {**snippet("A SunSpec device"), "outcome": NOWHERE}
    options = ModbusOptions.model_validate(
        {"host": "127.0.0.1", "poll": "10ms", "magic": {"at": 40000, "is": 0x5375}, "writable": [40099]}
    )
    async with modbus_device() as device:
        await device.put_bytes(40000, b"SunS" + common + nameplate)
        options = options.model_copy(update={"port": device.port})
        selections = [selection_of("inverter", flow)]
        assert list(ADAPTER.check(options, selections)) == []
        async with asyncio.timeout(30), ADAPTER.open(context_of(options, selections)) as session:
            ((record,),) = [arrival.records for arrival in await session.receive()]
    values = {name: reading.value for name, reading in record.fields.items()}
    assert values == {
        "manufacturer": "Acme", "model": "X-49", "options": "", "version": "1.2.3", "serial": "SN-0042",
        "kind": 82, "watts": 49500, "watt_hours": None,
    }  # fmt: skip
    assert record.fields["watt_hours"].absent


def test_a_map_of_several_tables(tmp_path):
    """The README's map is the one that test_tables runs."""
    flow = snippet("A map of several tables with a file beside it")
    (tmp_path / "assets.csv").write_text("asset_no;name;mpan\n7;N;1\n")
    flow["records"]["csv"]["file"] = str(tmp_path / "assets.csv")
    options = ModbusOptions.model_validate({"host": "x", "address_base": "reference", "writable": ["33..34", 40400]})
    assert list(ADAPTER.check(options, [selection_of("assets", flow)])) == []
