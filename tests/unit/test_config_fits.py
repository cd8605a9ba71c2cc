"""Types that never fit between a record's field and the payload: told before anything runs, and nothing else is."""

import itertools
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import ValidationError

from bridge.config import load
from bridge.config.fits import _misfit
from bridge.config.kinds import WrongValue
from bridge.config.payload import Rule
from bridge.config.verbs import steps_of
from bridge.errors import ConfigError
from bridge.model import ValueKind
from bridge.registry import find

ROOT = Path(__file__).parents[2]
GOOD = Path(__file__).parent / "config_cases" / "good"
RUGBY, CRAWLEY = (ROOT / "config" / "sites" / f"{name}.yaml" for name in ("rugby", "crawley"))
EXPORT, ALWAYS = "maxExportKw: export_kw", "every item would be refused"

VALUES = {
    ValueKind.TEXT: ["BESS", "7", "7.0", "2026-12-01T00:00:00Z", "01.12.2026"],
    ValueKind.WHOLE: [0, 7],
    ValueKind.NUMBER: [7, 7.5],
    ValueKind.FLOAT: [7.3],
    ValueKind.BOOLEAN: [True, False],
    ValueKind.MOMENT: [datetime(2026, 12, 1, tzinfo=UTC)],
    ValueKind.LIST: [("a", "b")],
    ValueKind.NUMBERS: [(1, 2)],
}
VERBS = [
    {},
    {"number": {"decimal": "."}},
    {"scale": 2},
    {"round": 0},
    {"number": {"decimal": "."}, "round": 0},
    {"scale": 0.1, "round": 0},
    {"format": "{}"},
    {"format": "epoch_s"},
    {"format": "%d.%m.%Y", "zone": "UTC"},
]
SUIT = {
    **dict.fromkeys(("integer", "number"), {"number", "scale", "round"}),
    **dict.fromkeys(("text", "instant"), {"format", "zone"}),
    **dict.fromkeys(("enum", "boolean", "list"), set()),
}
NOT_OF = {"instant": {"{}"}, "text": {"epoch_s"}}


def works(rule, target, value):
    try:
        for step in steps_of(rule, target):
            value = step(value)
    except WrongValue:
        return False
    return True


@pytest.mark.parametrize("target", ["text", "enum", "integer", "number", "boolean", "instant", "list"])
def test_what_is_told_never_works_and_what_is_not_told_may(target):
    """Every kind through every verb into every type, beside what the mapping itself does with values of that kind."""
    for (kind, values), verbs in itertools.product(VALUES.items(), VERBS):
        if not verbs.keys() <= SUIT[target] or verbs.get("format", "%") in NOT_OF.get(target, ()):
            continue  # told without knowing the field
        rule = Rule.model_validate({"from": "it", **verbs})
        told = _misfit(rule, {"it": kind}, target) is not None
        assert told is not any(works(rule, target, value) for value in values), (kind, verbs, target)


@pytest.mark.parametrize("kind", VALUES)
@pytest.mark.parametrize("words", [{0: "a", 7: "b", 7.3: "c"}, {"BESS": "a", "7": "b"}, {True: "a", False: "b"}])
def test_a_map_without_a_key_that_the_field_can_be(kind, words):
    """Keys in quotes are text, and true is not 1."""
    rule = Rule.model_validate({"from": "it", "map": words})
    told = _misfit(rule, {"it": kind}, "text")
    assert (told is None) is any(works(rule, "text", value) for value in VALUES[kind])


def test_one_quoted_key_among_others():
    """It would never be found; beside the same number without quotes it does no harm."""
    kinds = {"it": ValueKind.WHOLE}
    assert _misfit(Rule.model_validate({"from": "it", "map": {"0": "a", 1: "b"}}), kinds, "text") == (
        "map",
        "`it` is a whole number, so '0' would never be found; write numbers, without quotes",
    )
    assert _misfit(Rule.model_validate({"from": "it", "map": {"0": "a", 0: "a"}}), kinds, "text") is None


def test_a_rule_has_one_source():
    """What the table above leaves out cannot be written."""
    with pytest.raises(ValidationError):
        Rule.model_validate({"const": 1, "scale": 2})


@pytest.fixture
def told(tmp_path):
    """What is wrong with a shipped site, some of its text replaced."""

    def read(path, *changes):
        directory = tmp_path / "config"
        shutil.copytree(GOOD, directory, dirs_exist_ok=True)
        (directory / "sites" / "north.yaml").unlink(missing_ok=True)
        text = path.read_text("utf-8").replace("../../keys/crawley-ca.pem", "../keys/any.pem")
        text = text.replace("{file: ../../keys/crawley-password}", "{env: PASSWORD}")
        for old, new in changes:
            assert old in text
            text = text.replace(old, new, 1)
        (directory / "sites" / path.name).write_text(text, "utf-8")
        try:
            load(directory, find, environ={"PASSWORD": "x"})
        except ConfigError as error:
            return [f"{problem.path}: {problem.text}" for problem in error.problems]
        return []

    return read


@pytest.mark.parametrize("path", [RUGBY, CRAWLEY], ids=lambda path: path.stem)
def test_the_shipped_sites_are_silent(told, path):
    """Nothing is wrong with them."""
    assert told(path) == []


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            [(EXPORT, "maxExportKw: name")],
            f'maxExportKw: `name` is text, and this field is an integer: {ALWAYS}; add `number: {{decimal: "."}}` if it holds digits, or name another field',
        ),
        (
            [("at: 30, type: int32", "at: 30, type: float32")],
            "maxExportKw: `export_kw` is a floating-point number, and this field is an integer: add `round: 0`, for one that is not whole would be refused",
        ),
        (
            [("mpan: {at: 16, type: string, registers: 7}", "mpan: {at: 16, type: uint64}")],
            f'importMpan: `mpan` is a whole number, and this field is text: {ALWAYS}; add `format: "{{}}"` or a `map`, or name another field',
        ),
        (
            [("{0: BATTERY_STORAGE", "{'0': BATTERY_STORAGE")],
            "technologyType.map: `technology` is a whole number, so '0' would never be found; write numbers, without quotes",
        ),
        (
            [("at: 28, type: uint16", "at: 28, type: bit, bit: 0"), ("{0: BATTERY_STORAGE, 1: SOLAR, ", "{0: SOLAR, ")],
            "technologyType.map: `technology` is true or false, so 0, 2, 3, 4, 5, 6, 7, 8, 9 would never be found; write true and false",
        ),
        (
            [("effectiveFrom: effective", "effectiveFrom: voltage")],
            f"effectiveFrom: `voltage` is a whole number, and this field is a date-time: {ALWAYS}; add `format: epoch_s` or `epoch_ms`",
        ),
        (
            [("{from: voltage, scale: 0.1}", "{from: name, scale: 0.1}")],
            'connectionVoltageKv.scale: works on numbers, and `name` is text; add `number: {decimal: "."}`',
        ),
    ],
)
def test_a_modbus_field_that_does_not_fit(told, changes, problem):
    """One problem each, at the rule, with what would be right."""
    assert told(RUGBY, *changes) == [f"flows.batteries.payload.{problem}"]


@pytest.mark.parametrize(
    "changes",
    [
        [("at: 30, type: int32", "at: 30, type: float32"), (EXPORT, "maxExportKw: {from: export_kw, round: 0}")],
        [("at: 30, type: int32, order: ABCD", "at: 30, type: int16, scale_at: 31")],
        [("mpan: {at: 16, type: string, registers: 7}", "mpan: {at: 16, type: uint64}"), ("importMpan: mpan", 'importMpan: {from: mpan, format: "{:013d}"}')],
        [("at: 28, type: uint16", "at: 28, type: bit, bit: 0"), ("{0: BATTERY_STORAGE, 1: SOLAR, 2: WIND_ONSHORE, 3: WIND_OFFSHORE, 4: HYDRO, 5: PUMPED_STORAGE, 6: GAS_RECIPROCATING, 7: CCGT, 8: OCGT, 9: DIESEL}", "{true: SOLAR, false: HYDRO}")],
    ],
)  # fmt: skip
def test_a_modbus_field_that_is_made_to_fit(told, changes):
    """The remedies that are named are ones."""
    assert told(RUGBY, *changes) == []


def test_record_numbers_are_no_references(told):
    """A bit set without `of:` holds numbers, and an asset's reference is text."""
    (problem,) = told(RUGBY, (", of: batteries.reference", ""))
    assert problem.startswith("flows.unit.payload.alignedAssets.item.assetReference: `$item` is a whole number")
    (problem,) = told(RUGBY, ("{each: assets, item", "{each: name, item"))
    assert (
        problem == "flows.unit.payload.alignedAssets.each: `name` is text, and `each` takes a list apart; name a list"
    )


def test_cells_and_parts_of_topics_are_text(told):
    """What JSON holds only shows in the message; a cell of CSV, a plain payload and a placeholder are text whatever they look like."""
    number = '{from: kw, number: {decimal: ","}, round: 0}'
    assert told(CRAWLEY, (number, "kw")) == []
    (problem,) = told(CRAWLEY, (number, "reference"))
    assert "`reference` is text, and this field is an integer" in problem
    as_csv = (
        'each: "acme/crawley/ems/asset/{asset}/registration"',
        'each: "acme/crawley/ems/asset/{asset}/registration"\n      format: csv',
    )
    assert told(CRAWLEY, as_csv) == []
    (problem,) = told(CRAWLEY, as_csv, (number, "kw"))
    assert "`kw` is text" in problem
