"""Layout 2 as bytes, for devices in tests; independent of the adapter's own codec."""

import struct

HEADER = (0x534D, 0x0102, 2, 80, 100, 0, 0, 0, 0, 0)
COMMAND, SEQUENCE, STATUS, ERROR = 6, 7, 8, 9


def crc(data: bytes) -> int:
    value = 0xFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value >> 1) ^ 0xA001 if value & 1 else value >> 1
    return value


def record(
    reference: str,
    *,
    name: str = "North Yard Battery 001",
    mpan: str = "1012345678903",
    kw: int = 49500,
    postcode: str = "IP1 2AB",
) -> bytes:
    """Registers +0 to +49 of one asset."""
    body = struct.pack(
        ">32s14s8s2sHHiiIIH",
        name.encode(), mpan.encode(), postcode.encode(), b"_A", 0, 330, kw, kw, 99000, 1795392000, 0,
    )  # fmt: skip
    tail = reference.encode().ljust(20, b"\0")
    return body + struct.pack(">H", crc(body + tail)) + tail


def unit(reference: str, numbers: tuple[int, ...]) -> bytes:
    """Registers +0 to +34 of the unit block."""
    bits = [sum(1 << number % 16 for number in numbers if number // 16 == word) for word in range(4)]
    return struct.pack(">32s4si2s4H20s", b"Unit 1", b"DC", 99000, b"_A", *bits, reference.encode())
