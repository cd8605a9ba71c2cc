"""A payload of which every item would be refused is a mistake of the site's file, and said before anything runs."""

import shutil
from pathlib import Path

import pytest

from bridge.config import load
from bridge.errors import ConfigError
from tests.support.paper import find

GOOD = Path(__file__).parent / "config_cases" / "good"
METERING = "      importMpan: mpan\n"
TECHNOLOGY = "technologyType: {from: tech, map: {0: BATTERY_STORAGE, 1: SOLAR}}"
GROUP = "gspGroup: {const: _A}"


@pytest.fixture
def flow(tmp_path):
    """Reads the good configuration with some of its text replaced: its problems, none where it is good."""
    directory = tmp_path / "config"
    shutil.copytree(GOOD, directory)
    path = directory / "sites" / "north.yaml"

    def read(*changes):
        text = (GOOD / "sites" / "north.yaml").read_text()
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        path.write_text(text)
        try:
            load(directory, find, environ={})
        except ConfigError as error:
            return [str(problem).replace(f"{directory}/sites/", "") for problem in error.problems]
        return []

    return read


def severity(name, word):
    return ("    linger: 20ms\n", f"    linger: 20ms\n    severities: {{{name}: {word}}}\n")


def test_one_field_of_a_group_is_given(flow):
    (problem,) = flow((METERING, ""))
    assert (
        problem
        == "north.yaml:19:5: flows.batteries.payload: `importMpan`, `exportMpan` or `amsid` must be given: every item without one of them would be refused"
    )
    assert flow((METERING, "      amsid: mpan\n")) == []
    assert flow((METERING, ""), severity("any_of", "warn")) == []
    assert len(flow((METERING, ""), severity("any_of", "error"))) == 1


def test_what_a_constant_word_asks_for_is_given(flow):
    constant = (TECHNOLOGY, "technologyType: {const: BATTERY_STORAGE}")
    (problem,) = flow(constant)
    assert "`storageCapacityKwh` is missing; it is needed where technologyType is BATTERY_STORAGE" in problem
    assert (
        flow((TECHNOLOGY, "technologyType: {const: BATTERY_STORAGE}\n      storageCapacityKwh: {from: kw, round: 0}"))
        == []
    )
    assert flow((TECHNOLOGY, "technologyType: {const: SOLAR}")) == []
    assert flow(constant, severity("required_when", "off")) == []


@pytest.mark.parametrize(
    ("old", "new", "place", "text"),
    [
        (GROUP, "gspGroup: {const: E}", "flows.batteries.payload.gspGroup.const", "must be one of _A to _P"),
        ("postcode: postcode", 'postcode: {const: "not a postcode"}', "flows.batteries.payload.postcode.const", "postcode"),
        (METERING, '      importMpan: {const: "1012345678904"}\n', "flows.batteries.payload.importMpan.const", "check digit"),
    ],
)  # fmt: skip
def test_a_constant_keeps_the_rule_of_its_identifier(flow, old, new, place, text):
    (problem,) = flow((old, new))
    assert place in problem
    assert text in problem
    assert problem.endswith("every item would be refused")


def test_a_constant_may_break_a_rule_that_is_no_error(flow):
    """The flow says so, as for any record."""
    assert flow((GROUP, "gspGroup: {const: E}"), severity("gsp_group", "warn")) == []


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (("    linger: 20ms\n", "    linger: 20ms\n    deadline: 0s\n"), "flows.batteries.deadline"),
        (("    linger: 20ms\n", "    linger: 20ms\n    max_items: 5000\n"), "is more than the 1000 that the profile default allows in one call"),
    ],
)  # fmt: skip
def test_what_cannot_be_had_is_not_asked_for(flow, change, text):
    (problem,) = flow(change)
    assert text in problem


def test_what_can_be_had(flow):
    assert flow(("    error_codes", "    max_items: 1000\n    deadline: 1s\n    error_codes")) == []


def test_what_stands_in_a_draft_is_no_mistake_yet(flow):
    """`check` takes a drafted file and names its placeholders; a run refuses it."""
    assert flow((GROUP, "gspGroup: {const: PLACEHOLDER}")) == []
