"""Registers to values and back, by tables. Pure: bytes in, values out, no idea of where they came from.

Registers are handled as their bytes on the wire, two each. A byte order is spelled by where the letters of the value stand on the wire:
`ABCD` is big-endian, `CDAB` has its words swapped, `BADC` its bytes, `DCBA` both.
"""

import enum
import math
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Final

from adapters.modbus.dates import Unfit, from_48, from_64, to_48, to_64

PADS: Final = "\0 "
BITS: Final = 16


class Kind(enum.Enum):
    """What registers hold, spelled as in `type:`. `l` and `h` are the low and the high byte of one register."""

    BIT = "bit"
    INT8L = "int8l"
    INT8H = "int8h"
    UINT8L = "uint8l"
    UINT8H = "uint8h"
    INT16 = "int16"
    UINT16 = "uint16"
    INT32 = "int32"
    UINT32 = "uint32"
    INT64 = "int64"
    UINT64 = "uint64"
    FLOAT16 = "float16"
    FLOAT32 = "float32"
    FLOAT64 = "float64"
    STRING = "string"
    BCD16 = "bcd16"
    BCD32 = "bcd32"
    EPOCH32 = "epoch32"
    DATETIME48 = "datetime48"
    DATETIME64 = "datetime64"
    BITSET = "bitset"


_NUMBERS: Final[Mapping[Kind, struct.Struct]] = {
    Kind.INT16: struct.Struct(">h"),
    Kind.UINT16: struct.Struct(">H"),
    Kind.INT32: struct.Struct(">i"),
    Kind.UINT32: struct.Struct(">I"),
    Kind.INT64: struct.Struct(">q"),
    Kind.UINT64: struct.Struct(">Q"),
    Kind.FLOAT16: struct.Struct(">e"),
    Kind.FLOAT32: struct.Struct(">f"),
    Kind.FLOAT64: struct.Struct(">d"),
}
_EPOCH: Final = _NUMBERS[Kind.UINT32]
_BCD: Final[Mapping[Kind, int]] = {Kind.BCD16: 2, Kind.BCD32: 4}
_BYTES: Final[Mapping[Kind, tuple[int, bool]]] = {  # where the byte begins, and whether it has a sign
    Kind.INT8L: (0, True),
    Kind.INT8H: (8, True),
    Kind.UINT8L: (0, False),
    Kind.UINT8H: (8, False),
}

FLOATS: Final = frozenset({Kind.FLOAT16, Kind.FLOAT32, Kind.FLOAT64})
UNSIGNED: Final = frozenset({Kind.UINT16, Kind.UINT32, Kind.UINT64})
INTEGERS: Final = frozenset({*_NUMBERS, *_BCD, *_BYTES} - FLOATS)
MOMENTS: Final = frozenset({Kind.EPOCH32, Kind.DATETIME48, Kind.DATETIME64})
LOCAL: Final = frozenset({Kind.DATETIME48, Kind.DATETIME64})
"""Date-times that say nothing of their zone."""

# Registers of the kinds whose width is fixed; text and bit sets say their own.
WIDTHS: Final[Mapping[Kind, int]] = {
    **{kind: number.size // 2 for kind, number in _NUMBERS.items()},
    **{kind: size // 2 for kind, size in _BCD.items()},
    **dict.fromkeys(_BYTES, 1),
    Kind.EPOCH32: 2,
    Kind.DATETIME48: 3,
    Kind.DATETIME64: 4,
    Kind.BIT: 1,
}

# The orders that exist for a value of so many registers; the first is the default. Each is its own inverse.
ORDERS: Final[Mapping[int, tuple[str, ...]]] = {
    1: ("AB", "BA"),
    2: ("ABCD", "DCBA", "BADC", "CDAB"),
    4: ("ABCDEFGH", "HGFEDCBA", "BADCFEHG", "GHEFCDAB"),
}
_BY_REGISTER: Final = frozenset({Kind.STRING, Kind.BITSET, Kind.DATETIME48, Kind.DATETIME64})


def _bytes_swapped(data: bytes) -> bytes:
    swapped = bytearray(data)
    swapped[::2], swapped[1::2] = data[1::2], data[::2]
    return bytes(swapped)


def _words_swapped(data: bytes) -> bytes:
    return data[2:] + data[:2] if len(data) == 4 else _bytes_swapped(data[::-1])


# From the wire to big-endian, and back: each way is its own inverse. What is big-endian already is not listed.
_NATIVE: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    "BA": _bytes_swapped,
    "BADC": _bytes_swapped,
    "BADCFEHG": _bytes_swapped,
    "CDAB": _words_swapped,
    "GHEFCDAB": _words_swapped,
    "DCBA": lambda data: data[::-1],
    "HGFEDCBA": lambda data: data[::-1],
}

# What means "not implemented", as big-endian bytes (SunSpec Device Information Model Specification, "Point types"). Any NaN counts for a float,
# and text of NULs is empty anyway.
SUNSPEC_MISSING: Final[Mapping[Kind, bytes]] = {
    Kind.INT16: bytes.fromhex("8000"),
    Kind.UINT16: bytes.fromhex("FFFF"),
    Kind.INT32: bytes.fromhex("80000000"),
    Kind.UINT32: bytes.fromhex("FFFFFFFF"),
    Kind.INT64: bytes.fromhex("8000000000000000"),
    Kind.UINT64: bytes.fromhex("FFFFFFFFFFFFFFFF"),
    Kind.FLOAT32: bytes.fromhex("7FC00000"),
    Kind.FLOAT64: bytes.fromhex("7FF8000000000000"),
}
MOST_SCALE: Final = 10  # a SunSpec scale factor is a power of ten from -10 to 10


class Undecodable(Exception):
    """These registers hold no value of this kind; the text says what they hold."""


class Unencodable(Exception):
    """This value has no form of this kind; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How a value lies in its registers.

    `order` is one of `ORDERS` of its width; kinds of `_BY_REGISTER` have `AB` or `BA` in each register. `bit` counts from the least significant.
    `bits` is the lowest bit and the number of bits of a part of an unsigned number. `pad` is what ends a text, its first character what fills one up.
    `missing` is what means "not implemented", as big-endian bytes. `zone` is that of a date-time of `LOCAL`.
    """

    kind: Kind
    registers: int
    order: str = ""
    bit: int = 0
    bits: tuple[int, int] | None = None
    pad: str = PADS
    missing: bytes | None = None
    zone: str = "UTC"

    @property
    def part(self) -> tuple[int, int, bool] | None:
        """For a value that shares its registers with others: its lowest bit, how many bits, whether it has a sign."""
        if self.kind is Kind.BIT:
            return self.bit, 1, False
        if self.kind in _BYTES:
            low, signed = _BYTES[self.kind]
            return low, 8, signed
        return None if self.bits is None else (*self.bits, False)


def orders_of(kind: Kind, registers: int | None = None) -> tuple[str, ...]:
    """The byte orders that this kind can have, in so many registers where its width is not fixed."""
    if kind in _BY_REGISTER:
        return ORDERS[1]
    return ORDERS[registers or WIDTHS[kind]]


@cache
def decoder(shape: Shape) -> Callable[[bytes], object]:
    """What turns these registers into their value: int, float, text, an aware UTC date-time, a bool, or the numbers of the bits that are set.

    What is made raises `Undecodable`, and returns None for what means "not implemented" here. NaN and the infinities are values.
    """
    read = _reader(shape)
    if shape.missing is not None:
        read = _or_missing(read, shape)
    native = _NATIVE.get(shape.order)
    return read if native is None else lambda data: read(native(data))


def _or_missing(read: Callable[[bytes], object], shape: Shape) -> Callable[[bytes], object]:
    missing = shape.missing
    if shape.kind not in FLOATS:
        return lambda data: None if data == missing else read(data)

    def number(data: bytes) -> object:
        value = read(data)
        return None if data == missing or (isinstance(value, float) and math.isnan(value)) else value

    return number


def _reader(shape: Shape) -> Callable[[bytes], object]:
    """The same for bytes in big-endian order."""
    if shape.part is not None:
        return _part_reader(shape, *shape.part)
    number = _NUMBERS.get(shape.kind)
    if number is not None:
        unpack = number.unpack
        return lambda data: unpack(data)[0]
    if shape.kind is Kind.STRING:
        return lambda data: _decode_text(data, shape.pad)
    if shape.kind in _BCD:
        return _decode_bcd
    if shape.kind is Kind.EPOCH32:
        return lambda data: datetime.fromtimestamp(_EPOCH.unpack(data)[0], UTC)
    if shape.kind in LOCAL:
        return lambda data: _decode_local(data, shape)
    return _decode_bits


def _part_reader(shape: Shape, low: int, width: int, signed: bool) -> Callable[[bytes], object]:  # noqa: FBT001 - as `part` says it
    mask, limit = (1 << width) - 1, 1 << width - 1
    if shape.kind is Kind.BIT:
        return lambda data: bool(int.from_bytes(data, "big") >> low & 1)
    if signed:
        return lambda data: ((int.from_bytes(data, "big") >> low & mask) ^ limit) - limit
    return lambda data: int.from_bytes(data, "big") >> low & mask


def decode(shape: Shape, data: bytes) -> object:
    """The value in these registers, as `decoder` reads it. Raises `Undecodable`."""
    return decoder(shape)(data)


def encode(shape: Shape, value: object) -> bytes:
    """The registers that hold this value; text is filled up. Raises `Unencodable`, also for text that is too long.

    What shares its registers has none of its own: see `merge`.
    """
    if shape.part is not None:
        raise Unencodable(f"a {shape.kind.value} shares its register")
    if shape.kind in _NUMBERS:
        data = _encode_number(shape.kind, value)
    elif shape.kind is Kind.STRING:
        data = _encode_text(value, 2 * shape.registers, shape.pad[0])
    elif shape.kind in _BCD:
        data = _encode_bcd(value, _BCD[shape.kind])
    elif shape.kind is Kind.EPOCH32:
        data = _encode_number(Kind.UINT32, int(_moment(value).timestamp()))
    elif shape.kind in LOCAL:
        data = _encode_local(_moment(value), shape)
    else:
        data = _encode_bits(value, shape.registers)
    native = _NATIVE.get(shape.order)
    return data if native is None else native(data)


def merge(shape: Shape, registers: bytes, value: object) -> bytes:
    """These registers with one part of them changed to this value, the rest as it is. Raises `Unencodable`."""
    assert shape.part is not None
    low, width, signed = shape.part
    native = _NATIVE.get(shape.order, bytes)
    number = int(bool(value)) if shape.kind is Kind.BIT else _whole(value)
    least, most = (-(1 << width - 1), (1 << width - 1) - 1) if signed else (0, (1 << width) - 1)
    if not least <= number <= most:
        raise Unencodable(f"{value!r} does not fit {shape.kind.value}, which takes {least} to {most} here")
    mask = (1 << width) - 1
    word = int.from_bytes(native(registers), "big") & ~(mask << low) | (number & mask) << low
    return native(word.to_bytes(len(registers), "big"))


def holds(shape: Shape, value: object) -> bool:
    """Whether this value has a form of this shape."""
    try:
        _ = encode(shape, value) if shape.part is None else merge(shape, bytes(2 * shape.registers), value)
    except Unencodable:
        return False
    return True


def scaled(value: object, power: object) -> object:
    """A whole number times a power of ten that a register held (-1 means a tenth); exact to the last digit that a float shows. Raises `Undecodable`."""
    if not isinstance(power, int) or not -MOST_SCALE <= power <= MOST_SCALE:
        raise Undecodable(
            f"its scale factor is {power if power is not None else 'not implemented'}, not a power of ten"
        )
    if not isinstance(value, int):
        return value
    return value * 10**power if power >= 0 else value / 10**-power


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


def _decode_text(data: bytes, pad: str) -> str:
    try:
        return data.decode("ascii").rstrip(pad)
    except UnicodeDecodeError as error:
        raise Undecodable(f"text holds the byte {data[error.start]:02X}, which is not ASCII") from None


def _decode_bcd(data: bytes) -> int:
    digits = data.hex()
    if not digits.isdecimal():
        raise Undecodable(f"{digits.upper()} holds a digit above 9, which BCD has not")
    return int(digits)


def _decode_local(data: bytes, shape: Shape) -> datetime | None:
    if data in {bytes(len(data)), b"\xff" * len(data)}:
        return None  # no date yet, or none to be had
    try:
        return (from_48 if shape.kind is Kind.DATETIME48 else from_64)(data, shape.zone)
    except Unfit as error:
        raise Undecodable(str(error)) from None


def _decode_bits(data: bytes) -> tuple[int, ...]:
    words: Sequence[int] = struct.unpack(f">{len(data) // 2}H", data)
    return tuple(BITS * index + bit for index, word in enumerate(words) for bit in range(BITS) if word >> bit & 1)


def _whole(value: object) -> int:
    if not isinstance(value, int | float):
        raise Unencodable(f"{type(value).__name__} is no number")
    if isinstance(value, float) and not value.is_integer():
        raise Unencodable(f"{value!r} is no whole number")
    return int(value)


def _encode_number(kind: Kind, value: object) -> bytes:
    if kind not in FLOATS:
        value = _whole(value)
    elif not isinstance(value, int | float):
        raise Unencodable(f"{type(value).__name__} is no number")
    try:
        return _NUMBERS[kind].pack(value)
    except (struct.error, OverflowError):
        raise Unencodable(f"{value!r} does not fit {kind.value}") from None


def _encode_text(value: object, size: int, pad: str) -> bytes:
    if not isinstance(value, str):
        raise Unencodable(f"{type(value).__name__} is no text")
    try:
        data = value.encode("ascii")
    except UnicodeEncodeError:
        raise Unencodable("text holds characters that are not ASCII") from None
    if len(data) > size:
        raise Unencodable(f"text of {len(data)} characters does not fit {size}")
    return data.ljust(size, pad.encode("ascii"))


def _encode_bcd(value: object, size: int) -> bytes:
    number = _whole(value)
    if not 0 <= number < 100**size:
        raise Unencodable(f"{number} does not fit {2 * size} decimal digits")
    return bytes.fromhex(f"{number:0{2 * size}d}")


def _moment(value: object) -> datetime:
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise Unencodable(f"{value!r} is no date-time with a zone")
    return value


def _encode_local(moment: datetime, shape: Shape) -> bytes:
    try:
        return (to_48 if shape.kind is Kind.DATETIME48 else to_64)(moment, shape.zone)
    except Unfit as error:
        raise Unencodable(str(error)) from None


def _encode_bits(value: object, registers: int) -> bytes:
    if not isinstance(value, Iterable):
        raise Unencodable(f"{type(value).__name__} is no list of numbers")
    words = [0] * registers
    for number in value:
        if not isinstance(number, int) or not 0 <= number < BITS * registers:
            raise Unencodable(f"{number!r} is no bit of {BITS * registers}")
        words[number // BITS] |= 1 << number % BITS
    return struct.pack(f">{registers}H", *words)
