"""Registers to values and back."""

import contextlib
import json
import math
import struct
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from adapters.modbus.codec import (
    MOMENTS,
    ORDERS,
    WIDTHS,
    Kind,
    Shape,
    Undecodable,
    Unencodable,
    blank,
    crc16,
    decode,
    encode,
    merge,
    orders_of,
    scaled,
)
from adapters.modbus.targets import FieldTarget

VECTORS = Path(__file__).parent / "vectors"


def registers(text: str) -> bytes:
    return bytes.fromhex(text)


def vectors():
    """(shape, registers, value) of every line of every file, named by file and line."""
    for file in sorted(VECTORS.glob("*.txt")):
        for number, line in enumerate(file.read_text("utf-8").splitlines(), 1):
            if line.startswith("#"):
                continue
            kind, how, wire, value, _ = (part.strip() for part in line.split(" | ", 4))
            words = how.split()
            lies = dict(word.split("=") if "=" in word else ("order", word) for word in words)
            target = TypeAdapter(FieldTarget).validate_python({"at": 0, "type": kind, **lies}, strict=False)
            wanted = json.loads(value)
            if target.type in MOMENTS and wanted is not None:
                wanted = datetime.fromisoformat(wanted)
            wanted = tuple(wanted) if isinstance(wanted, list) else wanted
            yield pytest.param(target.shape, registers(wire), wanted, id=f"{file.stem}:{number}")


@pytest.mark.parametrize(("shape", "wire", "value"), list(vectors()))
def test_a_vector_decodes(shape, wire, value):
    """The bytes of public specifications and of the maps at hand mean what those say, and have the very type."""
    found = decode(shape, wire)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(("shape", "wire", "value"), [case for case in vectors() if case.values[2] is not None])
def test_a_vector_encodes(shape, wire, value):
    """And back: the same bytes, or the same bits of them where others share the register; text may be filled up otherwise."""
    if shape.part is not None:
        assert merge(shape, wire, value) == wire
        other = not value if shape.kind is Kind.BIT else 0
        assert merge(shape, merge(shape, wire, other), value) == wire
    elif shape.kind is Kind.STRING:
        assert decode(shape, encode(shape, value)) == value
    else:
        assert encode(shape, value) == wire


NUMBERS = {
    Kind.INT16: st.integers(-(2**15), 2**15 - 1),
    Kind.UINT16: st.integers(0, 2**16 - 1),
    Kind.INT32: st.integers(-(2**31), 2**31 - 1),
    Kind.UINT32: st.integers(0, 2**32 - 1),
    Kind.INT64: st.integers(-(2**63), 2**63 - 1),
    Kind.UINT64: st.integers(0, 2**64 - 1),
    Kind.FLOAT16: st.floats(width=16, allow_nan=False),
    Kind.FLOAT32: st.floats(width=32, allow_nan=False),
    Kind.FLOAT64: st.floats(allow_nan=False),
    Kind.BCD16: st.integers(0, 9999),
    Kind.BCD32: st.integers(0, 99_999_999),
    Kind.EPOCH32: st.integers(0, 2**32 - 1).map(lambda seconds: datetime.fromtimestamp(seconds, UTC)),
    Kind.DATETIME48: st.datetimes(datetime(1900, 1, 2), datetime(2155, 12, 30), timezones=st.just(UTC)).map(
        lambda moment: moment.replace(microsecond=0)
    ),
    Kind.DATETIME64: st.datetimes(datetime(2000, 1, 2), datetime(2127, 12, 30), timezones=st.just(UTC)).map(
        lambda moment: moment.replace(microsecond=moment.microsecond // 1000 * 1000)
    ),
}
PARTS = {
    Kind.BIT: st.booleans(),
    Kind.INT8L: st.integers(-128, 127),
    Kind.INT8H: st.integers(-128, 127),
    Kind.UINT8L: st.integers(0, 255),
    Kind.UINT8H: st.integers(0, 255),
}


@st.composite
def shapes_and_values(draw):
    kind = draw(st.sampled_from([*NUMBERS, Kind.STRING, Kind.BITSET]))
    order = draw(st.sampled_from(["", *orders_of(kind)]))
    count = WIDTHS.get(kind) or draw(st.integers(1, 20))
    zone = draw(st.sampled_from(["UTC", "Europe/London", "Asia/Kathmandu"])) if kind is Kind.DATETIME64 else "UTC"
    if kind is Kind.STRING:
        value = draw(st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=2 * count))
    elif kind is Kind.BITSET:
        value = tuple(sorted(draw(st.sets(st.integers(0, 16 * count - 1)))))
    else:
        value = draw(NUMBERS[kind])
    return Shape(kind=kind, registers=count, order=order, zone=zone), value


@given(shapes_and_values())
def test_what_is_encoded_decodes_to_itself(case):
    """Every kind in every order: decoding undoes encoding, and the registers are as many as the shape says."""
    shape, value = case
    data = encode(shape, value)
    assert len(data) == 2 * shape.registers
    assert decode(shape, data) == value


@st.composite
def parts_and_values(draw):
    kind = draw(st.sampled_from([*PARTS, Kind.UINT16, Kind.UINT32, Kind.UINT64]))
    shape = Shape(kind=kind, registers=WIDTHS[kind], order=draw(st.sampled_from(["", *orders_of(kind)])))
    size = 16 * WIDTHS[kind]
    if kind in PARTS:
        return Shape(kind=kind, registers=1, order=shape.order, bit=draw(st.integers(0, 15))), draw(PARTS[kind])
    low = draw(st.integers(0, size - 1))
    width = draw(st.integers(1, size - low))
    shape = Shape(kind=kind, registers=WIDTHS[kind], order=shape.order, bits=(low, width))
    return shape, draw(st.integers(0, 2**width - 1))


@given(parts_and_values(), st.binary(min_size=8, max_size=8))
def test_a_part_of_a_register_is_merged_and_read_back(case, data):
    """Bits and bytes, in every order: what was merged decodes to itself, and putting the old value back restores every other bit."""
    shape, value = case
    before = data[: 2 * shape.registers]
    old = decode(shape, before)
    after = merge(shape, before, value)
    assert decode(shape, after) == value
    assert merge(shape, after, old) == before


@pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.value)
def test_no_kind_is_left_out_of_the_properties(kind):
    """A new kind has to be drawn too."""
    assert kind in {*NUMBERS, *PARTS, Kind.STRING, Kind.BITSET}


@given(st.binary(min_size=8, max_size=8), st.sampled_from(Kind), st.booleans())
def test_any_bytes_give_a_value_or_a_reason(data, kind, missing):
    """No content of registers is beyond the codec: a value, nothing, or `Undecodable`."""
    count = WIDTHS.get(kind, 4)
    with contextlib.suppress(Undecodable):
        decode(Shape(kind=kind, registers=count, missing=b"\xff\xff" if missing else None), data[: 2 * count])


@pytest.mark.parametrize(
    ("value", "power", "is_"),
    [(495, -1, 49.5), (-7, -3, -0.007), (330, 0, 330), (33, 3, 33000), (123456789, -10, 0.0123456789)],
)
def test_a_scale_factor_moves_the_point(value, power, is_):
    """SunSpec: a power of ten; tenths stay tenths, to the last digit."""
    assert scaled(value, power) == is_
    assert repr(scaled(value, power)) == repr(is_)


@pytest.mark.parametrize("power", [11, -11, None])
def test_a_scale_factor_that_is_none_spoils_the_value(power):
    """Beyond what SunSpec allows, or not implemented: the value is not to be had, and the reason says so."""
    with pytest.raises(Undecodable, match="scale factor"):
        scaled(1, power)


@pytest.mark.parametrize(
    ("kind", "wire", "names"),
    [
        (Kind.BCD16, "12A4", "12A4"),
        (Kind.BCD32, "0000 000F", "0000000F"),
        (Kind.DATETIME48, "0D17 7E0A 1E0F", "2026-13-23"),
        (Kind.DATETIME64, "001A 0B37 0A1E EA60", "10:30:60"),
        (Kind.DATETIME64, "001A 0B37 0A9E 0000", "invalid"),
    ],
)
def test_what_holds_no_value_is_named(kind, wire, names):
    """A hexadecimal digit in BCD, a thirteenth month, a date-time that the device itself calls invalid."""
    with pytest.raises(Undecodable, match=names):
        decode(Shape(kind=kind, registers=WIDTHS[kind]), registers(wire))


def test_text_is_filled_up_as_its_map_says():
    """Blanks where a map pads with blanks, NULs elsewhere, before the bytes are swapped."""
    assert encode(Shape(kind=Kind.STRING, registers=2, pad=" "), "ABC") == b"ABC "
    assert encode(Shape(kind=Kind.STRING, registers=2, pad=" ", order="BA"), "ABC") == b"BA C"
    assert encode(Shape(kind=Kind.STRING, registers=2), "ABC") == b"ABC\0"
    assert decode(Shape(kind=Kind.STRING, registers=2, pad="\0"), b"AB \0") == "AB "


@pytest.mark.parametrize("pad", [b"\0", b" ", b"\0 \0"])
def test_padding_is_stripped(pad):
    """NUL, blanks and a mixture of both after the text are padding."""
    data = (b"AB" + pad).ljust(8, b"\0")
    assert decode(Shape(kind=Kind.STRING, registers=4), data) == "AB"


def test_text_that_is_not_ascii_names_the_byte():
    """A byte above 7F is refused and named, never replaced."""
    with pytest.raises(Undecodable, match="E9"):
        decode(Shape(kind=Kind.STRING, registers=2), b"caf\xe9")


def test_not_a_number_is_a_value():
    """NaN travels; the core refuses it with its own reason."""
    value = decode(Shape(kind=Kind.FLOAT32, registers=2), struct.pack(">f", math.nan))
    assert math.isnan(value)


def test_bits_share_their_register():
    """A bit is read and set without its neighbours, and never written as a register of its own."""
    shape = Shape(kind=Kind.BIT, registers=1, bit=3)
    assert decode(shape, b"\x00\x08") is True
    assert decode(shape, b"\xff\xf7") is False
    assert merge(shape, b"\x80\x01", True) == b"\x80\x09"
    assert merge(shape, b"\xff\xff", False) == b"\xff\xf7"
    with pytest.raises(Unencodable):
        encode(shape, True)


@pytest.mark.parametrize(("kind", "value"), [(Kind.INT8L, 128), (Kind.UINT8H, -1), (Kind.UINT8L, 1.5)])
def test_what_does_not_fit_a_byte_is_refused(kind, value):
    """The neighbour's bits are never touched by a value that is too large."""
    with pytest.raises(Unencodable):
        merge(Shape(kind=kind, registers=1), b"\0\0", value)


@pytest.mark.parametrize(
    ("kind", "count", "value"),
    [
        (Kind.UINT16, 1, -1),
        (Kind.UINT16, 1, 65536),
        (Kind.INT16, 1, 1.5),
        (Kind.INT16, 1, "1"),
        (Kind.FLOAT32, 2, 1e300),
        (Kind.STRING, 1, "ABC"),
        (Kind.STRING, 2, "é"),
        (Kind.STRING, 2, 5),
        (Kind.EPOCH32, 2, datetime(2026, 1, 1)),
        (Kind.EPOCH32, 2, datetime(1969, 1, 1, tzinfo=UTC)),
        (Kind.EPOCH32, 2, datetime(2200, 1, 1, tzinfo=UTC)),
        (Kind.DATETIME48, 3, datetime(2026, 1, 1)),
        (Kind.DATETIME48, 3, datetime(1899, 1, 1, tzinfo=UTC)),
        (Kind.DATETIME64, 4, datetime(2128, 1, 1, tzinfo=UTC)),
        (Kind.FLOAT16, 1, 65520.0),
        (Kind.BCD16, 1, 10000),
        (Kind.BCD16, 1, -1),
        (Kind.BITSET, 1, (16,)),
        (Kind.BITSET, 1, 3),
    ],
)
def test_what_does_not_fit_is_refused(kind, count, value):
    """A value that its registers cannot hold is an error, never cut or wrapped."""
    with pytest.raises(Unencodable):
        encode(Shape(kind=kind, registers=count), value)


def test_a_date_time_is_written_in_utc():
    """Another zone is the same moment."""
    there = datetime(2026, 11, 23, 1, tzinfo=timezone(timedelta(hours=1)))
    assert encode(Shape(kind=Kind.EPOCH32, registers=2), there) == registers("6B03 8200")


def test_the_crc_has_its_published_check_value():
    """CRC-16/MODBUS over 123456789 is 4B37."""
    assert crc16(b"123456789") == 0x4B37


def test_blank_registers():
    """Zeros and blanks are nothing; anything else is something."""
    assert blank(b"\0\0  ")
    assert not blank(b"\0\0\0\1")


@given(st.binary(min_size=8, max_size=8))
def test_every_order_is_what_its_letters_say(data):
    """The bytes of a value stand on the wire where the letters of its order stand."""
    for width, orders in ORDERS.items():
        kind = {1: Kind.UINT16, 2: Kind.UINT32, 4: Kind.UINT64}[width]
        letters = data[: 2 * width]
        for order in orders:
            wire = bytes(letters["ABCDEFGH".index(letter)] for letter in order)
            assert decode(Shape(kind=kind, registers=width, order=order), wire) == int.from_bytes(letters, "big")
