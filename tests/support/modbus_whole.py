"""An EMS of 1,000 assets with 20 fields each, as large as one unit's holding registers allow."""

import asyncio
import struct
import time

from modbus_device import Device
from modbus_site import context_of, selection_of

from adapters.modbus import ADAPTER
from adapters.modbus.config import ModbusOptions
from bridge.api import Quality, Selection

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


async def read_whole(device: Device, port: int, times: int, **way: object) -> list[tuple[float, float]]:
    """So many requests on one session: from each to the arrival of all records, every field of them good; seconds and CPU seconds of this process."""
    options = ModbusOptions.model_validate(
        {"host": "127.0.0.1", "port": port, "poll": "10ms", "timeout": "5s", "writable": WRITABLE, **way}
    )
    found: list[tuple[float, float]] = []
    async with ADAPTER.open(context_of(options, [selection()])) as session:
        for turn in range(times):
            await ask(device, turn + 1)
            begun, cpu = time.perf_counter(), time.process_time()
            async with asyncio.timeout(60):
                (arrival,) = await session.receive()
            found.append((time.perf_counter() - begun, time.process_time() - cpu))
            assert [record.fields["reference"].value for record in arrival.records] == [
                f"EV{n:05d}" for n in range(PLACES)
            ]
            assert all(each.quality is Quality.GOOD for record in arrival.records for each in record.fields.values())
            await device.put(REQUEST, 0)
            await asyncio.sleep(0.05)  # a poll or more, so that the next request is a new one
    return found
