"""What registers could mean when nobody says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.modbus import ADAPTER
from adapters.modbus.codec import Kind

CODEC = ADAPTER.codec


@pytest.mark.parametrize(
    ("wire", "type_", "order", "value"),
    [
        ("0000 4246", "float32", "CDAB", 49.5),
        ("4246 0000", "float32", "ABCD", 49.5),
        ("0000 4842", "float32", "DCBA", 50.0),
        ("FFFF CF2C", "int32", "ABCD", -12500),
        ("0000 C15C", "uint32", "ABCD", 49500),
        ("C15C 0000", "uint32", "CDAB", 49500),
        ("014A", "uint16", "AB", 330),
        ("FFF6", "int16", "AB", -10),
        ("3130 3132 3334 3536 3738 3930 3300", "string", "AB", "1012345678903"),
        ("6F4E 7472 2068 6159 6472", "string", "BA", "North Yard"),
        ("5375 6E53", "string", "AB", "SunS"),
        ("4048 C000 0000 0000", "float64", "ABCDEFGH", 49.5),
        ("0000 0000 C000 4048", "float64", "GHEFCDAB", 49.5),
        ("001A 0B37 0A1E 3039", "datetime64", "AB", None),
    ],
)
def test_what_is_meant_comes_first(wire, type_, order, value):
    """Values as people write them into registers: round numbers, words, a capacity, a date."""
    best = CODEC.guesses(bytes.fromhex(wire))[0]
    assert (best.type, best.order) == (type_, order)
    assert value is None or best.value == value


def test_a_midnight_of_these_years_is_a_moment():
    """A whole day reads as a date, though it is a number too."""
    best, *others = CODEC.guesses(bytes.fromhex("6B03 8200"))
    assert (best.type, best.order, best.value.isoformat()) == ("epoch32", "ABCD", "2026-11-23T00:00:00+00:00")
    assert ("uint32", "ABCD", 1795392000) in others


@given(st.integers(1, 12).flatmap(lambda count: st.binary(min_size=2 * count, max_size=2 * count)))
def test_a_guess_is_what_the_codec_reads(raw):
    """Whatever the bytes are: something is guessed, and each guess is the value of its type and order."""
    guesses = CODEC.guesses(raw)
    assert guesses
    for guess in guesses:
        read = CODEC.decode(raw, type_=guess.type, order=guess.order, bit=None)
        assert repr(read) == repr(guess.value)


@pytest.mark.parametrize(
    ("wire", "type_", "order", "bit", "says"),
    [
        ("00", "uint16", "", None, "two bytes each"),
        ("", "uint16", "", None, "there are none"),
        ("0001", "uint32", "", None, "takes 4 bytes"),
        ("00010002", "uint16", "", None, "takes 2 bytes"),
        ("0001", "uint16", "ABCD", None, "AB, BA"),
        ("00010002", "float32", "AB", None, "ABCD, DCBA, BADC, CDAB"),
        ("0001", "uint16", "", 0, "only it"),
        ("0001", "bit", "", None, "number of the bit"),
        ("0001", "bit", "", 16, "0 to 15"),
        ("000100020003", "bit", "", 1, "1, 2 or 4"),
        ("80E9", "string", "", None, "80"),
        ("0000 0000 0000 0000", "datetime64", "", None, "no date-time"),
    ],
)
def test_what_cannot_be_read_says_why(wire, type_, order, bit, says):
    """Sizes, orders and bits that do not belong together are named, with what would be right."""
    with pytest.raises(ValueError, match=says):
        CODEC.decode(bytes.fromhex(wire), type_=type_, order=order, bit=bit)


def test_every_type_can_be_asked_for():
    """The codec by hand knows the types of a site file, all of them."""
    assert set(CODEC.types) == {kind.value for kind in Kind}
