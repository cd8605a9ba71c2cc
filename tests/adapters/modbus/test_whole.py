"""An EMS of 1,000 assets with 20 fields each, read whole."""

import asyncio
import time

from modbus_device import modbus_device
from modbus_site import context_of
from modbus_whole import FIELDS, PLACES, WRITABLE, ask, fill, selection

from adapters.modbus import ADAPTER
from adapters.modbus.config import ModbusOptions
from bridge.api import Quality

LIMIT_S = 5.0


async def test_a_thousand_assets_are_read_within_five_seconds():
    """From the request to the arrival of all records, every field of them good."""
    async with modbus_device() as device:
        await fill(device)
        options = ModbusOptions.model_validate(
            {"host": "127.0.0.1", "port": device.port, "poll": "10ms", "timeout": "5s", "writable": WRITABLE}
        )
        async with asyncio.timeout(60), ADAPTER.open(context_of(options, [selection()])) as session:
            await ask(device, 1)
            begun = time.perf_counter()
            (arrival,) = await session.receive()
            took = time.perf_counter() - begun
    assert len(FIELDS) == 20
    assert len(arrival.records) == PLACES
    assert all(reading.quality is Quality.GOOD for record in arrival.records for reading in record.fields.values())
    assert [record.fields["reference"].value for record in arrival.records[:2]] == ["EV00000", "EV00001"]
    assert took < LIMIT_S
