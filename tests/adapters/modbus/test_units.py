"""Several units behind one connection: a serial line, a gateway that takes only one client. The peers are libmodbus and jsmodbus."""

import asyncio
import contextlib
import copy
import struct
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from modbus_device import JSMODBUS, LIBMODBUS, Device, malformed_device, modbus_device
from modbus_lines import Line, gateway, one_at_a_time, serial_line
from modbus_records import COMMAND, HEADER, SEQUENCE, STATUS, record
from modbus_site import SAMPLE, context_of, read_site, selections_of

from adapters.modbus import ADAPTER
from adapters.modbus.config import ModbusOptions
from bridge.api import Address, Code, LinkError, LinkRefused, OutcomeField, Session, Write

WITHIN_S = 20.0
WRITABLE = ["8..9", {"from": 160, "to": 179, "every": 80, "count": 64}]
STATE = Address("batteries", "0", OutcomeField.STATE)
TIMEOUT_S = 0.2


@asynccontextmanager
async def opened(unit: int, *, on_change: bool = False, **way) -> AsyncIterator[Session]:
    flows = {"flows": {"batteries": copy.deepcopy(read_site(SAMPLE)["flows"]["batteries"])}}
    if on_change:
        flows["flows"]["batteries"]["submit"] = {"when": "change"}
    # A busy machine may take its time to answer. RTU waits as long once when it connects, so it has less.
    timeout = "1500ms" if "serial" in way or way.get("framing") == "rtu" else "10s"
    given = {"unit": unit, "poll": "50ms", "timeout": timeout, "writable": WRITABLE}
    options = ModbusOptions.model_validate({**given, **way})
    context = context_of(options, selections_of(flows))
    async with asyncio.timeout(WITHIN_S), ADAPTER.open(context) as session:
        yield session


async def filled(device: Device, *references: str) -> None:
    await device.put(0, *HEADER)
    for number, reference in enumerate(references):
        await device.put_bytes(100 + 80 * number, record(reference))


async def whole_way(device: Device, session: Session, sequence: int, *references: str) -> None:
    """A request is read and acknowledged, an outcome written and read back."""
    await device.put(SEQUENCE, sequence)
    await device.put(COMMAND, 1)
    async with asyncio.timeout(WITHIN_S):
        (arrival,) = await session.receive()
    assert [item.fields["reference"].value for item in arrival.records] == list(references)
    assert {item.problem for item in arrival.records} == {""}
    arrival.ack(True)
    await device.until(STATUS, 3, 0)
    assert [item.error for item in await session.write([Write(address=STATE, value=Code(3, "x"))])] == [""]
    assert [reading.value for reading in await session.read([STATE])] == [3]
    assert await device.words(160) == [3]
    await device.put(COMMAND, 0)
    await device.until(STATUS, 0, 0)


@asynccontextmanager
async def units(count: int) -> AsyncIterator[tuple[Line, list[Device]]]:
    """A line with so many libmodbus devices on it, numbered from 1; each has two records of its own."""
    async with AsyncExitStack() as stack:
        line = await stack.enter_async_context(serial_line(count))
        devices = []
        for number, drop in enumerate(line.drops, 1):
            device = await stack.enter_async_context(modbus_device())
            await filled(device, f"U{number}A", f"U{number}B")
            await device.order("serial", device=str(drop), unit=number)
            devices.append(device)
        yield line, devices


def on(line: Line) -> dict:
    return {"serial": {"device": str(line.ours), "parity": "N"}}


async def turns_of(devices: list[Device]) -> list[list[float]]:
    """(unit, asked, answered) of all devices, in order of time."""
    turns = [turn for device in devices for turn in (await device.order("stats"))["turns"]]
    return sorted(turns, key=lambda turn: turn[1])


async def keeps_opening(unit: int, **way) -> None:
    """As the core does it for a unit that does not answer, but without its pauses."""
    while True:
        with contextlib.suppress(LinkError):
            async with opened(unit, **way):
                raise AssertionError("the session opened")
        await asyncio.sleep(0.01)


async def test_three_units_on_one_line():
    """Three adapters, one line: each unit's own registers are read and written, one request at a time, with the line's pause after every answer."""
    async with units(3) as (line, devices), AsyncExitStack() as stack:
        sessions = [
            await stack.enter_async_context(opened(number, pause_between_requests=pause, **on(line)))
            for number, pause in enumerate(("0ms", "20ms", "0ms"), 1)
        ]
        before = [len((await device.order("stats"))["turns"]) for device in devices]
        async with asyncio.TaskGroup() as group:
            for number, (device, session) in enumerate(zip(devices, sessions, strict=True), 1):
                group.create_task(whole_way(device, session, 10 * number, f"U{number}A", f"U{number}B"))
        found = [turn for turn in await turns_of(devices) if turn[2] is not None]
    since = found[sum(before) :]
    assert {unit for unit, _, _ in since} == {1, 2, 3}
    assert all(asked - answered >= 0.02 for (_, _, answered), (_, asked, _) in zip(since, since[1:], strict=False))


async def until_asked(devices: list[Device], count: int) -> list[list[float]]:
    """The turns of these devices, once there are so many."""
    async with asyncio.timeout(WITHIN_S):
        while len(turns := await turns_of(devices)) < count:
            await asyncio.sleep(0.02)
    return turns


async def test_a_dead_unit_is_asked_ever_more_seldom():
    """After one and three of its time-outs; the others go on meanwhile, and keep their sessions. (What it costs them: test_bus.py.)"""
    async with units(3) as (line, devices):
        await devices[2].order("mute", on=True)
        async with opened(1, **on(line)) as session, opened(2, **on(line)) as other, asyncio.TaskGroup() as group:
            dead = group.create_task(keeps_opening(3, timeout="200ms", **on(line)))
            asked = [turn[1] for turn in await until_asked([devices[2]], 3)]
            for number, (device, each) in enumerate(((devices[0], session), (devices[1], other)), 1):
                await whole_way(device, each, 7, f"U{number}A", f"U{number}B")
            dead.cancel()
        others = [turn[1] for turn in await turns_of(devices[:2])]
    assert asked[1] - asked[0] >= 1.5 * TIMEOUT_S
    assert asked[2] - asked[1] >= 3.5 * TIMEOUT_S
    assert all(any(before < turn < after for turn in others) for before, after in zip(asked, asked[1:], strict=False))


async def test_a_slow_unit_stands_back():
    """Each answer takes three polls of the other's: it is asked again after four times as long. (What that leaves to the other: test_bus.py.)"""
    async with units(2) as (line, devices), opened(1, **on(line)), opened(2, poll="60min", **on(line)) as slow:
        await devices[1].order("delay", ms=150)
        before = len(await turns_of([devices[1]]))
        for _ in range(3):
            assert [reading.value for reading in await slow.read([STATE])] == [0]
        turns = (await turns_of([devices[1]]))[before:]
    assert len(turns) >= 3
    assert all(answered - asked >= 0.15 for _, asked, answered in turns)
    for (_, asked, answered), (_, again, _) in zip(turns, turns[1:], strict=False):
        assert again - answered >= min(4 * (answered - asked), 2.0) - 0.01


@pytest.mark.parametrize("peer", [LIBMODBUS, JSMODBUS], ids=["libmodbus", "jsmodbus"])
async def test_a_gateway_that_takes_one_client(peer):
    """Two units through one connection; an adapter that does not say `shared` is the second client, and is refused."""
    async with modbus_device(peer) as device, one_at_a_time(device.port) as (port, connections):
        await filled(device, "RK01", "RK02")
        way = {"host": "127.0.0.1", "port": port, "shared": True}
        async with opened(1, **way) as first, opened(2, on_change=True, **way) as second:
            await whole_way(device, first, 1, "RK01", "RK02")
            async with asyncio.timeout(WITHIN_S):
                (arrival,) = await second.receive()
            assert [item.fields["reference"].value for item in arrival.records] == ["RK01", "RK02"]
            assert connections == [1, 0]
            with pytest.raises(LinkError):
                async with opened(3, timeout="1s", **{**way, "shared": False}):
                    raise AssertionError("the session opened")
            assert connections == [1, 1]
            assert [reading.value for reading in await second.read([STATE])] == [3]


async def test_rtu_through_a_gateway_that_takes_one_client():
    """The same with RTU frames over TCP; here each unit has its own registers."""
    async with units(2) as (line, devices), gateway(line.ours, most=1) as port:
        way = {"host": "127.0.0.1", "port": port, "framing": "rtu", "shared": True}
        async with opened(1, **way) as first, opened(2, **way) as second, asyncio.TaskGroup() as group:
            group.create_task(whole_way(devices[0], first, 1, "U1A", "U1B"))
            group.create_task(whole_way(devices[1], second, 9, "U2A", "U2B"))


async def test_what_a_unit_asked_and_got_is_logged_when_its_session_ends(caplog):
    """Each unit has its own counts."""
    caplog.set_level("INFO", "adapters.modbus.link")
    async with modbus_device() as device:
        await filled(device, "RK01", "RK02")
        way = {"host": "127.0.0.1", "port": device.port, "shared": True, "poll": "60min"}
        async with opened(1, **way), opened(2, **way) as second:
            await device.order("busy", times=1)
            await second.read([STATE])
    first, other = sorted(
        (vars(record) for record in caplog.records if record.message == "modbus_unit"), key=lambda told: told["unit"]
    )
    assert (first["unit"], other["unit"]) == (1, 2)
    assert first["requests"] == first["answers"] > 0
    assert (first["exceptions"], other["exceptions"], other["silences"]) == (0, 1, 0)
    assert other["requests"] == other["answers"] > 2


async def test_a_unit_that_falls_silent_loses_its_own_session_alone():
    """And gets it back once it answers again, on the connection that stood all the time."""
    async with modbus_device() as device, one_at_a_time(device.port) as (port, connections):
        await filled(device, "RK01", "RK02")
        way = {"host": "127.0.0.1", "port": port, "shared": True}
        async with opened(1, **way) as well:
            async with opened(2, timeout="1s", **way) as silent:
                await device.order("mute", on=True, unit=2)
                with pytest.raises(LinkError, match="unit 2: .*no answer"):
                    await silent.receive()
            await device.order("mute", on=False, unit=2)
            async with opened(2, **way) as again:
                assert [reading.value for reading in await again.read([STATE])] == [0]
            assert [reading.value for reading in await well.read([STATE])] == [0]
        assert connections == [1, 0]


async def test_a_unit_that_is_long_dead_says_when_it_is_asked_again():
    """An opening that would have to wait for long fails at once, with the reason."""
    async with modbus_device() as device:
        await filled(device, "RK01")
        await device.put(2, 1)
        way = {"host": "127.0.0.1", "port": device.port, "shared": True}
        async with opened(1, **way):
            await device.order("mute", on=True, unit=2)
            for _ in range(2):
                with pytest.raises(LinkError, match="no answer within"):
                    async with opened(2, timeout="10ms", **way):
                        pass
            with pytest.raises(LinkError, match="no answer within"):
                async with opened(2, timeout="1s", **way):  # so the next one is due in nine times that
                    pass
            with pytest.raises(LinkError, match=r"unit 2: no answer, 3 times in a row; asked again in [5-9] s"):
                async with opened(2, **way):
                    pass


async def test_a_cancelled_request_of_one_unit_is_not_the_others_trouble():
    """Its session ends; its answer is waited for, so that it is not taken for another's."""
    async with units(2) as (line, devices):
        async with opened(1, poll="60min", **on(line)) as well, opened(2, poll="60min", **on(line)) as other:
            await devices[1].order("delay", ms=500)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.03):
                    await other.read([STATE])
            with pytest.raises(LinkError, match="cancelled"):
                await other.read([STATE])
            assert [reading.value for reading in await well.read([STATE])] == [0]
        (_, last) = (await turns_of(devices))[-2:]
        assert last[0] == 1
        assert last[1] > (await turns_of([devices[1]]))[-1][2]


def answers(frame: bytes) -> bytes:
    """Unit 2 answers with bytes that are no answer once it was asked for an outcome; everything else is answered with zeros."""
    transaction, _, _, unit, function, start, count = struct.unpack(">HHHBBHH", frame[:12])
    pdu = bytes((function, 2 * count)) + bytes(2 * count)
    if start == 2:
        pdu = b"\x03\x02\x00\x01"  # the count: one record
    if unit == 2 and start == 160:
        pdu = b"\x03\x08\x00"
    return struct.pack(">HHHB", transaction, 0, len(pdu) + 1, unit) + pdu


async def test_nonsense_of_one_unit_does_not_disconnect_the_other():
    """An answer that cannot be read ends that unit's session; the connection stands."""
    site = read_site(SAMPLE)["flows"]["batteries"]
    site["submit"] = {"when": "change"}
    site["records"]["crc"] = None
    site["outcome"] = {"state": {"at": 60, "type": "uint16"}}

    def context(port: int, unit: int):
        options = ModbusOptions.model_validate(
            {"host": "127.0.0.1", "port": port, "unit": unit, "shared": True, "max_gap": 0, "writable": WRITABLE}
        )
        return context_of(options, selections_of({"flows": {"batteries": site}}))

    async with malformed_device(answers) as port, asyncio.timeout(WITHIN_S), ADAPTER.open(context(port, 1)) as well:
        with pytest.raises(LinkError, match="unit 2: register 160: the answer cannot be read"):
            async with ADAPTER.open(context(port, 2)):
                raise AssertionError("the session opened")
        assert [reading.value for reading in await well.read([STATE])] == [0]


async def test_a_connection_on_which_nobody_answers_is_given_up():
    """A gateway that hangs looks like dead units: once all of them are silent the connection is made anew."""
    async with modbus_device() as device, one_at_a_time(device.port) as (port, connections):
        await filled(device, "RK01", "RK02")
        way = {"host": "127.0.0.1", "port": port, "shared": True}
        quick = {**way, "timeout": "1s"}
        async with opened(1, **quick) as first, opened(2, **quick) as second:
            await device.order("mute", on=True)
            for session in (first, second):
                with pytest.raises(LinkError):
                    await session.receive()
        await device.order("mute", on=False)
        async with opened(1, **way) as first, opened(2, **way) as second:
            await whole_way(device, first, 1, "RK01", "RK02")
        assert connections[0] == 2


async def test_a_broken_line_ends_every_session_on_it():
    """The connection is everybody's."""
    async with modbus_device() as device:
        await filled(device, "RK01", "RK02")
        way = {"host": "127.0.0.1", "port": device.port, "shared": True}
        async with opened(1, **way) as first, opened(2, **way) as second:
            await device.order("drop")
            for session in (first, second):
                with pytest.raises(LinkError, match="closed the connection"):
                    await session.receive()
        assert (await device.order("stats"))["connections"] == 1


async def test_who_shares_a_connection_agrees_on_it():
    """Another framing on the same gateway is a mistake of the site file, and says so."""
    async with modbus_device() as device:
        await filled(device, "RK01", "RK02")
        way = {"host": "127.0.0.1", "port": device.port, "shared": True}
        async with opened(1, **way) as session:
            with pytest.raises(LinkRefused, match="in use with other settings by an adapter with unit 1"):
                async with opened(2, framing="rtu", **way):
                    pass
            await session.read([STATE])


async def test_a_gateway_that_says_that_a_unit_does_not_answer_is_believed():
    """Exception 11 took the gateway's time as a silence takes ours: that unit is asked more and more seldom."""
    asked: list[float] = []
    thrice = asyncio.Event()

    def behind(frame: bytes) -> bytes:
        if frame[6] != 2:
            return answers(frame)
        asked.append(asyncio.get_running_loop().time())
        if len(asked) == 3:
            thrice.set()
        return struct.pack(">HHHB", int.from_bytes(frame[:2], "big"), 0, 3, 2) + bytes((frame[7] | 0x80, 11))

    site = read_site(SAMPLE)["flows"]["batteries"]
    site["submit"] = {"when": "change"}
    options = {"host": "127.0.0.1", "shared": True, "writable": WRITABLE}
    async with malformed_device(behind) as port, asyncio.timeout(WITHIN_S):
        one = ModbusOptions.model_validate({**options, "port": port})
        async with ADAPTER.open(context_of(one, selections_of({"flows": {"batteries": site}}))):
            dead = asyncio.create_task(keeps_opening(2, timeout="100ms", port=port, host="127.0.0.1", shared=True))
            await thrice.wait()
            dead.cancel()
            with pytest.raises(asyncio.CancelledError):
                await dead
    assert asked[1] - asked[0] >= 0.09
    assert asked[2] - asked[1] >= 0.29
