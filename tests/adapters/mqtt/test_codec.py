"""Payloads and values."""

import json
from unittest import mock

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from adapters.mqtt import codec
from adapters.mqtt.codec import Unreadable, encode, find, parse, printable
from adapters.mqtt.payload import Source, fits, reading, request_id
from bridge.api import Code, OutcomeField, Quality

LIMIT = 1_000_000


def test_numbers_and_texts_keep_their_types():
    """The flow's verbs decide what a text means, not the adapter."""
    body = parse(b'{"a": "49,5", "b": 49.5, "c": 49, "d": true, "e": null, "f": ["x"], "g": {"h": "y"}}', LIMIT)
    assert body == {"a": "49,5", "b": 49.5, "c": 49, "d": True, "e": None, "f": ["x"], "g": {"h": "y"}}


def test_a_byte_order_mark_is_no_error():
    """Some EMS write one."""
    assert parse(b'\xef\xbb\xbf{"a": 1}', LIMIT) == {"a": 1}


@pytest.mark.parametrize(
    ("payload", "what"),
    [
        (b"", "not JSON"),
        (b"null", "not a JSON object"),
        (b'"text"', "not a JSON object"),
        (b'{"a": 1,}', "not JSON"),
        (b'{"a": 1} {"b": 2}', "not JSON"),
        (b'{"a": Infinity}', "Infinity"),
        (b'{"x": {"a": 1, "a": 1}}', "twice"),
        (b"\xff", "byte 0"),
        (b"[" * 50_000, "deep"),
        (b'{"a": "' + b"x" * 1000 + b'"}', "`max_payload` allows 999"),
    ],
)
def test_an_unreadable_payload_says_why(payload, what):
    """On one line, and never with the peer's own text."""
    with pytest.raises(Unreadable, match=what) as caught:
        parse(payload, 999 if b"xxx" in payload else LIMIT)
    assert str(caught.value).isprintable()


@given(st.binary(max_size=200))
def test_any_bytes_are_an_object_or_unreadable(payload):
    """Nothing else comes out of a payload."""
    try:
        found = parse(payload, LIMIT)
    except Unreadable as error:
        found = {"why": str(error)}
        payload = b""
    assert isinstance(found, dict)
    assert payload or found["why"].isprintable()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("a", {"b": [10, {"c": "x"}]}),
        ("a.b.0", 10),
        ("a.b.1.c", "x"),
        ("a.b.2", None),
        ("a.b.x", None),
        ("a.x.c", None),
        ("x", None),
        ("a.b.0.c", None),
    ],
)
def test_paths(path, value):
    """Members by name, elements by number, None where there is nothing."""
    assert find({"a": {"b": [10, {"c": "x"}]}}, path.split(".")) == value


def test_readings():
    """A placeholder, a member, and what is not there."""
    assert reading({}, Source.of("$asset"), {"asset": "EV001"}).value == "EV001"
    assert reading({"a": {"b": 0}}, Source.of("a.b"), {}).value == 0
    nothing = reading({"a": {"b": None}}, Source.of("a.b"), {})
    assert (nothing.value, nothing.quality, nothing.absent) == (None, Quality.BAD, True)
    assert "a.b" in nothing.detail


def test_request_ids():
    """Text and whole numbers, as they can be kept and given back."""
    assert request_id({"id": "r-17"}, Source.of("id")) == "r-17"
    assert request_id({"id": 17}, Source.of("id")) == "17"
    for bad in (None, "", True, 1.0, [], {}, 2**65, "a\n", "\ud800", "x" * 201):
        with pytest.raises(Unreadable):
            request_id({"id": bad}, Source.of("id"))


def test_where_compares_types_too():
    """1, true and "1" are three values; a missing member equals null."""
    for wanted in (1, True, "1", None):
        fitting = [value for value in (1, True, "1", None) if fits({"a": value}, [(Source.of("a"), wanted)])]
        assert fitting == [wanted]
        assert type(fitting[0]) is type(wanted)
    assert fits({}, [(Source.of("a"), None)])
    assert fits({}, [])


def test_an_outcome_becomes_one_object():
    """Words, numbers, lists and times; nested members share their parent."""
    values = {
        OutcomeField.STATE: Code(4, "refused"),
        OutcomeField.ERROR_TEXT: ("a", "b"),
        OutcomeField.UPDATED_AT: 1_795_392_000_000_000_000,
        OutcomeField.TRANSACTION_ID: "a0B\ud800",
    }
    payload = {
        "s.word": "state",
        "s.number": "state.number",
        "errors": "errorText",
        "at": "updatedAt",
        "t": "transactionId",
        "missing": "assetId",
    }
    assert json.loads(encode(payload, values)) == {
        "s": {"word": "refused", "number": 4},
        "errors": ["a", "b"],
        "at": "2026-11-23T00:00:00.000Z",
        "t": "a0B?",
        "missing": None,
    }


def test_a_peers_text_in_a_log_line():
    """One line, capped."""
    assert printable("a\n\x1b[31mb" + "x" * 500) == "a??[31mb" + "x" * 72


# the quicker way and the other one -----------------------------------------------------------------------------------------

MEMBERS = st.sampled_from(['"a"', '"b"', '"a "', '"\\u0061"', '"ä"', '""', '"x:y"', '"q,"'])
VALUES = st.one_of(
    st.sampled_from([
        "1", "-1", "0", "-0", "1.5", "-0.0", "1e5", "1E400", "-1e400", "1e-400", "9007199254740993", "9007199254740993.0", "18446744073709551615",
        "18446744073709551616", "-9223372036854775809", "1" * 400, "01", "1.", ".5", "+1", "0x1", "NaN", "Infinity", "true", "false", "null", "True",
        '"x"', '"\\""', '"\\ud800"', '"\\u0000"', '"\x01"', '"a", "a": "b"', '{"c": 1}', '{"c": 1, "c": 2}', '["x"]', "[]", "{}", '"', "", "1 2",
        '"\ud7ff"', '"\U0001f600"', '"{"', '"a":',
    ]),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.integers().map(str),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=5).map(lambda text: f'"{text}"'),
)  # fmt: skip
PAYLOADS = st.builds(
    lambda pairs, before, between, after: (
        f"{before}{{{between.join(f'{name}:{value}' for name, value in pairs)}}}{after}".encode()
    ),
    st.lists(st.tuples(MEMBERS, VALUES), max_size=4),
    st.sampled_from(["", " ", "\n", "\ufeff", "\x00", "x"]),
    st.sampled_from([",", " , ", ",\n", ",,", ""]),
    st.sampled_from(["", " ", "\n", ",", "x", "\x00", "}"]),
)


def outcome(read, *args):
    """What comes of it, with the types of all values, for 1 is True and 0.0 is -0.0."""
    try:
        found = read(*args)
    except Unreadable as error:
        return str(error)
    return repr(found)


@given(PAYLOADS | st.binary(max_size=12))
@example(b'{"a":1,"a":2}')
@example(b'{"a":"x","b":1,"a":2}')
@example(b'{"a":18446744073709551616}')
@example(b'{"a":-9223372036854775809}')
@example(b'{"a":{"b":1,"b":1}}')
@example(b'{"a":[{"b":1,"b":1}]}')
@example(b'{"a":[18446744073709551616]}')
@example(b'{"a":"\\ud800"}')
@example(b'{"a":1,"\\u0061":"\\""}')
def test_a_flat_payload_is_read_as_any_other(payload):
    """Whatever the quicker parser takes, the other one takes for the same; and what that refuses, this one does."""
    with mock.patch.object(codec, "_flat", return_value=None):
        slow = outcome(parse, payload, 1000)
    assert outcome(parse, payload, 1000) == slow


@pytest.mark.parametrize("payload", [b'{"id":"A","kw":5,"at":null,"share":0.5,"on":true}', b"{}", b' {"a" : "x, {y}"}\n', '{"ä":"ö"}'.encode()])  # fmt: skip
def test_a_record_is_read_the_quicker_way(payload):
    """Else it would cost three times as much, for each record of a fleet."""
    assert codec._flat(payload) == json.loads(payload)
