"""Values to readings and outcomes to node types, without a server."""

from datetime import UTC, datetime, timedelta, timezone
from types import SimpleNamespace
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapters.opcua.codec import TYPE_NAMES, Target, builtin_type, decode, encode, epoch_ns, quality, read_back
from bridge.api import Code, OutcomeField, Quality

GOOD = 0x00000000
UNCERTAIN = 0x40900000
BAD = 0x808C0000
NUMBERS = {name: number for number, name in TYPE_NAMES.items()}
TEN_LINES = Target(type_number=NUMBERS["String"], is_array=True, length=10)
NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def read(type_name, value, status=GOOD):
    return decode(NUMBERS[type_name], value, status, "Named" if status else "", None)


@pytest.mark.parametrize(
    ("type_name", "value", "expected"),
    [
        ("Boolean", True, True),
        ("SByte", -128, -128),
        ("Byte", 255, 255),
        ("Int16", -32768, -32768),
        ("UInt16", 65535, 65535),
        ("Int32", -(2**31), -(2**31)),
        ("UInt32", 2**32 - 1, 2**32 - 1),
        ("Int64", -(2**63), -(2**63)),
        ("UInt64", 2**64 - 1, 2**64 - 1),
        ("Float", 49.5, 49.5),
        ("Double", 33.0, 33.0),
        ("String", "IP1 2AB", "IP1 2AB"),
        ("String", "", ""),
        ("DateTime", NOON, NOON),
        ("DateTime", datetime(2026, 11, 23, 12, 0), NOON),
        ("DateTime", datetime(2026, 11, 23, 14, 0, tzinfo=timezone(timedelta(hours=2))), NOON),
        ("Guid", UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        ("LocalizedText", SimpleNamespace(Text="North Yard", Locale="en"), "North Yard"),
        ("LocalizedText", SimpleNamespace(Text=None, Locale=None), ""),
        ("QualifiedName", SimpleNamespace(Name="BESS001", NamespaceIndex=2), "BESS001"),
        ("String", ["A", None, "B"], ("A", "", "B")),
        ("Int32", [1, 2], (1, 2)),
        ("Double", [], ()),
        ("Int32", [[1, 2], [3, 4]], ((1, 2), (3, 4))),
        ("DateTime", [NOON], (NOON,)),
    ],
)
def test_every_usable_type_has_a_plain_form(type_name, value, expected):
    """Numbers, text, times in UTC and arrays of them as tuples."""
    found = read(type_name, value)
    assert (found.value, found.quality, found.absent) == (expected, Quality.GOOD, False)
    assert type(found.value) is type(expected)


@pytest.mark.parametrize(
    "type_name",
    ["ByteString", "NodeId", "ExpandedNodeId", "StatusCode", "QualifiedName", "DataValue", "Variant", "DiagnosticInfo"],
)
def test_a_type_without_a_form_is_a_bad_reading_that_names_it(type_name):
    """Nothing is guessed: the record is refused and the operator reads which type stood there."""
    found = read(type_name, object())
    assert (found.quality, found.value) == (Quality.BAD, None)
    assert type_name in found.detail


def test_a_value_that_contradicts_its_type_is_a_bad_reading():
    """A malformed value never raises out of the codec."""
    assert read("Int32", "twelve").quality is Quality.BAD
    assert read("LocalizedText", 5).quality is Quality.BAD
    assert read("DateTime", "yesterday").quality is Quality.BAD


@pytest.mark.parametrize(("number", "value"), [(0, None), (NUMBERS["String"], None), (NUMBERS["Int32"], None)])
def test_null_is_absent(number, value):
    """A null of any type, or an empty Variant, is a value that the EMS does not have."""
    found = decode(number, value, GOOD, "", None)
    assert (found.absent, found.quality, found.value) == (True, Quality.GOOD, None)


def test_null_of_uncertain_quality_is_not_absent():
    """A default stands in for what is missing, never for what is doubtful."""
    found = decode(0, None, UNCERTAIN, "UncertainInitialValue", None)
    assert (found.absent, found.quality) == (False, Quality.UNCERTAIN)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (0x00000000, Quality.GOOD),
        (0x00000480, Quality.GOOD),  # overflow flag: the queue lost a sample, the value stands
        (0x00000400, Quality.GOOD),  # DataValue info bits
        (0x00960000, Quality.UNCERTAIN),  # GoodLocalOverride: not the process's own
        (0x40000000, Quality.UNCERTAIN),
        (0x40900000, Quality.UNCERTAIN),
        (0x80000000, Quality.BAD),
        (0x808C0000, Quality.BAD),
        (0xC0000000, Quality.BAD),  # reserved severity
    ],
)
def test_quality_by_status(status, expected):
    """Good alone is good; flags in the lower half do not count; the reserved severity is bad."""
    assert quality(status) is expected


def test_a_bad_value_is_not_shown():
    """Whatever a server sends along with Bad, no one can take it for a value."""
    found = read("Int32", 5, BAD)
    assert (found.value, found.detail) == (None, "Named")


def test_source_times_are_exact():
    """Microseconds survive, where a float would round them."""
    moment = datetime(2026, 11, 23, 10, 0, 0, 123457, tzinfo=UTC)
    found = decode(NUMBERS["Int32"], 1, GOOD, "", moment)
    assert found.source_ns == 1_795_428_000_123_457_000
    assert epoch_ns(moment.replace(tzinfo=None)) == found.source_ns


@pytest.mark.parametrize("moment", [datetime(1601, 1, 1), datetime(1601, 1, 1, tzinfo=UTC)])
def test_the_null_time_of_the_protocol_is_no_source_time(moment):
    """1601 is what a server without a clock sends."""
    assert decode(NUMBERS["Int32"], 1, GOOD, "", moment).source_ns is None


@pytest.mark.parametrize(
    ("data_type", "expected"), [(6, 6), (29, 6), (294, 13), (290, 11), (288, 7), (295, 12), (26, 0), (9999, 0)]
)
def test_derived_types_travel_as_a_built_in_one(data_type, expected):
    """An enumeration is an Int32, UtcTime a DateTime; abstract and unknown types are learnt from the value."""
    assert builtin_type(data_type) == expected


# writing


@pytest.mark.parametrize("type_name", ["SByte", "Byte", "Int16", "UInt16", "Int32", "UInt32", "Int64", "UInt64"])
def test_a_state_word_is_its_number_in_every_integer(type_name):
    """A Code is one value, although it is a pair."""
    assert encode(OutcomeField.STATE, Code(3, "registered"), Target(type_number=NUMBERS[type_name])) == 3


@pytest.mark.parametrize("type_name", ["String", "LocalizedText"])
def test_a_state_word_is_its_word_in_text(type_name):
    """The adapter writes the form that the target's type takes."""
    target = Target(type_number=NUMBERS[type_name])
    assert encode(OutcomeField.STATE, Code(3, "registered"), target) == "registered"
    assert encode(OutcomeField.ERROR_CODE, Code(9999, "MPAN_UNKNOWN"), target) == "MPAN_UNKNOWN"


def test_a_state_word_in_an_array_is_one_element():
    """The pair is not spread over two elements."""
    target = Target(type_number=NUMBERS["Int32"], is_array=True, length=2)
    assert encode(OutcomeField.STATE, Code(3, "registered"), target) == (3, 0)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ((), ("",) * 10),
        (("a", "b"), ("a", "b", *[""] * 8)),
        (tuple("abcdefghijkl"), tuple("abcdefghij")),
    ],
)
def test_error_lines_fill_a_fixed_array(lines, expected):
    """String[10] always gets ten elements, so that no old line stays."""
    assert encode(OutcomeField.ERROR_TEXT, lines, TEN_LINES) == expected


def test_error_lines_in_a_free_array_are_as_many_as_there_are():
    """No fixed length, no padding."""
    free = Target(type_number=NUMBERS["String"], is_array=True)
    assert encode(OutcomeField.ERROR_TEXT, ("a", "b"), free) == ("a", "b")
    assert encode(OutcomeField.ERROR_TEXT, (), free) == ()


def test_error_lines_in_one_text_are_joined():
    """A single String takes them all."""
    assert encode(OutcomeField.ERROR_TEXT, ("a", "b"), Target(type_number=NUMBERS["String"])) == "a; b"


@pytest.mark.parametrize(
    ("type_name", "expected"),
    [
        ("DateTime", datetime(2026, 11, 23, 0, 0, 0, 123000, tzinfo=UTC)),
        ("String", "2026-11-23T00:00:00.123Z"),
        ("UInt32", 1795392000),
        ("Int64", 1795392000),
        ("Double", 1795392000.0),
    ],
)
def test_a_time_fits_the_node(type_name, expected):
    """Milliseconds in a DateTime and in text, whole seconds in a number."""
    target = Target(type_number=NUMBERS[type_name])
    assert encode(OutcomeField.UPDATED_AT, 1_795_392_000_123_456_789, target) == expected


@pytest.mark.parametrize(
    ("field", "value", "type_name", "words"),
    [
        (OutcomeField.TRANSACTION_ID, "a0B123", "Int32", "String node"),
        (OutcomeField.ERROR_COUNT, 300, "Byte", "300 does not fit a node of type Byte"),
        (OutcomeField.STATE, Code(3, "registered"), "Boolean", "type Boolean"),
        (OutcomeField.TRANSACTION_ID, "a0B123", "ByteString", "type ByteString"),
        (OutcomeField.UPDATED_AT, 1_795_392_000_000_000_000, "Guid", "type Guid"),
        (OutcomeField.UPDATED_AT, 2**62, "Int32", "does not fit"),
    ],
)
def test_what_does_not_fit_is_said_in_words(field, value, type_name, words):
    """The error of one address, for an operator."""
    with pytest.raises(ValueError, match=words):
        encode(field, value, Target(type_number=NUMBERS[type_name]))


def test_digits_and_nothing_fit_a_number():
    """A transaction id of digits fits an integer; an empty one is 0."""
    target = Target(type_number=NUMBERS["UInt32"])
    assert encode(OutcomeField.TRANSACTION_ID, "4711", target) == 4711
    assert encode(OutcomeField.TRANSACTION_ID, "", target) == 0


def test_an_alarm_is_a_boolean_a_number_or_a_word():
    """Whatever the node is."""
    assert encode(OutcomeField.ALARM, True, Target(type_number=NUMBERS["Boolean"])) is True
    assert encode(OutcomeField.ALARM, True, Target(type_number=NUMBERS["Byte"])) == 1
    assert encode(OutcomeField.ALARM, False, Target(type_number=NUMBERS["String"])) == "false"


def test_null_reads_back_as_the_empty_value_that_was_written():
    """Some servers give null for an empty text or array."""
    assert read_back(None, Target(type_number=NUMBERS["String"])) == ""
    assert read_back(None, TEN_LINES) == ()
    assert read_back(None, Target(type_number=NUMBERS["Int32"])) is None
    assert read_back("x", Target(type_number=NUMBERS["String"])) == "x"


VALUES = {
    OutcomeField.STATE: st.builds(Code, st.integers(0, 11), st.text(max_size=8)),
    OutcomeField.TRANSACTION_ID: st.text(max_size=128),
    OutcomeField.ERROR_CODE: st.builds(Code, st.integers(0, 9999), st.text(max_size=20)),
    OutcomeField.ERROR_TEXT: st.lists(st.text(max_size=20), max_size=12).map(tuple),
    OutcomeField.ERROR_COUNT: st.integers(0, 1000),
    OutcomeField.UPDATED_AT: st.integers(0, 4_000_000_000_000_000_000),
    OutcomeField.ALARM: st.booleans(),
}


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)  # a busy machine is no flaw
@given(st.data(), st.sampled_from(sorted(TYPE_NAMES)), st.booleans(), st.sampled_from([None, 1, 10]))
def test_what_is_written_is_what_is_read(data, number, is_array, length):
    """Any outcome into any node: a value that decodes to itself, or a ValueError; nothing else is raised."""
    field = data.draw(st.sampled_from(sorted(VALUES, key=lambda each: each.value)))
    value = data.draw(VALUES[field])
    target = Target(type_number=number, is_array=is_array, length=length if is_array else None)
    try:
        written = encode(field, value, target)
    except ValueError:
        return
    boxed = written
    if TYPE_NAMES[number] == "LocalizedText":
        boxed = [SimpleNamespace(Text=each) for each in written] if is_array else SimpleNamespace(Text=written)
    assert decode(number, list(boxed) if is_array else boxed, GOOD, "", None).value == written
