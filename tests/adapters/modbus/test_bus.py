"""A connection that several units share: how its time is divided, in virtual time, and what becomes of silent and late answers, against raw peers."""

import asyncio
import contextlib
import statistics
import struct
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest
from modbus_device import crc
from pymodbus.exceptions import ModbusException, ModbusIOException
from virtual_time import in_virtual_time

from adapters.modbus import bus as bus_module
from adapters.modbus.bus import Bus
from adapters.modbus.config import ModbusOptions
from adapters.modbus.schedule import Schedule
from bridge.api import LinkError
from bridge.clock import SystemClock

CLOCK = SystemClock.here()
POLL_S = 0.05
TIMEOUT_S = 0.2
ANSWER = SimpleNamespace(isError=lambda: False)


def options(unit, **changes):
    given = {"host": "127.0.0.1", "port": 1, "shared": True, "unit": unit, "poll": "50ms", "timeout": "200ms"}
    return ModbusOptions.model_validate({**given, **changes})


# how the time is divided ---------------------------------------------------------------------------------------------


class Line:
    """A connection without a wire: each unit answers after so many seconds, or never (None). `turns` are (unit, asked, over)."""

    def __init__(self, takes_s):
        self.takes_s = takes_s
        self.turns = []
        self.spacings = {unit: [] for unit in takes_s}
        self.bus = Bus(options(1), CLOCK)

    async def ask(self, unit):
        loop = asyncio.get_running_loop()
        began, takes_s = loop.time(), self.takes_s[unit]
        await asyncio.sleep(TIMEOUT_S if takes_s is None else takes_s)
        self.turns.append((unit, began, loop.time()))
        if takes_s is None:
            raise ModbusIOException("no answer")
        return ANSWER

    async def polls(self, unit):
        """One adapter, as the core runs it but without its pauses: a session after the other, each polling by its schedule."""
        loop = asyncio.get_running_loop()
        while True:
            schedule = Schedule(int(loop.time() * 1e9), POLL_S)
            member = self.bus.join(options(unit), lambda _: None)
            with contextlib.suppress(LinkError, ModbusException):
                await self.bus.open(member)
                while True:
                    await asyncio.sleep(schedule.wait_s(int(loop.time() * 1e9)))
                    spacing = schedule.begin(int(loop.time() * 1e9))
                    if spacing is not None:
                        self.spacings[unit].append(spacing)
                    await self.bus.exchange(member, lambda: self.ask(unit))
                    schedule.end(int(loop.time() * 1e9))
            self.bus.leave(member)
            await asyncio.sleep(0.01)


@pytest.fixture
def divided(monkeypatch):
    """What becomes of a line's time in so many seconds of it."""

    async def nobody(*_):
        async def connect():
            return True

        parameters = SimpleNamespace(timeout_connect=0.0)
        return SimpleNamespace(connect=connect, close=lambda: None, ctx=SimpleNamespace(comm_params=parameters))

    async def run(takes_s, seconds):
        line = Line(takes_s)
        polling = [asyncio.create_task(line.polls(unit)) for unit in takes_s]
        await asyncio.sleep(seconds)
        for task in polling:
            task.cancel()
        await asyncio.wait(polling)
        return line

    monkeypatch.setattr(bus_module, "client_of", nobody)
    return lambda takes_s, seconds: in_virtual_time(run(takes_s, seconds))


def test_a_dead_unit_takes_a_tenth_of_the_line_at_most(divided):
    """It is asked once, then after one, three, nine time-outs, ever again; the others keep their poll period and their sessions."""
    line = divided({1: 0.003, 2: 0.003, 3: None}, 60)
    asked = [(began, over) for unit, began, over in line.turns if unit == 3]
    rests = [(began - over) / TIMEOUT_S for (_, over), (began, _) in zip(asked, asked[1:], strict=False)]
    assert rests[:4] == pytest.approx([1, 3, 9, 9], abs=0.2)
    assert sum(over - began for began, over in asked) < 0.105 * 60 + TIMEOUT_S
    for unit in (1, 2):
        assert statistics.median(line.spacings[unit]) == pytest.approx(POLL_S)
        assert max(line.spacings[unit]) < TIMEOUT_S + 2 * POLL_S
        assert len(line.spacings[unit]) > 0.9 * 60 / POLL_S - len(asked)


def test_a_slow_unit_takes_a_fifth_of_the_line(divided):
    """Each of its answers takes three polls of the other's: it stands back, and the other's period stays."""
    line = divided({1: 0.003, 2: 0.15}, 60)
    share = sum(over - began for unit, began, over in line.turns if unit == 2) / 60
    assert share == pytest.approx(0.2, abs=0.01)
    assert statistics.median(line.spacings[1]) == pytest.approx(POLL_S)
    assert max(line.spacings[1]) < 0.15 + 2 * POLL_S


def test_equals_share_the_line_equally(divided):
    """Three units that together want more than there is: nobody gets more than the others."""
    line = divided({1: 0.024, 2: 0.024, 3: 0.024}, 60)
    counts = [sum(turn[0] == unit for turn in line.turns) for unit in (1, 2, 3)]
    assert max(counts) - min(counts) <= 3  # the first to come and the last to go
    assert sum(counts) * 0.024 > 0.95 * 60


# silent and late answers ---------------------------------------------------------------------------------------------


class Peer:
    """RTU frames over TCP from a device that says nothing by itself: `asked` are the addresses of its requests."""

    def __init__(self):
        self.asked = asyncio.Queue()
        self.connections = 0
        self._writers = []

    async def serve(self, reader, writer):
        self.connections += 1
        self._writers.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while frame := await reader.readexactly(8):
                self.asked.put_nowait(int.from_bytes(frame[2:4], "big"))

    def answer(self, unit, *words):
        body = struct.pack(f">BBB{len(words)}H", unit, 3, 2 * len(words), *words)
        self._writers[-1].write(body + crc(body))

    def close(self):
        for writer in self._writers:
            writer.close()


@asynccontextmanager
async def rtu_peer():
    peer = Peer()
    server = await asyncio.start_server(peer.serve, "127.0.0.1", 0)
    async with server:
        try:
            yield peer, {"port": server.sockets[0].getsockname()[1], "framing": "rtu"}
        finally:
            peer.close()


def reading(bus, unit, address):
    return lambda: bus.client.read_holding_registers(address, count=1, device_id=unit)


async def test_a_late_answer_to_a_cancelled_request_is_nobody_s():
    """An RTU frame has no number: asked too early, the same unit's next request would take the late answer for its own."""
    async with rtu_peer() as (peer, way), asyncio.timeout(20):
        bus = Bus(options(1, **way), CLOCK)
        first, second = (bus.join(options(1, timeout="1s", **way), lambda _: None) for _ in range(2))
        await bus.open(first)
        cancelled = asyncio.create_task(bus.exchange(first, reading(bus, 1, 7)))
        assert await peer.asked.get() == 7
        cancelled.cancel()
        await asyncio.wait([cancelled])
        bus.leave(first)
        after = asyncio.create_task(bus.exchange(second, reading(bus, 1, 9)))
        for _ in range(10):  # were it not held back, it would be on the line by now
            await asyncio.sleep(0.005)
        peer.answer(1, 777)
        assert peer.asked.empty()
        assert await peer.asked.get() == 9
        peer.answer(1, 999)
        assert (await after).registers == [999]
        bus.leave(second)


async def test_a_cancellation_that_meets_the_answer_is_not_lost():
    """Python 3.11's `wait_for`, which the library waits in, then returns the answer: a session that is told to end would poll for ever."""
    async with rtu_peer() as (peer, way), asyncio.timeout(20):
        bus = Bus(options(1, **way), CLOCK)
        member = bus.join(options(1, timeout="500ms", **way), lambda _: None)
        await bus.open(member)

        answer = asyncio.get_running_loop().create_future()
        asking = asyncio.create_task(bus.exchange(member, lambda: asyncio.wait_for(answer, 10)))
        await asyncio.sleep(0.01)
        answer.set_result(ANSWER)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        following = asyncio.create_task(bus.exchange(member, reading(bus, 1, 8)))
        assert await peer.asked.get() == 8  # its turn is over
        peer.answer(1, 6)
        assert (await following).registers == [6]
        bus.leave(member)


async def test_a_cancellation_that_meets_the_connection_is_not_lost(monkeypatch):
    """The library waits for the connection in the same way: what is told to end would poll for ever."""
    async with rtu_peer() as (_, way), asyncio.timeout(20):
        loop = asyncio.get_running_loop()
        connect = loop.create_connection

        async def meeting(*args, **named):
            made = await connect(*args, **named)
            opening.cancel()
            return made

        monkeypatch.setattr(loop, "create_connection", meeting)
        given = options(1, **{**way, "framing": "tcp"})
        bus = Bus(given, CLOCK)
        member = bus.join(given, lambda _: None)
        opening = asyncio.create_task(bus.open(member))
        await asyncio.wait({opening})
        assert opening.cancelled(), "the cancellation was lost"
        bus.leave(member)


async def test_a_connection_on_which_every_unit_is_silent_is_given_up_although_one_has_come_back():
    """Sessions come again one by one, so that somebody is always there: without this a gateway that hangs would never be connected anew."""
    async with rtu_peer() as (_, way), asyncio.timeout(20):
        quick, told = {**way, "timeout": "200ms"}, []
        bus = Bus(options(1, **quick), CLOCK)
        first, second = bus.join(options(1, **quick), told.append), bus.join(options(2, **quick), told.append)
        await bus.open(first)
        with pytest.raises(ModbusIOException):
            await bus.exchange(first, reading(bus, 1, 7))
        bus.leave(first)
        assert not bus.ended  # unit 2 may be well
        again = bus.join(options(1, **quick), told.append)
        with pytest.raises(ModbusIOException):
            await bus.exchange(second, reading(bus, 2, 7))
        assert told == []
        bus.leave(second)
        assert told == ["no unit answers any more"]
        assert bus.ended
        bus.leave(again)


async def test_a_connection_on_which_one_unit_answers_is_kept():
    """One that is silent says nothing of the line once another has answered, whoever leaves."""
    async with rtu_peer() as (peer, way), asyncio.timeout(20):
        quick = {**way, "timeout": "20ms"}
        bus = Bus(options(1, **quick), CLOCK)
        first, second = bus.join(options(1, **quick), lambda _: None), bus.join(options(2, **way), lambda _: None)
        await bus.open(second)  # which has more time for it than the one that is to be silent
        with pytest.raises(ModbusIOException):
            await bus.exchange(first, reading(bus, 1, 7))
        await peer.asked.get()
        answered = asyncio.create_task(bus.exchange(second, reading(bus, 2, 8)))
        assert await peer.asked.get() == 8
        peer.answer(2, 5)
        assert (await answered).registers == [5]
        bus.leave(second)
        assert not bus.ended
        bus.leave(first)
        assert bus.ended
