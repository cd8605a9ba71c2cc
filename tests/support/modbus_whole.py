"""An EMS of 1,000 assets with 20 fields each, as large as one unit's holding registers allow."""

import struct

from modbus_device import Device
from modbus_site import selection_of

from bridge.api import Selection

PLACES = 1000
STRIDE = 60
BASE = 100
REQUEST, SEQUENCE = 0, 1
_NUMBERS = 17

FIELDS = {
    "reference": {"at": 0, "type": "string", "registers": 10},
    "name": {"at": 10, "type": "string", "registers": 12},
    "since": {"at": 22, "type": "epoch32"},
    **{
        f"number{index:02d}": {"at": 24 + 2 * index, "type": kind, "order": order}
        for index, (kind, order) in enumerate(
            [("int32", "ABCD"), ("float32", "CDAB"), ("uint32", "BADC"), ("float32", "DCBA")] * 4 + [("int32", "ABCD")]
        )
    },
}
FLOW = {
    "records": {"each": {"base": BASE, "stride": STRIDE, "count": PLACES}, "key": "reference", "fields": FIELDS},
    "submit": {"when": "request", "request": REQUEST, "sequence": SEQUENCE},
    "outcome": {"state": {"at": 59, "type": "uint16"}},
}
WRITABLE = [{"from": BASE + 59, "to": BASE + 59, "every": STRIDE, "count": PLACES}]


def selection() -> Selection:
    """The flow that reads them."""
    return selection_of("assets", FLOW)


def asset(number: int) -> bytes:
    """One asset's registers, built without the adapter's codec."""
    reference, name = f"EV{number:05d}".encode(), f"Charger {number}".encode()
    body = struct.pack(">20s24sI", reference, name, 1_795_392_000) + struct.pack(
        f">{_NUMBERS}I", *[number + 1] * _NUMBERS
    )
    return body.ljust(2 * STRIDE, b"\0")


async def fill(device: Device) -> None:
    """Put all assets into the device."""
    for number in range(0, PLACES, 20):
        await device.put_bytes(BASE + STRIDE * number, b"".join(asset(one) for one in range(number, number + 20)))


async def ask(device: Device, sequence: int) -> None:
    """The EMS asks for all of them."""
    await device.put(SEQUENCE, sequence)
    await device.put(REQUEST, 1)
