"""Answers that no Modbus device should give."""

import asyncio
import contextlib
import random
import struct

import pytest
from modbus_device import crc, malformed_device
from modbus_site import SAMPLE, context_of, options_of, read_site, selections_of

from adapters.modbus import ADAPTER
from bridge.api import Address, Code, LinkError, OutcomeField, Write


def reply(
    frame: bytes, pdu: bytes, *, transaction: int | None = None, unit: int | None = None, length: int | None = None
) -> bytes:
    own, _, _, asked = struct.unpack(">HHHB", frame[:7])
    head = struct.pack(
        ">HHHB",
        own if transaction is None else transaction,
        0,
        len(pdu) + 1 if length is None else length,
        asked if unit is None else unit,
    )
    return head + pdu


def short(frame: bytes) -> bytes:
    return reply(frame, b"\x03\x02\x00\x01")


def none_at_all(frame: bytes) -> bytes:
    return reply(frame, b"\x03\x00")


def too_long(frame: bytes) -> bytes:
    count = int.from_bytes(frame[10:12], "big") + 1
    return reply(frame, bytes((3, 2 * count)) + bytes(2 * count))


def cut(frame: bytes) -> bytes:
    return reply(frame, b"\x03\x08\x00\x01")


def another_function(frame: bytes) -> bytes:
    return reply(frame, bytes((4, 2)) + bytes(2))


def another_unit(frame: bytes) -> bytes:
    count = int.from_bytes(frame[10:12], "big")
    return reply(frame, bytes((3, 2 * count)) + bytes(2 * count), unit=9)


def another_transaction(frame: bytes) -> bytes:
    count = int.from_bytes(frame[10:12], "big")
    return reply(frame, bytes((3, 2 * count)) + bytes(2 * count), transaction=0xFFF0)


def garbage(frame: bytes) -> bytes:
    return b"HTTP/1.1 400 Bad Request\r\n\r\n"


def silent(frame: bytes) -> None:
    return None


def hangs_up(frame: bytes) -> bytes:
    return b""


def unknown_function(frame: bytes) -> bytes:
    return reply(frame, b"\x55\x00\x00")


ANSWERS = [
    short,
    none_at_all,
    too_long,
    cut,
    another_function,
    another_unit,
    another_transaction,
    garbage,
    silent,
    hangs_up,
    unknown_function,
]


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: answer.__name__)
async def test_a_wrong_answer_ends_the_attempt(answer):
    """Whatever comes back that is not the answer to the question is a lost link, within the time-out, and never data."""
    site = read_site(SAMPLE)
    async with malformed_device(answer) as port:
        options = options_of(site, port=port, timeout="200ms", poll="10ms")
        with pytest.raises(LinkError):
            async with ADAPTER.open(context_of(options, selections_of(site))):
                raise AssertionError("the session opened")


def drawn(chance: random.Random, frame: bytes) -> bytes:
    """An answer that nobody would think of: any function, any length, now and then a right header or a right checksum around it."""
    pdu = bytes([chance.choice([1, 2, 3, 4, 5, 6, 15, 16, 0x83, 0x90, chance.randrange(256)])])
    pdu += chance.randbytes(chance.choice([0, 1, 2, 5, chance.randrange(250)]))
    whole = bytes([frame[6] if len(frame) > 6 else frame[0]]) + pdu
    return chance.choice(
        [
            lambda: reply(frame, pdu) if len(frame) > 7 else whole + crc(whole),
            lambda: reply(frame, pdu, length=chance.randrange(65536)) if len(frame) > 7 else whole + bytes(2),
            lambda: whole + crc(whole),
            lambda: chance.randbytes(chance.randrange(1, 300)),
        ]
    )()


@pytest.mark.parametrize("framing", ["tcp", "rtu"])
@pytest.mark.parametrize("seed", range(6))
async def test_drawn_answers_never_break_more_than_the_session(seed, framing):
    """Whatever comes back, in either framing: a lost link, never another error, and never a session on top of it."""
    chance = random.Random(seed)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while frame := await reader.read(512):
                writer.write(drawn(chance, frame))
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        options = options_of(read_site(SAMPLE), port=port, timeout="150ms", poll="10ms", framing=framing)
        for _ in range(3):
            with pytest.raises(LinkError):
                async with ADAPTER.open(context_of(options, selections_of(read_site(SAMPLE)))):
                    raise AssertionError("the session opened")


def to_writes(pdu: bytes):
    """A device of zeros whose answer to any write is this."""

    def answer(frame: bytes) -> bytes:
        function, count = frame[7], int.from_bytes(frame[10:12], "big")
        if function == 3:
            data = b"\0\1" if frame[8:10] == b"\0\2" else bytes(2 * count)  # register 2 counts one record
            return reply(frame, bytes((3, len(data))) + data)
        return reply(frame, bytes([function]) + pdu)

    return answer


@pytest.mark.parametrize("function", [6, 16])
@pytest.mark.parametrize(
    "pdu", ["00A1 0001", "00A0 0007", "00A0"], ids=["another address", "another number", "cut short"]
)
async def test_a_write_that_is_answered_wrongly_ends_the_session(pdu, function):
    """What was written is not known then, so nothing is reported as written."""
    site = read_site(SAMPLE)
    del site["flows"]["unit"]
    site["flows"]["batteries"]["records"]["crc"] = None
    async with malformed_device(to_writes(bytes.fromhex(pdu))) as port:
        options = options_of(
            site,
            port=port,
            timeout="200ms",
            poll="60min",
            write_function=function,
            magic=None,
            version=None,
            heartbeat=None,
        )
        async with asyncio.timeout(30), ADAPTER.open(context_of(options, selections_of(site))) as session:
            with pytest.raises(LinkError):
                await session.write([Write(address=Address("batteries", "0", OutcomeField.STATE), value=Code(1, "x"))])


@pytest.mark.parametrize("pdu", [b"\x04\x02\x00\x00", b"\x84\x02"], ids=["registers", "an exception"])
async def test_an_answer_to_another_function_ends_the_session(pdu):
    """Though it is as long as it should be: input registers are not holding registers, and another request's refusal says nothing of this one."""
    site = read_site(SAMPLE)
    del site["flows"]["unit"]
    site["flows"]["batteries"]["records"]["crc"] = None

    def answer(frame: bytes) -> bytes:
        return reply(frame, pdu) if frame[8:10] == b"\x00\xa0" else to_writes(b"")(frame)

    async with malformed_device(answer) as port:
        options = options_of(site, port=port, poll="60min", max_gap=0, magic=None, version=None, heartbeat=None)
        with pytest.raises(LinkError, match="registers 160.*: asked with function 3, answered with"):
            async with asyncio.timeout(30), ADAPTER.open(context_of(options, selections_of(site))):
                raise AssertionError("the session opened")


@pytest.mark.parametrize("bits", [b"", b"\0\0"], ids=["none", "too many"])
async def test_bits_of_another_number_end_the_attempt(bits):
    """One bit was asked for: one byte is the answer, no more and no less."""
    site = read_site(SAMPLE)
    del site["flows"]["unit"]
    site["flows"]["batteries"]["records"] |= {"crc": None, "each": {"base": 100}}
    site["flows"]["batteries"]["submit"] = {"when": "request", "request": {"at": 6, "table": "coils"}}

    def answer(frame: bytes) -> bytes:
        if frame[7] == 1:
            return reply(frame, bytes((1, len(bits))) + bits)
        return to_writes(b"")(frame)

    async with malformed_device(answer) as port:
        options = options_of(site, port=port, timeout="200ms", poll="10ms", magic=None, version=None, heartbeat=None)
        async with asyncio.timeout(30), ADAPTER.open(context_of(options, selections_of(site))) as session:
            with pytest.raises(LinkError, match="coil 6|bits from 6"):
                await session.receive()
