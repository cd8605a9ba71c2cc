"""Answers that no Modbus device should give."""

import asyncio
import contextlib
import random
import struct

import pytest
from modbus_device import malformed_device
from modbus_site import SAMPLE, context_of, options_of, read_site, selections_of

from adapters.modbus import ADAPTER
from bridge.api import LinkError


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


def crc(data: bytes) -> bytes:
    value = 0xFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value >> 1) ^ 0xA001 if value & 1 else value >> 1
    return struct.pack("<H", value)


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
