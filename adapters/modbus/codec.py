"""Registers to values and back, by tables. Pure: bytes in, values out, no idea of where they came from.

Registers are handled as their big-endian bytes, two each. A byte order is spelled by where the letters of the value stand on the wire:
`ABCD` is big-endian, `CDAB` has its words swapped, `BADC` its bytes, `DCBA` both.
"""

import enum
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Final

PADS: Final = "\0 "
BITS: Final = 16


class Kind(enum.Enum):
    """What registers hold, spelled as in `type:`."""

    INT16 = "int16"
    UINT16 = "uint16"
    INT32 = "int32"
    UINT32 = "uint32"
    INT64 = "int64"
    UINT64 = "uint64"
    FLOAT32 = "float32"
    FLOAT64 = "float64"
    STRING = "string"
    EPOCH32 = "epoch32"
    BIT = "bit"
    BITSET = "bitset"


_NUMBERS: Final[Mapping[Kind, struct.Struct]] = {
    Kind.INT16: struct.Struct(">h"),
    Kind.UINT16: struct.Struct(">H"),
    Kind.INT32: struct.Struct(">i"),
    Kind.UINT32: struct.Struct(">I"),
    Kind.INT64: struct.Struct(">q"),
    Kind.UINT64: struct.Struct(">Q"),
    Kind.FLOAT32: struct.Struct(">f"),
    Kind.FLOAT64: struct.Struct(">d"),
}
_FLOATS: Final = frozenset({Kind.FLOAT32, Kind.FLOAT64})
_EPOCH: Final = _NUMBERS[Kind.UINT32]

# Registers of the kinds whose width is fixed; text and bit sets say their own.
WIDTHS: Final[Mapping[Kind, int]] = {
    **{kind: number.size // 2 for kind, number in _NUMBERS.items()},
    Kind.EPOCH32: 2,
    Kind.BIT: 1,
}

# The orders that exist for a value of so many registers; the first is the default. Each is its own inverse.
ORDERS: Final[Mapping[int, tuple[str, ...]]] = {
    1: ("AB", "BA"),
    2: ("ABCD", "DCBA", "BADC", "CDAB"),
    4: ("ABCDEFGH", "HGFEDCBA", "BADCFEHG", "GHEFCDAB"),
}
_PLACES: Final[Mapping[str, tuple[int, ...]]] = {
    order: tuple(order.index(letter) for letter in sorted(order)) for orders in ORDERS.values() for order in orders
}


class Undecodable(Exception):
    """These registers hold no value of this kind; the text says what they hold."""


class Unencodable(Exception):
    """This value has no form of this kind; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How a value lies in its registers. `order` is one of `ORDERS`, for text `AB` or `BA` in each register; `bit` counts from the least significant."""

    kind: Kind
    registers: int
    order: str = ""
    bit: int = 0


def orders_of(kind: Kind) -> tuple[str, ...]:
    """The byte orders that this kind can have; none for bits, which are counted by value."""
    if kind is Kind.STRING:
        return ORDERS[1]
    return ORDERS[WIDTHS[kind]] if kind in WIDTHS and kind is not Kind.BIT else ()


@cache
def decoder(shape: Shape) -> Callable[[bytes], object]:
    """What turns these registers into their value: int, float, text, an aware UTC date-time, a bool, or the numbers of the bits that are set.

    What is made raises `Undecodable`. NaN and the infinities are values.
    """
    read = _reader(shape)
    places = _PLACES.get(shape.order)
    if places is None or list(places) == sorted(places):
        return read
    return lambda data: read(_reorder(data, shape.order))


def _reader(shape: Shape) -> Callable[[bytes], object]:
    """The same for bytes in big-endian order."""
    number = _NUMBERS.get(shape.kind)
    if number is not None:
        unpack = number.unpack
        return lambda data: unpack(data)[0]
    if shape.kind is Kind.STRING:
        return _decode_text
    if shape.kind is Kind.EPOCH32:
        return lambda data: datetime.fromtimestamp(_EPOCH.unpack(data)[0], UTC)
    if shape.kind is Kind.BIT:
        return lambda data: bool(int.from_bytes(data, "big") >> shape.bit & 1)
    return _decode_bits


def decode(shape: Shape, data: bytes) -> object:
    """The value in these registers, as `decoder` reads it. Raises `Undecodable`."""
    return decoder(shape)(data)


def encode(shape: Shape, value: object) -> bytes:
    """The registers that hold this value; text is padded with NUL. Raises `Unencodable`, also for text that is too long.

    A single bit has no registers of its own: see `with_bit`.
    """
    if shape.kind in _NUMBERS:
        data = _encode_number(shape.kind, value)
    elif shape.kind is Kind.STRING:
        data = _encode_text(value, 2 * shape.registers)
    elif shape.kind is Kind.EPOCH32:
        data = _encode_epoch(value)
    elif shape.kind is Kind.BITSET:
        data = _encode_bits(value, shape.registers)
    else:
        raise Unencodable("a single bit shares its register")
    return _reorder(data, shape.order)


def with_bit(shape: Shape, register: bytes, value: object) -> bytes:
    """This register with one bit set or cleared."""
    mask = 1 << shape.bit
    word = int.from_bytes(register, "big")
    return (word | mask if value else word & ~mask).to_bytes(2, "big")


def blank(data: bytes) -> bool:
    """Whether registers hold nothing but zeros or padding."""
    return not data.strip(PADS.encode("ascii"))


def crc16(data: bytes) -> int:
    """CRC-16/MODBUS (polynomial 8005 reflected, start FFFF); its check value over `123456789` is 4B37."""
    crc = 0xFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC[(crc ^ byte) & 0xFF]
    return crc


def _crc_entry(index: int) -> int:
    for _ in range(8):
        index = index >> 1 ^ (0xA001 if index & 1 else 0)
    return index


_CRC: Final = tuple(_crc_entry(index) for index in range(256))


def _reorder(data: bytes, order: str) -> bytes:
    """Between wire order and big-endian, either way; a short order is repeated over the data."""
    places = _PLACES.get(order)
    if places is None or order in {"AB", "ABCD", "ABCDEFGH"}:
        return data
    size = len(places)
    return bytes(data[start + place] for start in range(0, len(data), size) for place in places)


def _decode_text(data: bytes) -> str:
    try:
        return data.decode("ascii").rstrip(PADS)
    except UnicodeDecodeError as error:
        raise Undecodable(f"text holds the byte {data[error.start]:02X}, which is not ASCII") from None


def _decode_bits(data: bytes) -> tuple[int, ...]:
    words: Sequence[int] = struct.unpack(f">{len(data) // 2}H", data)
    return tuple(BITS * index + bit for index, word in enumerate(words) for bit in range(BITS) if word >> bit & 1)


def _encode_number(kind: Kind, value: object) -> bytes:
    if not isinstance(value, int | float):
        raise Unencodable(f"{type(value).__name__} is no number")
    if kind not in _FLOATS:
        if isinstance(value, float) and not value.is_integer():
            raise Unencodable(f"{value!r} is no whole number")
        value = int(value)
    try:
        return _NUMBERS[kind].pack(value)
    except (struct.error, OverflowError):
        raise Unencodable(f"{value!r} does not fit {kind.value}") from None


def _encode_text(value: object, size: int) -> bytes:
    if not isinstance(value, str):
        raise Unencodable(f"{type(value).__name__} is no text")
    try:
        data = value.encode("ascii")
    except UnicodeEncodeError:
        raise Unencodable("text holds characters that are not ASCII") from None
    if len(data) > size:
        raise Unencodable(f"text of {len(data)} characters does not fit {size}")
    return data.ljust(size, b"\0")


def _encode_epoch(value: object) -> bytes:
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise Unencodable(f"{value!r} is no date-time with a zone")
    return _encode_number(Kind.UINT32, int(value.timestamp()))


def _encode_bits(value: object, registers: int) -> bytes:
    if not isinstance(value, Iterable):
        raise Unencodable(f"{type(value).__name__} is no list of numbers")
    words = [0] * registers
    for number in value:
        if not isinstance(number, int) or not 0 <= number < BITS * registers:
            raise Unencodable(f"{number!r} is no bit of {BITS * registers}")
        words[number // BITS] |= 1 << number % BITS
    return struct.pack(f">{registers}H", *words)
