"""The alarm word in a register of a libmodbus device, and where it may stand."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from modbus_device import modbus_device
from modbus_records import HEADER, record, unit
from modbus_site import SAMPLE, context_of, options_of, read_site, selections_of

from adapters.modbus import ADAPTER
from bridge.api import AlarmWord, WordSession

WRITABLE = ["8..9", "20", {"from": 160, "to": 179, "every": 80, "count": 64}, "6060..6079"]
FAST = {"poll": "10ms", "heartbeat": None, "busy_pause": "10ms", "timeout": "500ms", "writable": WRITABLE}


@asynccontextmanager
async def opened(device, register=20, **changes):
    site = read_site(SAMPLE)
    options = options_of(site, port=device.port, **{**FAST, **changes})
    context = context_of(options, selections_of(site))._replace(word=ADAPTER.word(register=register))
    async with asyncio.timeout(20), ADAPTER.open(context) as session:
        yield session


@pytest.fixture
async def device():
    async with modbus_device() as device:
        await device.put(0, *HEADER)
        await device.put_bytes(100, record("RK01"))
        await device.put_bytes(6000, unit("UNIT01", (0,)))
        yield device


def word(bits):
    return AlarmWord(bits=bits, words=(), at_ns=0)


async def test_all_sixteen_bits(device):
    """Written, read back, and back to none."""
    async with opened(device) as session:
        assert isinstance(session, WordSession)
        assert await session.write_word(word(0x8001)) == ""
        assert await device.words(20) == [0x8001]
        assert await session.write_word(word(0)) == ""
        assert await device.words(20) == [0]


async def test_what_the_device_refuses_is_a_text(device):
    """The session goes on: outcomes need it."""
    async with opened(device) as session:
        await device.order("refuse", **{"from": 20, "to": 20})
        assert "exception 2" in await session.write_word(word(1))
        assert "outside `writable:`" in await (_elsewhere(session)).write_word(word(1))
        assert [reading.value for reading in await session.read([])] == []


def _elsewhere(session):
    session._context = session._context._replace(word=ADAPTER.word(register=21))
    return session


@pytest.mark.parametrize(
    ("register", "said"),
    [
        (20, ""),
        (21, "register 21 is outside `writable:`"),
        (8, "is part of the handshake of the flow batteries"),
        (162, "is inside a record of the flow batteries"),
        (6060, "is inside a record of the flow unit"),
    ],
)
def test_checked_beside_the_flows(register, said):
    """Inside `writable:`, and nobody else's register."""
    site = read_site(SAMPLE)
    options = options_of(site, writable=WRITABLE)
    found = [
        problem.text for problem in ADAPTER.check_word(options, selections_of(site), ADAPTER.word(register=register))
    ]
    assert (found == []) if not said else any(said in text for text in found)
