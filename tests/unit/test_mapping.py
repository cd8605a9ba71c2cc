"""The mapping of records: every verb, every refusal, and nothing that an EMS can hold makes it raise."""

import time
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from bridge.api import Options, Outcome, RecordsOptions
from bridge.clock import Stamp
from bridge.config import FlowConfig, Payload
from bridge.mapping import Mapped, Mapper, canonical, compile_flow, digest
from bridge.model import HostReason, Operation, Quality, Reading, Record, Trigger
from bridge.vocabulary import load_vocabulary

VOCABULARY = load_vocabulary()
SINCE = datetime(2026, 11, 23, 10, 0, tzinfo=UTC)


def mapper(operation=Operation.ASSET_CREATE, /, **payload) -> Mapper:
    reference = "assetReference" if operation is Operation.ASSET_CREATE else "unitReference"
    rules = {name.replace("__", "."): rule for name, rule in payload.items()}
    flow = FlowConfig(
        name="flow",
        site="site",
        adapter="ems",
        participant="acme-test",
        operation=operation,
        trigger=Trigger.REQUEST,
        records=RecordsOptions(key="ref", fields={}),
        submit=Options(),
        outcome=Outcome(),
        payload=TypeAdapter(Payload).validate_python({reference: "ref", **rules}),
    )
    return compile_flow(flow, VOCABULARY)


def record(problem="", **values) -> Record:
    fields = {
        name: value if isinstance(value, Reading) else Reading(value=value)
        for name, value in {"ref": "BESS001", **values}.items()
    }
    return Record(flow="flow", place="p", fields=fields, received=Stamp(0, 0, ""), problem=problem)


def one(rule, value, target="maxExportKw") -> object:
    """The value that a rule makes of one EMS value for one target, or the reason of its refusal."""
    mapped = mapper(**{target: rule}).map(record(x=value))
    if mapped.refusals:
        return mapped.refusals[0].reason
    place: object = mapped.item
    for part in target.split("."):
        place = place[part]
    return place


def test_a_record_becomes_an_item():
    """A field of the record, a constant, a map: the item holds the host's own names, the key is the mapped reference."""
    flow = mapper(
        assetName="name",
        connectionType={"const": "DISTRIBUTION"},
        technologyType={"from": "tech", "map": {0: "BATTERY_STORAGE", 1: "SOLAR"}},
        effectiveFrom="since",
    )
    assert flow.map(record(name="North Yard", tech=1, since=SINCE)) == Mapped(
        key="BESS001",
        item={
            "assetReference": "BESS001",
            "assetName": "North Yard",
            "connectionType": "DISTRIBUTION",
            "technologyType": "SOLAR",
            "effectiveFrom": "2026-11-23T10:00:00.000Z",
        },
    )


def test_dotted_names_build_objects():
    """`controlContact.name` stands inside an object; an object without members is left out."""
    flow = mapper(controlContact__name="name", controlContact__phone={"from": "phone", "default": None})
    assert flow.map(record(name="Control", phone="")).item["controlContact"] == {"name": "Control"}
    flow = mapper(controlContact__phone={"from": "phone", "default": None})
    assert "controlContact" not in flow.map(record(phone="")).item


@pytest.mark.parametrize(
    ("rule", "value", "made"),
    [
        ("x", 49500, 49500),
        ("x", 49500.0, 49500),
        ({"from": "x", "round": 0}, 49500.5, 49501),
        ({"from": "x", "round": 0}, -0.5, -1),
        ({"from": "x", "round": 0}, 2.4999, 2),
        ({"from": "x", "scale": 1000}, 49.5, 49500),
        ({"from": "x", "scale": 1000}, 0.3, 300),
        ({"from": "x", "scale": 0.001, "round": 0}, 49_500_400, 49500),
        ({"from": "x", "offset": -32768}, 32768 + 7, 7),
        ({"from": "x", "scale": 10, "offset": 5}, 2, 25),
        ({"from": "x", "number": {"decimal": ","}, "scale": 1000}, "49,5", 49500),
        ({"from": "x", "number": {"decimal": ",", "thousands": "."}}, "1.234,0", 1234),
        ({"from": "x", "number": {"decimal": "."}}, " -12 ", -12),
        ({"from": "x", "number": {"decimal": "."}}, 12, 12),
        ({"from": "x", "map": {"high": 100, "low": 1}}, "low", 1),
        ({"from": "x", "number": {"decimal": ","}, "map": {0: 5}}, "0", 5),
        ({"from": "x", "default": 7}, None, 7),
        ({"from": "x", "default": 7}, "", 7),
        ({"from": "x", "default": 7}, Reading(value=None, quality=Quality.BAD, absent=True), 7),
        ({"from": "x", "default": 7}, 3, 3),
        ({"const": 3}, 4, 3),
    ],
)
def test_numbers(rule, value, made):
    """Every verb that makes a number, in decimals and with its type."""
    result = one(rule, value)
    assert result == made
    assert type(result) is int


def test_scaling_is_exact():
    """66 * 0.1 is 6.6: power and voltage do not drift by binary fractions."""
    assert one({"from": "x", "scale": 0.1}, 66, "connectionVoltageKv") == 6.6
    assert one({"from": "x", "scale": 0.1}, 4, "connectionVoltageKv") == 0.4
    assert one({"from": "x", "scale": 0.1}, 330, "connectionVoltageKv") == 33


@pytest.mark.parametrize(
    ("rule", "value", "made"),
    [
        ("x", "North Yard", "North Yard"),
        ("x", "  North Yard ", "North Yard"),
        ("x", "Cafe\u0301", "Caf\u00e9"),
        ({"from": "x", "format": "Battery {}"}, "7", "Battery 7"),
        ({"from": "x", "format": "B{:03d}"}, 7, "B007"),
        ({"format": "{ref}/{x}"}, "7", "BESS001/7"),
        ({"from": "x", "format": "{ref}-{}"}, "7", "BESS001-7"),
        ({"from": "x", "format": "%d.%m.%Y"}, SINCE, "23.11.2026"),
        ({"from": "x", "format": "%H:%M", "zone": "Europe/London"}, datetime(2026, 7, 1, 10, 0, tzinfo=UTC), "11:00"),
        ({"from": "x", "map": {True: "yes", False: "no"}}, True, "yes"),
        ({"from": "x", "default": "none"}, "   ", "none"),
    ],
)
def test_text(rule, value, made):
    """Every verb that makes text; outer blanks go, Unicode is NFC."""
    assert one(rule, value, "assetName") == made


@pytest.mark.parametrize(
    ("rule", "value", "made"),
    [
        ("x", SINCE, "2026-11-23T10:00:00.000Z"),
        ("x", datetime(2026, 11, 23, 12, 0, 0, 999_999, tzinfo=timezone(timedelta(hours=2))), "2026-11-23T10:00:00.999Z"),
        ("x", "2026-11-23T10:00:00Z", "2026-11-23T10:00:00.000Z"),
        ("x", "2026-07-01T10:00:00+01:00", "2026-07-01T09:00:00.000Z"),
        ({"from": "x", "format": "epoch_s"}, 1795392000, "2026-11-23T00:00:00.000Z"),
        ({"from": "x", "format": "epoch_ms"}, 1795392000123, "2026-11-23T00:00:00.123Z"),
        ({"from": "x", "format": "%d/%m/%Y %H:%M %z"}, "23/11/2026 12:00 +0200", "2026-11-23T10:00:00.000Z"),
        ({"from": "x", "format": "%d/%m/%Y", "zone": "Europe/London"}, "01/07/2026", "2026-06-30T23:00:00.000Z"),
        ({"from": "x", "format": "%d/%m/%Y %H:%M", "zone": "Europe/London"}, "25/10/2026 01:30", "2026-10-25T00:30:00.000Z"),
        ({"from": "x", "format": "%d/%m/%Y %H:%M", "zone": "Europe/London", "fold": "later"}, "25/10/2026 01:30", "2026-10-25T01:30:00.000Z"),
        ({"const": "2026-12-01T00:00:00Z"}, None, "2026-12-01T00:00:00.000Z"),
        ({"from": "x", "default": "2026-12-01T00:00:00Z"}, datetime(1601, 1, 1, tzinfo=UTC), "2026-12-01T00:00:00.000Z"),
    ],
)  # fmt: skip
def test_instants(rule, value, made):
    """Every form of a moment becomes UTC text with milliseconds; a local time needs its zone."""
    assert one(rule, value, "effectiveFrom") == made


@pytest.mark.parametrize(
    ("target", "rule", "value", "reason"),
    [
        ("maxExportKw", "x", "49500", HostReason.WRONG_TYPE),
        ("maxExportKw", "x", "49,5", HostReason.WRONG_TYPE),
        ("maxExportKw", "x", 49500.5, HostReason.WRONG_TYPE),
        ("maxExportKw", "x", True, HostReason.WRONG_TYPE),
        ("maxExportKw", "x", [1], HostReason.WRONG_TYPE),
        ("maxExportKw", "x", float("nan"), HostReason.NOT_A_NUMBER),
        ("maxExportKw", "x", float("-inf"), HostReason.NOT_A_NUMBER),
        ("maxExportKw", "x", 2**53 + 1, HostReason.NOT_A_NUMBER),
        ("maxExportKw", "x", 1e300, HostReason.NOT_A_NUMBER),
        pytest.param("maxExportKw", "x", 10**5000, HostReason.NOT_A_NUMBER, id="huge-180"),
        pytest.param("assetName", "x", 10**5000, HostReason.WRONG_TYPE, id="huge-181"),
        pytest.param("assetName", {"from": "x", "format": "{}"}, 10**5000, HostReason.WRONG_TYPE, id="huge-182"),
        pytest.param("technologyType", {"from": "x", "map": {0: "SOLAR"}}, 10**5000, HostReason.UNMAPPED_VALUE, id="huge-183"),
        ("maxExportKw", {"from": "x", "number": {"decimal": ","}}, "9" * 5000, HostReason.NOT_A_NUMBER),
        ("maxExportKw", {"from": "x", "number": {"decimal": ","}, "scale": 2}, "9" * 5000, HostReason.NOT_A_NUMBER),
        pytest.param("effectiveFrom", {"from": "x", "format": "epoch_s"}, 10**5000, HostReason.NOT_A_NUMBER, id="huge-186"),
        ("maxExportKw", {"from": "x", "round": 0}, float("nan"), HostReason.NOT_A_NUMBER),
        ("maxExportKw", {"from": "x", "scale": 1e300}, 1e15, HostReason.NOT_A_NUMBER),
        ("maxExportKw", {"from": "x", "number": {"decimal": ","}}, "49.5", HostReason.WRONG_TYPE),
        ("maxExportKw", {"from": "x", "number": {"decimal": ","}}, "49,", HostReason.WRONG_TYPE),
        ("maxExportKw", {"from": "x", "number": {"decimal": ","}}, "1e3", HostReason.WRONG_TYPE),
        ("maxExportKw", {"from": "x", "number": {"decimal": ","}}, "NaN", HostReason.WRONG_TYPE),
        ("maxExportKw", {"from": "x", "number": {"decimal": ","}}, "٤٩", HostReason.WRONG_TYPE),
        ("maxExportKw", {"from": "x", "number": {"decimal": ",", "thousands": "."}}, "12.34", HostReason.WRONG_TYPE),
        ("maxExportKw", "x", None, HostReason.MISSING_VALUE),
        ("maxExportKw", "y", 1, HostReason.MISSING_VALUE),
        ("maxExportKw", "x", Reading(value=1, quality=Quality.BAD), HostReason.BAD_QUALITY),
        ("maxExportKw", "x", Reading(value=1, quality=Quality.UNCERTAIN), HostReason.BAD_QUALITY),
        ("maxExportKw", {"from": "x", "default": 1}, Reading(value=None, quality=Quality.BAD), HostReason.BAD_QUALITY),
        ("assetName", "x", "two\nlines", HostReason.TEXT_NOT_ALLOWED),
        ("assetName", "x", "nul\x00", HostReason.TEXT_NOT_ALLOWED),
        ("assetName", "x", "right\u202eleft", HostReason.TEXT_NOT_ALLOWED),
        ("assetName", "x", "half \ud800", HostReason.TEXT_NOT_ALLOWED),
        ("assetName", {"from": "x", "format": "{} {ref}"}, "a\tb", HostReason.TEXT_NOT_ALLOWED),
        ("assetName", "x", 17, HostReason.WRONG_TYPE),
        ("assetName", {"from": "x", "format": "{:03d}"}, "seven", HostReason.WRONG_TYPE),
        ("assetName", {"format": "{x}"}, Reading(value="a", quality=Quality.BAD), HostReason.BAD_QUALITY),
        ("assetName", {"format": "{x}"}, None, HostReason.MISSING_VALUE),
        ("technologyType", {"from": "x", "map": {0: "SOLAR"}}, 1, HostReason.UNMAPPED_VALUE),
        ("technologyType", {"from": "x", "map": {0: "SOLAR"}}, False, HostReason.UNMAPPED_VALUE),
        ("technologyType", {"from": "x", "map": {0: "SOLAR"}}, [0], HostReason.UNMAPPED_VALUE),
        ("effectiveFrom", "x", datetime(2026, 11, 23), HostReason.WRONG_TYPE),
        ("effectiveFrom", "x", "2026-11-23T10:00:00", HostReason.WRONG_TYPE),
        ("effectiveFrom", "x", "soon", HostReason.WRONG_TYPE),
        ("effectiveFrom", "x", 1795392000, HostReason.WRONG_TYPE),
        ("effectiveFrom", {"from": "x", "format": "epoch_s"}, 1e15, HostReason.WRONG_TYPE),
        ("effectiveFrom", {"from": "x", "format": "%d/%m/%Y", "zone": "UTC"}, "2026-11-23", HostReason.WRONG_TYPE),
        ("effectiveFrom", {"from": "x", "format": "%d/%m/%Y %H:%M", "zone": "Europe/London"}, "29/03/2026 01:30", HostReason.WRONG_TYPE),
        ("effectiveFrom", {"from": "x", "format": "%Y-%m-%d %H:%M", "zone": "Asia/Tokyo"}, "0001-01-01 00:00", HostReason.WRONG_TYPE),
        ("effectiveFrom", {"from": "x", "format": "%Y-%m-%d %H:%M", "zone": "America/New_York"}, "9999-12-31 23:59", HostReason.WRONG_TYPE),
        ("assetName", {"from": "x", "format": "%d.%m.%Y", "zone": "Europe/Paris"}, datetime(9999, 12, 31, 23, 59, tzinfo=UTC), HostReason.WRONG_TYPE),
        pytest.param("assetName", {"from": "x", "format": "{:.2f}"}, 10**400, HostReason.WRONG_TYPE, id="huge-float"),
        pytest.param("assetName", {"format": "{x:c}"}, 2**63, HostReason.WRONG_TYPE, id="huge-letter"),
        ("maxExportKw", "x", Decimal("sNaN"), HostReason.NOT_A_NUMBER),
        ("services", "x", "DCL", HostReason.WRONG_TYPE),
        ("services", "x", ("DCL", 3), HostReason.WRONG_TYPE),
    ],
)  # fmt: skip
def test_refusals(target, rule, value, reason):
    """Everything that cannot be used is refused with its own reason."""
    assert one(rule, value, target) is reason


def test_a_number_of_very_many_digits_is_refused_at_once():
    """Reading 300 kB of digits as one number would hold up every site of the process for seconds."""
    started = time.perf_counter()
    for rule in ({"from": "x", "number": {"decimal": ","}}, {"from": "x", "number": {"decimal": ","}, "scale": 0.1}):
        assert one(rule, "1" * 300_000) is HostReason.NOT_A_NUMBER
    assert time.perf_counter() - started < 1


def test_lists_of_text():
    """A list of words is taken as it is."""
    assert one("x", ("DCL", "DCH"), "services") == ["DCL", "DCH"]
    assert one({"const": ["DCL"]}, None, "services") == ["DCL"]


def test_the_refusal_names_the_field_and_what_would_be_right():
    """A person in front of the EMS reads which field, what it holds and what is wanted; the peer's text is capped and stripped."""
    mapped = mapper(maxExportKw="kw").map(record(kw="x\x1b[2J" + "y" * 5000))
    (refusal,) = mapped.refusals
    assert refusal.text.startswith("maxExportKw is the text 'x?[2J")
    assert "must be a number" in refusal.text
    assert len(refusal.text) < 200
    detail = Reading(value=1, quality=Quality.UNCERTAIN, detail="UncertainLastUsableValue")
    (refusal,) = mapper(maxExportKw="kw").map(record(kw=detail)).refusals
    assert refusal.text == (
        "maxExportKw cannot be used: the EMS marks kw as uncertain (UncertainLastUsableValue), must be good"
    )


def test_all_refusals_are_collected():
    """One bad field does not hide another, and the key is still known."""
    mapped = mapper(assetName="name", maxExportKw="kw", importMpan="mpan").map(record(name="a\n", kw="x"))
    assert mapped.key == "BESS001"
    assert [refusal.reason for refusal in mapped.refusals] == [
        HostReason.TEXT_NOT_ALLOWED,
        HostReason.WRONG_TYPE,
        HostReason.MISSING_VALUE,
    ]


@pytest.mark.parametrize(
    ("problem", "reason"),
    [("torn: the sequence moved", HostReason.TORN_RECORD), ("not UTF-8\n", HostReason.UNREADABLE)],
)
def test_a_record_with_a_problem_is_refused_as_a_whole(problem, reason):
    """A torn or unreadable record gives one refusal and its key where that can be told."""
    (refusal,) = mapper(assetName="name").map(record(problem=problem)).refusals
    assert refusal.reason is reason
    assert "\n" not in refusal.text
    assert mapper().map(record(problem=problem)).key == "BESS001"
    assert mapper().map(record(problem=problem, ref=3)).key is None


def test_a_record_without_its_key_is_refused():
    """A key that is missing, empty or left out is a refusal, never an empty key."""
    assert mapper().map(record(ref=" ")).refusals[0].reason is HostReason.MISSING_VALUE
    flow = mapper(assetReference={"from": "ref", "default": None})
    mapped = flow.map(record(ref=""))
    assert (mapped.key, mapped.refusals[0].reason) == (None, HostReason.NO_KEY)


def test_the_key_is_the_mapped_reference():
    """The check before a write-back maps what it reads in the same way."""
    flow = mapper(assetReference={"from": "ref", "format": "ACME-{}"})
    assert flow.map(record()).key == "ACME-BESS001"
    assert flow.key_of({"ref": Reading(value="BESS002")}) == "ACME-BESS002"
    assert flow.key_of({"ref": Reading(value="BESS002", quality=Quality.BAD)}) is None
    assert flow.key_of({}) is None


UNIT = {
    "alignedAssets": {
        "each": "members",
        "item": {"assetReference": "$item", "effectiveFrom": {"from": "since"}},
    },
    "effectiveFrom": "since",
}


def test_each_makes_a_list_and_names_the_members():
    """A unit's aligned assets come from a list of keys; their capacity is left for what is registered."""
    mapped = mapper(Operation.UNIT_CREATE, **UNIT).map(record(members=("BESS001", " BESS002"), since=SINCE))
    since = "2026-11-23T10:00:00.000Z"
    assert mapped.refusals == ()
    assert mapped.members == ("BESS001", "BESS002")
    assert mapped.item["alignedAssets"] == [
        {"assetReference": "BESS001", "effectiveFrom": since},
        {"assetReference": "BESS002", "effectiveFrom": since},
    ]


def test_each_reads_objects():
    """Elements that are objects are read by `$item.name`."""
    rule = {
        "each": "members",
        "item": {"assetReference": "$item.ref", "alignedCapacityKw": {"from": "$item.kw", "round": 0, "default": None}},
    }
    flow = mapper(Operation.UNIT_CREATE, alignedAssets=rule)
    mapped = flow.map(record(members=[{"ref": "A", "kw": 2.5}, {"ref": "B"}]))
    assert mapped.item["alignedAssets"] == [{"assetReference": "A", "alignedCapacityKw": 3}, {"assetReference": "B"}]
    mapped = flow.map(record(members=[{"kw": 1}, "B"]))
    assert [refusal.text.split(" ")[0] for refusal in mapped.refusals] == [
        "alignedAssets[0].assetReference",
        "alignedAssets[1].assetReference",
    ]


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ("BESS001", HostReason.WRONG_TYPE),
        (None, HostReason.MISSING_VALUE),
        (Reading(value=(), quality=Quality.BAD), HostReason.BAD_QUALITY),
        (("BESS001", ""), HostReason.MISSING_VALUE),
        (("BESS001", 7), HostReason.WRONG_TYPE),
    ],
)
def test_a_bad_list_is_refused(members, reason):
    """A list that is none, is missing, is bad, or holds a bad element refuses the unit."""
    mapped = mapper(Operation.UNIT_CREATE, **UNIT).map(record(members=members, since=SINCE))
    assert [refusal.reason for refusal in mapped.refusals] == [reason]


def test_a_long_list_of_bad_elements_gives_a_short_answer():
    """A thousand bad elements do not make a thousand lines."""
    mapped = mapper(Operation.UNIT_CREATE, **UNIT).map(record(members=(7,) * 1000, since=SINCE))
    assert len(mapped.refusals) == 10


@pytest.mark.parametrize(
    "rule",
    [
        {},
        {"const": 1, "from": "x"},
        {"map": {1: 2}},
        {"const": 1, "round": 0},
        {"const": 1, "default": 0},
        {"each": "x"},
        {"item": {"a": "b"}},
        {"from": "x", "format": "{x.__class__}"},
        {"from": "x", "format": "{0[a]}"},
        {"from": "x", "format": "{!r}"},
        {"from": "x", "format": "{"},
        {"from": "x", "zone": "UTC"},
        {"from": "x", "map": {}},
        {"from": "x", "map": {1: [2]}},
        {"from": "x", "number": {"decimal": ",", "thousands": ","}},
        {"from": "x", "scale": float("nan")},
        {"from": "x", "rounds": 0},
        17,
    ],
)
def test_rules_that_mean_nothing_are_refused_at_start(rule):
    """A rule with no source, two sources, or a verb without work is an error of the configuration."""
    with pytest.raises(ValidationError):
        mapper(maxExportKw=rule)


def test_content_is_spelled_once():
    """The same item has the same bytes and digest whatever the order of its fields."""
    assert canonical({"b": 1, "a": {"d": 2, "c": 3}}) == b'{"a":{"c":3,"d":2},"b":1}'
    assert digest(b"x") == sha256(b"x").digest()[:16]


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.datetimes(timezones=st.none() | st.just(UTC)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=4,
)
RULES = [
    ("maxExportKw", {"from": "x", "number": {"decimal": ",", "thousands": "."}, "scale": 0.1, "round": 0}),
    ("connectionVoltageKv", {"from": "x", "offset": 0.1}),
    ("assetName", "x"),
    ("assetName", {"from": "x", "format": "{:>5}{ref}"}),
    ("assetName", {"from": "x", "format": "%Y %d"}),
    ("technologyType", {"from": "x", "map": {0: "SOLAR", "a": "WIND_ONSHORE"}}),
    ("effectiveFrom", "x"),
    ("effectiveFrom", {"from": "x", "format": "epoch_ms"}),
    ("effectiveFrom", {"from": "x", "format": "%d.%m.%Y", "zone": "Europe/London"}),
    ("services", "x"),
]
MAPPERS = [mapper(**{target: rule}) for target, rule in RULES]


@given(value=ANYTHING, quality=st.sampled_from(Quality))
def test_nothing_an_ems_can_hold_makes_it_raise(value, quality):
    """Whatever the value, there is an item that JSON can carry, or a refusal."""
    for flow in MAPPERS:
        mapped = flow.map(record(x=Reading(value=value, quality=quality)))
        assert mapped.refusals or canonical(mapped.item)
        assert quality is Quality.GOOD or mapped.refusals
