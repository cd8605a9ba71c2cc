"""The same device over every transport: a serial line, RTU frames through a gateway, TLS. The peer is libmodbus."""

import asyncio
import copy
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trustme
from modbus_device import Device, modbus_device
from modbus_lines import gateway, serial_line, tls_in_front
from modbus_records import COMMAND, HEADER, SEQUENCE, STATUS, record
from modbus_site import SAMPLE, context_of, read_site, selections_of
from pydantic import ValidationError

from adapters.modbus import ADAPTER
from adapters.modbus.config import ModbusOptions
from bridge.api import Address, Code, LinkError, LinkRefused, OutcomeField, Session, Write

WITHIN_S = 10.0
UNIT = 1
WRITABLE = ["8..9", {"from": 160, "to": 179, "every": 80, "count": 64}]
STATE = Address("batteries", "1", OutcomeField.STATE)
TRANSACTION = Address("batteries", "1", OutcomeField.TRANSACTION_ID)


@pytest.fixture
async def device() -> AsyncIterator[Device]:
    async with modbus_device() as device:
        await device.put(0, *HEADER)
        await device.put_bytes(100, record("RK01"))
        await device.put_bytes(180, record("RK02", kw=-12500))
        yield device


@asynccontextmanager
async def opened(**way) -> AsyncIterator[Session]:
    flows = {"flows": {"batteries": copy.deepcopy(read_site(SAMPLE)["flows"]["batteries"])}}
    options = ModbusOptions.model_validate(
        {"unit": UNIT, "poll": "10ms", "timeout": "500ms", "writable": WRITABLE, **way}
    )
    async with asyncio.timeout(30), ADAPTER.open(context_of(options, selections_of(flows))) as session:
        yield session


async def whole_way(device: Device, session: Session) -> None:
    """A request is read and acknowledged, an outcome written and read back."""
    await device.put(SEQUENCE, 7)
    await device.put(COMMAND, 1)
    async with asyncio.timeout(WITHIN_S):
        (arrival,) = await session.receive()
    assert [item.fields["export_kw"].value for item in arrival.records] == [49500, -12500]
    assert [item.problem for item in arrival.records] == ["", ""]
    arrival.ack(True)
    await device.until(STATUS, 3, 0)
    written = await session.write([Write(address=TRANSACTION, value="a0B"), Write(address=STATE, value=Code(3, "x"))])
    assert [item.error for item in written] == ["", ""]
    assert [reading.value for reading in await session.read([STATE, TRANSACTION])] == [3, "a0B"]
    assert await device.words(240) == [3]


async def test_rtu_on_a_serial_line(device):
    """A pseudo-terminal pair with libmodbus as the device at its other end (pseudo-terminals know no parity)."""
    async with serial_line() as line:
        await device.order("serial", device=str(line.theirs), unit=UNIT)
        async with opened(serial={"device": str(line.ours), "parity": "N"}) as session:
            await whole_way(device, session)


async def test_rtu_through_a_gateway(device):
    """RTU frames over TCP: the gateway hands them on as they are."""
    async with serial_line() as line, gateway(line.ours) as port:
        await device.order("serial", device=str(line.theirs), unit=UNIT)
        async with opened(host="127.0.0.1", port=port, framing="rtu") as session:
            await whole_way(device, session)


async def test_a_silent_line_ends_the_session(device):
    """A device that is not there, or has another unit number, is a lost link on a line too."""
    async with serial_line() as line:
        await device.order("serial", device=str(line.theirs), unit=UNIT + 1)
        with pytest.raises(LinkError, match="no answer"):
            async with opened(serial={"device": str(line.ours), "parity": "N"}):
                pass


GARBAGE = {
    "silence": b"",
    "noise": bytes(range(256)),
    "one byte": b"\x01",
    "a wrong CRC": bytes.fromhex("01 03 02 53 4D 00 00"),
    "another unit": bytes.fromhex("02 03 02 53 4D 00 E1"),
    "an exception with a wrong CRC": bytes.fromhex("01 83 02 00 00"),
    "too few registers": b"\x01\x03\x00\x20\xf0",
}


@pytest.mark.parametrize("answer", GARBAGE.values(), ids=GARBAGE)
async def test_no_answer_breaks_more_than_the_session(answer):
    """Whatever comes back over RTU: the session ends as a lost link, and nothing else happens."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(256):
            writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        with pytest.raises(LinkError):
            async with opened(
                host="127.0.0.1", port=server.sockets[0].getsockname()[1], framing="rtu", timeout="200ms"
            ):
                pass


async def test_a_line_that_is_not_there():
    """The device of the line is named."""
    with pytest.raises(LinkError, match="/dev/no-such-line"):
        async with opened(serial={"device": "/dev/no-such-line"}):
            pass


@pytest.fixture
def authority():
    return trustme.CA()


@pytest.fixture
def ca(authority, tmp_path):
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return str(path)


def server_side(authority: trustme.CA, *, name: str = "127.0.0.1", asks: bool = False) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    if asks:
        authority.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


@pytest.mark.parametrize("piece", [4096, 5], ids=["whole", "in-pieces"])
async def test_tls(device, authority, ca, piece):
    """Modbus TCP inside TLS; an answer that comes in several records is one answer."""
    async with (
        tls_in_front(device.port, server_side(authority), piece=piece) as port,
        opened(host="127.0.0.1", port=port, tls={"ca": ca}) as session,
    ):
        await whole_way(device, session)


async def test_a_device_that_asks_who_we_are(device, authority, ca, tmp_path):
    """With our own certificate it works, without it does not."""
    own = authority.issue_cert("bridge.example")
    own.cert_chain_pems[0].write_to_path(tmp_path / "own.pem")
    own.private_key_pem.write_to_path(tmp_path / "own.key")
    pair = {"certificate": str(tmp_path / "own.pem"), "private_key": str(tmp_path / "own.key")}
    async with tls_in_front(device.port, server_side(authority, asks=True)) as port:
        async with opened(host="127.0.0.1", port=port, tls={"ca": ca, **pair}) as session:
            await whole_way(device, session)
        with pytest.raises(LinkError):
            async with opened(host="127.0.0.1", port=port, tls={"ca": ca}):
                pass


async def test_a_stranger_is_refused(device, authority, ca):
    """Another authority, or another name: nothing is asked and nothing believed."""
    for side in (server_side(trustme.CA()), server_side(authority, name="other.example")):
        async with tls_in_front(device.port, side) as port:
            with pytest.raises(LinkRefused, match="CERTIFICATE_VERIFY_FAILED"):
                async with opened(host="127.0.0.1", port=port, tls={"ca": ca}):
                    pass
    assert (await device.order("stats"))["reads"] == 0


async def test_two_units_behind_one_address(device):
    """One unit stays silent: its own session ends, the other's goes on as if nothing were."""
    await device.order("mute", on=True, unit=9)
    async with opened(host="127.0.0.1", port=device.port) as session:
        async with asyncio.TaskGroup() as group:
            silent = group.create_task(_never_opens(device.port))
            group.create_task(whole_way(device, session))
        assert silent.result()


async def _never_opens(port: int) -> bool:
    with pytest.raises(LinkError, match="unit 9: .*no answer"):
        async with opened(host="127.0.0.1", port=port, unit=9):
            pass
    return True


@pytest.mark.parametrize(
    ("way", "says"),
    [
        ({}, "either `host`"),
        ({"host": "x", "serial": {"device": "/dev/ttyS0"}}, "either `host`"),
        ({"serial": {"device": "/dev/ttyS0"}, "framing": "rtu"}, "leave `framing`"),
        ({"host": "x", "framing": "rtu", "tls": {}}, "no TLS"),
        ({"host": "x", "tls": {"certificate": __file__}}, "belong together"),
        ({"serial": {"device": "/dev/ttyS0", "parity": "X"}}, "parity"),
    ],
)
def test_a_way_that_makes_no_sense_is_refused(way, says):
    """One way to one device, and only what belongs to it."""
    with pytest.raises(ValidationError, match=says):
        ModbusOptions.model_validate(way)


def test_tls_has_its_own_port():
    """802 where none is given, and a port that was given stays."""
    assert ModbusOptions.model_validate({"host": "x", "tls": {}}).port == 802
    assert ModbusOptions.model_validate({"host": "x", "tls": {}, "port": 1502}).port == 1502
    assert ModbusOptions.model_validate({"host": "x"}).port == 502
