"""Structures taken apart from their bytes: what a peer of our making would never send."""

import struct
from types import SimpleNamespace
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapters.opcua.library import ua
from adapters.opcua.structures import Shape, Shapes
from adapters.opcua.values import reading
from bridge.api import Quality

UINT16, INT32, UINT32, TEXT, VARIANT = 5, 6, 7, 12, 24
PLAIN, OPTIONAL, UNION, SUBTYPED = range(4)


class Server:
    """Definitions as a server gives them; types are named by text here."""

    def __init__(self, **shapes):
        self.shapes = Shapes(None)
        self.shapes._types = {"u16": UINT16, "i32": INT32, "text": TEXT, "variant": VARIANT, "unknown": 0}
        for number, (name, (kind, members)) in enumerate(shapes.items(), 1):
            shape = Shape(name=name, kind=kind, members=tuple(members))
            self.shapes._types[name] = shape
            self.shapes._encodings[ua.NodeId(number, 2)] = shape

    def read(self, body, member, number=1):
        value = ua.DataValue(ua.Variant(ua.ExtensionObject(ua.NodeId(number, 2), body), ua.VariantType.ExtensionObject))
        return self.shapes.reading(value, tuple(member.split(".")))


def text(content):
    return struct.pack("<i", len(content)) + content.encode()


def member(name, kind, rank=-1, optional=False):
    return (name, kind, rank, optional)


MEMBERS = [member("A", "i32", optional=True), member("B", "text"), member("C", "u16", optional=True)]


@pytest.mark.parametrize(
    ("mask", "body", "expected"),
    [
        (0, text("x"), (None, "x", None)),
        (1, struct.pack("<i", -7) + text("x"), (-7, "x", None)),
        (2, text("x") + struct.pack("<H", 9), (None, "x", 9)),
        (3, struct.pack("<i", -7) + text("x") + struct.pack("<H", 9), (-7, "x", 9)),
    ],
)
def test_optional_fields_have_their_bits(mask, body, expected):
    """A bit for each optional field, none for the others (OPC 10000-6, 5.2.7)."""
    server = Server(S=(OPTIONAL, MEMBERS))
    found = [server.read(struct.pack("<I", mask) + body, name) for name in "ABC"]
    assert tuple(each.value for each in found) == expected
    assert all(each.absent for each in found if each.value is None)


def test_a_union_holds_one_field():
    """Counted from 1; 0 is none at all; a number beyond is a broken value (OPC 10000-6, 5.2.8)."""
    server = Server(S=(UNION, [member("A", "i32"), member("B", "text")]))
    second = struct.pack("<I", 2) + text("x")
    assert server.read(second, "B").value == "x"
    assert server.read(second, "A").absent
    assert server.read(struct.pack("<I", 0), "A").absent
    assert "chooses a field that it does not have" in server.read(struct.pack("<I", 3), "A").detail


def test_what_cannot_be_read_is_bad_in_words():
    """Never a wrong value, never an end of the session."""
    server = Server(
        S=(PLAIN, [member("A", "i32"), member("M", "i32", 2)]),
        T=(SUBTYPED, [member("A", "i32")]),
        U=(PLAIN, [member("A", "unknown")]),
        V=(PLAIN, [member("L", "i32", 1)]),
        W=(PLAIN, [member("W", "W")]),
        X=(PLAIN, [member("T", "text"), member("A", "u16")]),
    )
    for number, body, name, words in (
        (1, struct.pack("<i", 1), "A", "number of dimensions"),
        (2, struct.pack("<i", 1), "A", "holds subtypes"),
        (3, struct.pack("<i", 1), "A", "a type or a number of dimensions"),
        (4, struct.pack("<i", 2_000_000_000), "L", "longer than the structure"),
        (4, struct.pack("<ii", 1, 1)[:6], "L", "Not enough data"),
        (6, struct.pack("<i", -2), "T", "a length is negative"),
        (5, b"", "W", "nested too deeply"),
        (9, b"", "A", "no definition of the structure ns=2;i=9"),
    ):
        found = server.read(body, name, number)
        assert (found.quality, found.value) == (Quality.BAD, None), name
        assert words in found.detail, found.detail


def test_a_list_without_content_is_empty_and_a_variant_shows_what_it_holds():
    """A length of -1 is null; an abstract type travels with its own."""
    server = Server(S=(PLAIN, [member("L", "i32", 1), member("V", "variant")]))
    body = struct.pack("<i", -1) + b"\x05" + struct.pack("<H", 7)
    assert server.read(body, "L").value == ()
    assert server.read(body, "V").value == 7


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)  # a busy machine is no flaw
@given(body=st.binary(max_size=60), number=st.integers(1, 3))
def test_no_bytes_end_a_session(body, number):
    """Whatever a server sends, the field is a reading."""
    server = Server(
        S=(OPTIONAL, MEMBERS),
        T=(UNION, [member("A", "S", 1), member("B", "variant")]),
        U=(PLAIN, [member("A", "T", 1)]),
    )
    for name in ("A", "B", "A.0.A"):
        found = server.read(body, name, number)
        assert found.quality in Quality


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        (ua.NodeId("x", 2), "NodeId", "ns=2;s=x"),
        (ua.ExpandedNodeId(5, 0, NamespaceUri="urn:x"), "ExpandedNodeId", "nsu=urn:x;i=5"),
        (ua.StatusCode(ua.StatusCodes.BadTimeout), "StatusCode", "BadTimeout"),
        (ua.XmlElement("<a/>"), "XmlElement", "<a/>"),
        (b"\x00\xff", "ByteString", "AP8="),
        (UUID(int=7), "Guid", "00000000-0000-0000-0000-000000000007"),
        ([[1, 2], [3, 4]], "Int32", ((1, 2), (3, 4))),
        ([b"a", b"b"], "ByteString", ("YQ==", "Yg==")),
        ([ua.Variant(7, ua.VariantType.Byte), ua.Variant("x")], "Variant", (7, "x")),
        (ua.DataValue(ua.Variant(7, ua.VariantType.Byte)), "DataValue", 7),
    ],
)
def test_the_less_usual_types_have_a_form(value, kind, expected):
    """Text as OPC UA writes it, lists of lists, and what a Variant or DataValue holds."""
    given_value = ua.Variant(value, ua.VariantType[kind])
    data_value = SimpleNamespace(Value=given_value, StatusCode=ua.StatusCode(0), SourceTimestamp=None)
    found = reading(data_value)
    assert (found.quality, found.value) == (Quality.GOOD, expected), found.detail
