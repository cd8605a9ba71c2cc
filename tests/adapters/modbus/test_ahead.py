"""Records of a request are shown to the core one after the other while the device is asked for the rest."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from modbus_device import modbus_device
from modbus_records import COMMAND, HEADER, SEQUENCE, record, unit
from modbus_site import SAMPLE, context_of, options_of, read_site, selections_of

from adapters.modbus import ADAPTER
from bridge.model import Quality

COUNT, EMPTY, BROKEN = 12, 3, 5


@pytest.fixture
async def device():
    async with modbus_device() as device:
        await device.put(0, *HEADER)
        await device.put(2, COUNT)
        for number in range(COUNT):
            if number != EMPTY:
                await device.put_bytes(100 + 80 * number, record(f"RK{number:02}"))
        await device.put(100 + 80 * BROKEN + 30, 1)  # its checksum no longer fits
        await device.put_bytes(6000, unit("UNIT01", (0, 1)))
        yield device


@asynccontextmanager
async def opened(device, show, site=None, **changes):
    site = site or read_site(SAMPLE)
    options = options_of(site, port=device.port, poll="10ms", heartbeat=None, timeout="500ms", **changes)
    context = context_of(options, selections_of(site))._replace(ahead=show)
    failed = []
    asyncio.get_running_loop().set_exception_handler(lambda _, what: failed.append(what))
    async with asyncio.timeout(30), ADAPTER.open(context) as session:
        yield session
    assert failed == []


async def asked(device, session, command):
    await device.put(SEQUENCE, 7)
    await device.put(COMMAND, command)
    async with asyncio.timeout(10):
        (arrival,) = await session.receive()
    return arrival.records


async def test_a_record_is_shown_while_later_ones_are_read(device):
    """Each with the fields and the problem that it arrives with; an empty slot is none. The last ones while the device is asked whether all this belongs together."""
    shown = []
    async with opened(device, shown.append) as session:
        arrived = await asked(device, session, 1)
    assert [item.place for item in arrived] == [str(number) for number in range(COUNT) if number != EMPTY]
    for early, late in zip(shown, arrived, strict=True):
        assert early.fields is late.fields
        assert (early.flow, early.place, early.problem, early.raw) == (late.flow, late.place, late.problem, late.raw)
    assert [item.place for item in shown if item.problem] == [str(BROKEN)]
    assert len({item.received for item in arrived}) == 1  # when all of it was read and found to belong together
    assert arrived[0].received.wall_ns > 0


async def test_a_record_with_wide_gaps_is_shown_whole(device):
    """What lies between its parts is not read, and counts as zeros."""
    site, shown = read_site(SAMPLE), []
    records = site["flows"]["batteries"]["records"]
    records["fields"] = {name: records["fields"][name] for name in ("name", "reference")}
    del records["crc"], site["flows"]["unit"]
    async with opened(device, shown.append, site, max_gap=0) as session:
        arrived = await asked(device, session, 1)
    assert [item.fields["reference"].value for item in arrived] == [
        f"RK{number:02}" for number in range(COUNT) if number != EMPTY
    ]
    assert [item.fields for item in shown] == [item.fields for item in arrived]
    assert {len(item.raw) for item in arrived} == {100}


async def test_what_was_shown_of_a_torn_reading_does_not_arrive(device):
    """The sequence moved: all is read again, shown again, and that is what arrives."""
    shown = []
    async with opened(device, shown.append) as session:
        await device.order("tear", at=SEQUENCE, **{"from": 100}, times=1)
        arrived = await asked(device, session, 1)
    assert {item.request for item in arrived} == {"8"}
    first, second = shown[: len(shown) // 2], shown[len(shown) // 2 :]
    assert [item.place for item in first][0] == [item.place for item in second][0] == "0"
    arriving = {id(item.fields) for item in arrived}
    assert not arriving & {id(item.fields) for item in first}
    assert {id(item.fields) for item in second} <= arriving


async def test_a_record_with_values_of_another_is_not_shown(device):
    """A unit's members are read after its own registers: before that it is not complete."""
    shown = []
    async with opened(device, shown.append) as session:
        (arrived,) = await asked(device, session, 2)
    assert shown == []
    assert arrived.fields["assets"].quality is Quality.GOOD
    assert arrived.fields["assets"].value == ("RK00", "RK01")
