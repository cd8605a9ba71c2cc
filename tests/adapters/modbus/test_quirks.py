"""Devices with habits of their own: one function only, one field a request, pauses, one connection at a time. Against libmodbus."""

import asyncio
import copy
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from modbus_device import Device, modbus_device
from modbus_records import COMMAND, HEADER, SEQUENCE, STATUS, record
from modbus_site import SAMPLE, context_of, options_of, read_site, selections_of

from adapters.modbus import ADAPTER
from bridge.api import Address, Code, LinkError, OutcomeField, Session, Write

WITHIN_S = 10.0
FAST = {"poll": "10ms", "heartbeat": None, "busy_pause": "10ms", "timeout": "500ms"}
STATE = Address("batteries", "0", OutcomeField.STATE)
TRANSACTION = Address("batteries", "0", OutcomeField.TRANSACTION_ID)


@pytest.fixture
async def device() -> AsyncIterator[Device]:
    async with modbus_device() as device:
        await device.put(0, *HEADER)
        await device.put_bytes(100, record("RK01"))
        await device.put_bytes(180, record("RK02"))
        yield device


@asynccontextmanager
async def opened(device: Device, **changes) -> AsyncIterator[Session]:
    site = copy.deepcopy(read_site(SAMPLE))
    del site["flows"]["unit"]
    options = options_of(site, port=device.port, **{**FAST, **changes})
    async with asyncio.timeout(30), ADAPTER.open(context_of(options, selections_of(site))) as session:
        yield session


async def asked(device: Device, session: Session):
    await device.put(SEQUENCE, 7)
    await device.put(COMMAND, 1)
    async with asyncio.timeout(WITHIN_S):
        (arrival,) = await session.receive()
    return arrival


async def log(device: Device, functions: set[int]) -> list[list[int]]:
    return [entry for entry in (await device.order("stats"))["log"] if entry[0] in functions]


OUTCOME = [Write(address=TRANSACTION, value="a0B"), Write(address=STATE, value=Code(3, "registered"))]


async def test_a_device_that_writes_one_register_at_a_time(device):
    """Function 06 alone: the handshake and an outcome work, register by register, the state last."""
    await device.order("only", functions=[3, 6])
    async with opened(device, write_function=6) as session:
        (await asked(device, session)).ack(True)
        await device.until(STATUS, 3, 0)
        written = await session.write(OUTCOME)
    assert [item.error for item in written] == ["", ""]
    assert await device.bytes(163, 9) == b"a0B".ljust(18, b"\0")
    assert await device.words(160) == [3]
    assert (await log(device, {6}))[-1] == [6, 160, 1]


async def test_one_register_at_a_time_says_the_state_and_the_status_last(device):
    """What lies behind the state in the record is there before it, and an error code before the status that speaks of it."""
    await device.order("only", functions=[3, 6])
    rest = {
        OutcomeField.ERROR_COUNT: 1,
        OutcomeField.ERROR_CODE: Code(9999, "MPAN_UNKNOWN"),
        OutcomeField.TRANSACTION_ID: "a0B",
    }
    writes = [Write(address=STATE, value=Code(4, "refused"))]
    writes += [Write(address=Address("batteries", "0", name), value=value) for name, value in rest.items()]
    async with opened(device, write_function=6) as session:
        assert [item.error for item in await session.write(writes)] == [""] * 4
        assert [at for _, at, _ in await log(device, {6})] == [*range(161, 172), 160]
        await device.put(SEQUENCE, 7)
        await device.put(COMMAND, 9)  # no flow's
        await device.until(STATUS, 4, 9014)
        assert [at for _, at, _ in (await log(device, {6}))[-2:]] == [STATUS + 1, STATUS]


async def test_a_handshake_that_may_write_one_register_a_request_says_the_status_last(device):
    """`max_registers_per_write: 1` holds for the handshake's two registers, too."""
    site = copy.deepcopy(read_site(SAMPLE))
    flow = site["flows"]["batteries"]
    flow["outcome"] = {"state": flow["outcome"]["state"]}
    options = options_of(site, port=device.port, max_registers_per_write=1, **FAST)
    selections = selections_of({"flows": {"batteries": flow}})
    async with asyncio.timeout(30), ADAPTER.open(context_of(options, selections)) as session:
        (await asked(device, session)).ack(True)
        await device.until(STATUS, 3, 0)
    written = await log(device, {6, 16})
    assert written[-2:] == [[16, STATUS + 1, 1], [16, STATUS, 1]]
    assert {count for _, _, count in written} == {1}


async def test_a_device_without_function_06(device):
    """Function 16 is the default, also for one register."""
    await device.order("only", functions=[3, 16])
    async with opened(device) as session:
        assert [item.error for item in await session.write(OUTCOME)] == ["", ""]
    assert await log(device, {6, 16}) == [[16, 163, 9], [16, 160, 1]]


async def test_one_register_by_06_and_several_by_16(device):
    """`auto` takes the function that is made for the number of registers."""
    async with opened(device, write_function="auto") as session:
        assert [item.error for item in await session.write(OUTCOME)] == ["", ""]
    assert await log(device, {6, 16}) == [[16, 163, 9], [6, 160, 1]]


async def test_a_function_that_the_device_lacks_is_named(device):
    """The error of the write says which function would be right to try."""
    await device.order("only", functions=[3, 6])
    async with opened(device) as session:
        (item,) = await session.write(OUTCOME[1:])
    assert "exception 1" in item.error
    assert "write_function" in item.error


async def test_each_field_in_a_request_of_its_own(device):
    """`one_field_per_request`: no request spans two fields, and the record is whole."""
    async with opened(device, one_field_per_request=True) as session:
        before = len(await log(device, {3}))
        arrival = await asked(device, session)
        asked_for = [entry for entry in (await log(device, {3}))[before:] if 100 <= entry[1] < 180]
    (first, _) = arrival.records
    assert first.problem == ""
    assert first.fields["reference"].value == "RK01"
    assert first.fields["export_kw"].value == 49500
    assert [3, 116, 7] in asked_for
    assert [3, 130, 2] in asked_for
    assert [3, 140, 10] in asked_for


async def test_a_gap_that_must_not_be_read(device):
    """With `max_gap: 0` registers between two fields are never touched, though the device refuses them."""
    site = copy.deepcopy(read_site(SAMPLE))
    flow = {"batteries": site["flows"]["batteries"]}
    flow["batteries"]["records"]["fields"] = {
        name: flow["batteries"]["records"]["fields"][name] for name in ("name", "mpan", "reference")
    }
    flow["batteries"]["records"]["crc"] = None
    await device.order("refuse", **{"from": 123, "to": 139})
    await device.order("refuse", **{"from": 203, "to": 219})
    options = options_of(site, port=device.port, max_gap=0, **FAST)
    async with asyncio.timeout(30), ADAPTER.open(context_of(options, selections_of({"flows": flow}))) as session:
        arrival = await asked(device, session)
    assert [item.fields["reference"].value for item in arrival.records] == ["RK01", "RK02"]


async def test_the_connection_is_closed_after_each_poll(device):
    """`close_after_poll`: each poll has a connection of its own, and the session neither ends nor loses a request or a write."""
    async with opened(device, close_after_poll=True) as session:
        before = (await device.order("stats"))["connections"]
        arrival = await asked(device, session)
        arrival.ack(True)
        await device.until(STATUS, 3, 0)
        assert [item.error for item in await session.write(OUTCOME)] == ["", ""]
        await device.put(COMMAND, 0)
        await device.until(STATUS, 0, 0)
        assert (await device.order("stats"))["connections"] >= before + 2
    assert await device.words(160) == [3]


async def test_a_device_that_does_not_come_back_ends_the_session(device):
    """With `close_after_poll` too: what cannot be opened again is a lost link."""
    async with opened(device, close_after_poll=True) as session:
        await device.order("away")
        with pytest.raises(LinkError):
            async with asyncio.timeout(WITHIN_S):
                await session.receive()


async def test_pauses_are_kept(device):
    """The first request leaves no earlier than the pause after the connect, each further one no earlier than the pause between."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with opened(device, pause_after_connect="300ms", pause_between_requests="300ms", poll="1s"):
        spent = loop.time() - began
        count = len(await log(device, {3}))
    assert count >= 3
    assert spent >= 0.3 + 0.3 * (count - 1)
