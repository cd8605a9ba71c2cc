"""An EMS of 1,000 assets with 20 fields each, read whole."""

import pytest
from modbus_device import JSMODBUS, LIBMODBUS, modbus_device
from modbus_whole import FIELDS, PLACES, fill, read_whole

LIMIT_S = 5.0


@pytest.mark.parametrize("peer", [LIBMODBUS, JSMODBUS], ids=["libmodbus", "jsmodbus"])
async def test_a_thousand_assets_are_read_within_five_seconds(peer):
    """From the request to the arrival of all records, every field of them good."""
    assert (PLACES, len(FIELDS)) == (1000, 20)
    async with modbus_device(peer) as device:
        await fill(device)
        ((took, _),) = await read_whole(device, device.port, 1)
    assert took < LIMIT_S
