"""What stands in a payload, and the site file's spelling of where: JMESPath, CSV, plain text."""

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mqtt_site import CRAWLEY, nothing, options_of, read_site, selection_of, selections_of, take

from adapters.mqtt import ADAPTER
from adapters.mqtt.codec import Unreadable
from adapters.mqtt.config import Csv, Format
from adapters.mqtt.payload import Layout, Source, reader, reading
from bridge.api import Quality

LIMIT = 500_000
BODY = {"meters": [{"kind": "import", "mpan": "19"}, {"kind": "export", "mpan": "20"}], "a b": {"c": 1}, "kw": "49,5"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("meters[0].mpan", "19"),
        ("meters.1.mpan", "20"),
        ("meters[?kind=='export'] | [0].mpan", "20"),
        ("meters[*].mpan", ["19", "20"]),
        ("length(meters)", 2),
        ('"a b".c', 1),
        ("a b.c", 1),
        ("not_null(kva, kw)", "49,5"),
        ("meters[7].mpan", None),
        ("to_number('x')", None),
    ],
)
def test_members_by_name_and_by_expression(text, value):
    """Today's names and paths mean what they meant; a letter that no plain name has makes it JMESPath."""
    found = reading(BODY, Source.of(text), {})
    assert found.value == value
    assert found.absent == (value is None)


def test_an_expression_is_compiled_once_and_a_plain_name_never():
    """The quick way stays the quick way."""
    assert Source.of("meter.mpan").expression is None
    source = Source.of("meters[0]")
    compiled = source.expression
    source.find(BODY)
    assert source.expression is compiled


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("meters[", "character|end"),
        ("kw (max)", "double quotes"),
        ("nonsense(kw)", "no function nonsense; known are abs"),
        ("meters[?nonsense(kw)]", "no function nonsense"),
        ("length(kw, kw)", r"takes 1 argument\(s\), not 2"),
        ("'open", "JMESPath"),
        ("a..b", "path such as"),
    ],
)
def test_an_expression_that_cannot_be_is_found_at_start(text, what):
    """With what is wrong in it: also a function that the library would look for only when a message comes."""
    with pytest.raises(ValueError, match=what):
        Source.of(text)


@pytest.mark.parametrize(
    "text", ["abs(kw)", "max(meters)", "sort_by(meters, &to_number(mpan))", "to_number('nan')", "sum(meters[*].mpan)"]
)
def test_an_expression_that_does_not_fit_spoils_its_field_alone(text):
    """The reading is bad, says where and why, and shows nothing of the peer's."""
    found = reading({"kw": "secret", "meters": [{"mpan": "secret"}, {"mpan": 1}]}, Source.of(text), {})
    assert (found.value, found.quality, found.absent) == (None, Quality.BAD, False)
    assert found.detail.startswith(text)
    assert "secret" not in found.detail


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["a", "b"]), inner),
    )
)
def test_no_payload_breaks_an_expression(value):
    """Whatever came, a field is a reading."""
    for text in ("max_by(a, &b)", "a[?b > `1`].b", "join(',', a)", "abs(b)", "sort(a) | [0]", "keys(a)", "avg(a)"):
        assert reading({"a": value, "b": value}, Source.of(text), {}).quality in set(Quality)


@given(
    st.dictionaries(
        st.sampled_from(["kw", "name", "meter"]),
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text()
        | st.dictionaries(st.just("mpan"), st.text()),
    )
)
def test_all_fields_at_once_are_what_each_is_by_itself(body):
    """Whatever a payload holds, there or not: the short way for usual values changes nothing."""
    texts = {"a": "$asset", "b": "kw", "c": "name", "d": "meter.mpan", "e": "meter", "f": "name || kw"}
    sources = {name: Source.of(text) for name, text in texts.items()}
    found = reader(sources)(body, {"asset": "EV001"})
    assert found == {name: reading(body, source, {"asset": "EV001"}) for name, source in sources.items()}
    assert all(type(found[name].value) is type(body.get(text)) for name, text in (("b", "kw"), ("c", "name")) if found[name].quality is Quality.GOOD)  # fmt: skip


def row(payload, **table):
    return Layout.of(Format.CSV, Csv(**table), LIMIT).parse(payload)


def test_csv_rows():
    """Quotes, line ends, a byte order mark, names with blanks around them, empty cells, and a cell of 300 kB."""
    assert row(b'\xef\xbb\xbfa, b\r\n"1;\n2",\r\n') == {"a": "1;\n2", "b": None}
    assert row(b"1\t2", delimiter="\t", columns=("a", "b")) == {"a": "1", "b": "2"}
    assert row(b"a\n" + b"x" * 300_000) == {"a": "x" * 300_000}


@pytest.mark.parametrize(
    ("payload", "what"),
    [
        (b"", "0 line"),
        (b"a,b", "1 line"),
        (b"a\n1\n2", "3 line"),
        (b"a,a\n1,2", "twice"),
        (b"a,b\n1,2,3", "3 cell"),
        (b'a\n"1', "not CSV"),
        (b'a\n"1"2', "not CSV"),
        (b"\xff", "byte 0"),
        (b"a\n" + b"x" * LIMIT, "max_payload"),
    ],
)
def test_csv_that_is_none_says_why(payload, what):
    """On one line."""
    with pytest.raises(Unreadable, match=what) as caught:
        row(payload)
    assert str(caught.value).isprintable()


@given(st.binary(max_size=60), st.sampled_from(Format))
def test_any_bytes_are_a_body_or_unreadable(payload, written):
    """Nothing else comes out of a payload."""
    try:
        found = Layout.of(written, None, LIMIT).parse(payload)
    except Unreadable as error:
        found = {"why": str(error)}
    assert isinstance(found, dict)
    assert found.get("why", "-").isprintable() or payload.startswith(b"why")


@pytest.mark.parametrize(
    ("change", "where", "what"),
    [
        ({"records": {"fields": {"kw": "max(kw"}}}, "records.fields.kw", "JMESPath"),
        ({"records": {"fields": {"kw": "a..b"}}}, "records.fields.kw", "path such as"),
        ({"submit": {"id": "nonsense(id)"}}, "submit.id", "no function nonsense"),
        ({"submit": {"where": {"a[": 1}}}, "submit.where.a[", "JMESPath"),
        ({"submit": {"id": None}}, "submit.id", "such as `id: reqId`"),
        ({"submit": {"format": "plain"}}, "submit.id", "the whole payload is the id"),
        ({"submit": {"format": "plain", "id": None}}, "submit.where", "the whole payload is the id"),
        ({"submit": {"format": "csv", "where": {"n": 1}}}, "submit.where.n", '"1"'),
        (
            {"records": {"format": "csv", "csv": {"columns": ["name"]}}},
            "records.fields.kw",
            "none of `csv.columns`; known are name",
        ),
        ({"records": {"format": "plain", "fields": {"kw": "a/{b}"}}}, "records.fields.kw", "without placeholders"),
        ({"records": {"format": "plain", "fields": {"kw": "a/#"}}}, "records.fields.kw", "wildcard"),
        ({"records": {"format": "plain", "optional": ["reference"]}}, "records.optional", "known are name"),
        (
            {"records": {"format": "plain", "optional": ["name", "mpan", "postcode", "gsp_group", "kw"]}},
            "records.fields",
            "at least one",
        ),
        ({"records": {"optional": ["name"]}}, "records.optional", "belongs to `format: plain`"),
        ({"records": {"format": "plain", "fields": {"kw": "request"}}}, "submit.topic", "could be a registration"),
        ({"records": {"format": "plain", "fields": {"kw": "result"}}}, "outcome.topic", "would hear itself"),
    ],
)
def test_what_a_site_file_may_not_say(change, where, what):
    """Each problem stands at its place and says what would be right."""
    site = copy.deepcopy(read_site(CRAWLEY))
    for part, values in change.items():
        for name, value in values.items():
            here = site["flows"]["chargers"][part]
            here[name] = {**here[name], **value} if name == "fields" else value
    found = {problem.path: problem.text for problem in ADAPTER.check(options_of(site), selections_of(site))}
    assert what in found[f"flows.chargers.{where}"]


def plain_flow(**changes):
    """The shipped flow with a topic for each value."""
    flow = copy.deepcopy(read_site()["flows"]["chargers"])
    flow["records"] |= {
        "format": "plain",
        "fields": {"reference": "$asset", "name": "name", "kw": "kw"},
        "optional": ["name"],
    }
    flow["submit"] |= {"format": "plain", "id": None, "where": {}}
    return selection_of("chargers", {**flow, **changes})


TOPIC = "acme/crawley/ems/asset/EV001/registration"


async def test_a_registration_of_plain_values_is_there_once_each_was_heard(session, ems, version):
    """A request waits for the last needed value; a value that is cleared takes the registration away."""
    async with session(plain_flow(), version=version) as link:
        await ems.publish(f"{TOPIC}/name", "Charger", retain=True)
        await ems.publish(f"{TOPIC}/request", "r-1")
        (first,) = await take(link)
        assert (first.records[0].complete, first.records[0].request) == (False, "r-1")
        first.ack(True)
        await ems.publish(f"{TOPIC}/kw", " 49,5\n", retain=True)
        (second,) = await take(link)
        values = {name: field.value for name, field in second.records[0].fields.items()}
        assert values == {"reference": "EV001", "name": "Charger", "kw": "49,5"}
        assert second.records[0].raw == b"r-1\nname=Charger\nkw= 49,5\n"
        await ems.publish(f"{TOPIC}/kw", b"", retain=True)
        await ems.publish(f"{TOPIC}/request", "r-2")
        (third,) = await take(link)
        assert not third.records[0].complete


async def test_plain_values_on_change(session, ems):
    """Once when it is whole, then with each value that differs; the same value again brings nothing."""
    outcome = read_site()["flows"]["chargers"]["outcome"] | {"payload": {"state": "state"}}
    async with session(plain_flow(submit={"when": "change"}, outcome=outcome)) as link:
        await ems.publish(f"{TOPIC}/name", "Charger", retain=True)
        await nothing(link, 0.1)
        await ems.publish(f"{TOPIC}/kw", "49", retain=True)
        await ems.publish(f"{TOPIC}/kw", "49", retain=True)
        await ems.publish(f"{TOPIC}/kw", "50", retain=True)
        arrivals = await take(link, 2)
        assert [arrival.records[0].fields["kw"].value for arrival in arrivals] == ["49", "50"]
        await nothing(link, 0.1)
