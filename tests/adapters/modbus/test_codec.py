"""Registers to values and back."""

import contextlib
import math
import struct
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.modbus.codec import (
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
    orders_of,
    with_bit,
)

# Vectors from the register map of layout 2, plus one that a vendor's manual gives (49.5 with swapped words).
VECTORS = [
    (Kind.STRING, 7, "", "3130 3132 3334 3536 3738 3930 3300", "1012345678903"),
    (Kind.STRING, 1, "", "5F41", "_A"),
    (Kind.INT32, 2, "ABCD", "FFFF CF2C", -12500),
    (Kind.EPOCH32, 2, "", "6B03 8200", datetime(2026, 11, 23, tzinfo=UTC)),
    (Kind.FLOAT32, 2, "CDAB", "0000 4246", 49.5),
    (Kind.UINT16, 1, "AB", "014A", 330),
    (Kind.UINT16, 1, "BA", "4A01", 330),
    (Kind.INT16, 1, "", "FFFE", -2),
    (Kind.UINT32, 2, "DCBA", "0403 0201", 0x01020304),
    (Kind.UINT32, 2, "BADC", "0201 0403", 0x01020304),
    (Kind.UINT32, 2, "CDAB", "0304 0102", 0x01020304),
    (Kind.UINT64, 4, "ABCDEFGH", "0102 0304 0506 0708", 0x0102030405060708),
    (Kind.UINT64, 4, "HGFEDCBA", "0807 0605 0403 0201", 0x0102030405060708),
    (Kind.UINT64, 4, "BADCFEHG", "0201 0403 0605 0807", 0x0102030405060708),
    (Kind.UINT64, 4, "GHEFCDAB", "0708 0506 0304 0102", 0x0102030405060708),
    (Kind.INT64, 4, "", "FFFF FFFF FFFF FFFF", -1),
    (Kind.FLOAT64, 4, "", "3FF8 0000 0000 0000", 1.5),
    (Kind.STRING, 3, "BA", "5452 4449 0033", "RTID3"),
    (Kind.BITSET, 4, "", "0003 0000 0000 8000", (0, 1, 63)),
]


def registers(text: str) -> bytes:
    return bytes.fromhex(text)


@pytest.mark.parametrize(("kind", "count", "order", "wire", "value"), VECTORS)
def test_a_vector_decodes(kind, count, order, wire, value):
    """The bytes of the map's own examples mean what the map says."""
    assert decode(Shape(kind=kind, registers=count, order=order), registers(wire)) == value


@pytest.mark.parametrize(("kind", "count", "order", "wire", "value"), VECTORS)
def test_a_vector_encodes(kind, count, order, wire, value):
    """And back to the same bytes."""
    assert encode(Shape(kind=kind, registers=count, order=order), value) == registers(wire)


NUMBERS = {
    Kind.INT16: st.integers(-(2**15), 2**15 - 1),
    Kind.UINT16: st.integers(0, 2**16 - 1),
    Kind.INT32: st.integers(-(2**31), 2**31 - 1),
    Kind.UINT32: st.integers(0, 2**32 - 1),
    Kind.INT64: st.integers(-(2**63), 2**63 - 1),
    Kind.UINT64: st.integers(0, 2**64 - 1),
    Kind.FLOAT32: st.floats(width=32, allow_nan=False),
    Kind.FLOAT64: st.floats(allow_nan=False),
    Kind.EPOCH32: st.integers(0, 2**32 - 1).map(lambda seconds: datetime.fromtimestamp(seconds, UTC)),
}


@st.composite
def shapes_and_values(draw):
    kind = draw(st.sampled_from([*NUMBERS, Kind.STRING, Kind.BITSET]))
    order = draw(st.sampled_from(["", *orders_of(kind)]))
    count = WIDTHS.get(kind) or draw(st.integers(1, 20))
    if kind is Kind.STRING:
        value = draw(st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=2 * count))
    elif kind is Kind.BITSET:
        value = tuple(sorted(draw(st.sets(st.integers(0, 16 * count - 1)))))
    else:
        value = draw(NUMBERS[kind])
    return Shape(kind=kind, registers=count, order=order), value


@given(shapes_and_values())
def test_what_is_encoded_decodes_to_itself(case):
    """Every kind in every order: decoding undoes encoding, and the registers are as many as the shape says."""
    shape, value = case
    data = encode(shape, value)
    assert len(data) == 2 * shape.registers
    assert decode(shape, data) == value


@given(st.binary(min_size=8, max_size=8), st.sampled_from([*NUMBERS, Kind.STRING, Kind.BITSET, Kind.BIT]))
def test_any_bytes_give_a_value_or_a_reason(data, kind):
    """No content of registers is beyond the codec: a value, or `Undecodable`."""
    count = WIDTHS.get(kind, 4)
    with contextlib.suppress(Undecodable):
        decode(Shape(kind=kind, registers=count), data[: 2 * count])


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
    """A bit is read and set without its neighbours."""
    shape = Shape(kind=Kind.BIT, registers=1, bit=3)
    assert decode(shape, b"\x00\x08") is True
    assert decode(shape, b"\xff\xf7") is False
    assert with_bit(shape, b"\x80\x01", True) == b"\x80\x09"
    assert with_bit(shape, b"\xff\xff", False) == b"\xff\xf7"
    with pytest.raises(Unencodable):
        encode(shape, True)


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


def test_every_order_undoes_itself():
    """The table of orders holds involutions only, so one function serves both ways."""
    for orders in ORDERS.values():
        for order in orders:
            places = [order.index(letter) for letter in sorted(order)]
            assert [places[place] for place in places] == list(range(len(places)))
