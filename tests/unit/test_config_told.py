"""How mistakes of an integrator's are told: each once, in words of the file, with what would be right."""

import shutil
from pathlib import Path

import pytest

from bridge.config import load
from bridge.config.values import duration_text
from bridge.errors import ConfigError
from bridge.model import HostReason
from bridge.registry import find

ROOT = Path(__file__).parents[2]
GOOD = Path(__file__).parent / "config_cases" / "good"
RUGBY = (ROOT / "config" / "sites" / "rugby.yaml").read_text("utf-8")
SUBMIT = RUGBY[RUGBY.index("    submit:") : RUGBY.index("    payload:")]
HOST = "host: {env: SMP_BRIDGE_RUGBY_HOST, default: 127.0.0.1}"
BUDGET = "    latency_budget: 250ms\n"


@pytest.fixture
def told(tmp_path):
    """What is wrong with Rugby's file after these changes, without the place."""

    def read(*changes, environ=None):
        directory = tmp_path / "config"
        shutil.copytree(GOOD, directory, dirs_exist_ok=True)
        (directory / "sites" / "north.yaml").unlink(missing_ok=True)
        text = RUGBY
        for old, new in changes:
            assert old in text
            text = text.replace(old, new, 1)
        (directory / "sites" / "rugby.yaml").write_text(text, "utf-8")
        try:
            load(directory, find, environ=environ or {})
        except ConfigError as error:
            return [f"{problem.path}: {problem.text}" for problem in error.problems]
        return []

    return read


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("flows:\n", "flow:\n", "flow: unknown key; did you mean `flows`?"),
        ("adapters:\n", "adapter:\n", "adapter: unknown key; did you mean `adapters`?"),
        ("site: rugby\n", "", ": `site` is missing; add it"),
        ("site: rugby", "site: 1234", "site: must be text"),
        ("maxExportKw: e", "maxExportKW: e", "flows.batteries.payload.maxExportKW: unknown field; did you mean `maxExportKw`?"),
        ("importMpan: m", "importMPAN: m", "flows.batteries.payload.importMPAN: unknown field; did you mean `importMpan`?"),
        ("adapter: ems", "adapter: EMS", "flows.batteries.adapter: unknown adapter of this site; did you mean `ems`?"),
        ("{at: 40, type: string, registers: 10}", "{at: 40, type: string}", "flows.batteries.records.fields.reference: a string needs `registers`, how many it takes"),
        ("registers: 16}", "length: 32}", "flows.batteries.records.fields.name.length: unknown key; known are at, bit, bits, csv, missing, number, of, order, pad, registers, scale_at, type, zone"),
        ("count: 64}\n      key", "count: all}\n      key", "flows.batteries.records.each.count: must be a valid integer"),
        ("count: 64}\n      key", "count: {from: 2}}\n      key", "flows.batteries.records.each.count: `max` is missing; add it"),
        (SUBMIT, "", "flows.batteries: `submit` is missing; add it"),
        (SUBMIT, "    submit:\n", "flows.batteries.submit: must be a mapping of names to settings"),
        (SUBMIT, "    submit: request\n", "flows.batteries.submit: must be a mapping of names to settings"),
        ("when: request\n", "when: Request\n", "flows.batteries.submit.when: must be 'request', 'change' or 'message'; did you mean request?"),
        ("at: 30, type: int32", "at: 30, type: INT32", "did you mean int32?"),
        ("maxExportKw: export_kw", "maxExportKw: {from: export_kw, scale: 0,5}", "maxExportKw[5]: a key must be a word; behind a comma in braces a new key begins, so decimals have a point (5 is none)"),
        ("poll: 50ms", "poll: 0s", "adapters.ems.poll: must be greater than or equal to 10ms"),
        ("timeout: 1s", "timeout: 2min", "adapters.ems.timeout: must be less than or equal to 1min"),
        ("stale: 10s", "stale: 0s", "adapters.ems.heartbeat.stale: must be greater than or equal to 100ms"),
        ("registers: 1}", "registers: 1, missing: sunspec}", "flows.batteries.records.fields.gsp_group: SunSpec has no value for a missing string"),
        (BUDGET, f"{BUDGET}    states: {{held: 70000}}\n", "flows.batteries.outcome.state: a uint16 here cannot hold 70000 (held)"),
        (BUDGET, f"{BUDGET}    error_codes: {{E17: 70000}}\n", "flows.batteries.outcome.errorCode: a uint16 here cannot hold 70000 (E17)"),
        ("errorCode: {at: 62, type: uint16}", "errorCode: {at: 62, type: uint8l}", "cannot hold 9999 (unmapped), 9001, 9002 and 23 more"),
        (BUDGET, f"{BUDGET}    states: {{registered: 4}}\n", "flows.batteries.states: gives `registered` the number 4, which is `refused` as long as that has no other; give both a number"),
        ("state: {at: 60, type: uint16}", "state: {at: 40, type: uint16}", "flows.batteries.outcome.state: register 140 (record 0) is read as `reference`"),
        ("stride: 80", "stride: 40", "flows.batteries.records.each.stride: is 40, but a record reaches to offset 49; the records would overlap"),
        (HOST, "host: 10.0.0.5:502", "adapters.ems.host: must be a name or an address alone, such as ems.acme.example, 10.0.0.5 or fd00::5; `port` is a key of its own"),
        (HOST, "host: modbus://10.0.0.5", "adapters.ems.host: must be a name or an address alone"),
        ("request: 6", "request: six", "flows.batteries.submit.request: must be an address such as 6, or {at: 6, table: coils}"),
        ("unit: 1 ", "unit: 300 ", "adapters.ems.unit: must be less than or equal to 255"),
    ],
)  # fmt: skip
def test_one_mistake_is_told_once(told, old, new, problem):
    """Nothing that only follows from it, and no flow that is "not there" because it is wrong; bounds of durations have their unit."""
    (found,) = told((old, new))
    assert problem in found


def test_two_mistakes_are_told_both(told):
    """A key that is missing and another one that is unknown, and resembles it in nothing."""
    assert len(told(("      key: reference\n", "      completely: else\n"))) == 2
    assert len(told(("site: rugby\nparticipant: acme-test\n", ""))) > 1
    found = told(("of: batteries.reference", "of: batteries.refrence"))
    assert found == [
        "flows.unit.records.fields.assets.of: batteries has no field refrence in registers; known are "
        + found[0].partition("known are ")[2]
    ]
    assert "there is no flow battery on this adapter" in told(("of: batteries.", "of: battery."))[0]


@pytest.mark.parametrize(
    "lines", ["states: {registered: 4, refused: 4}", "states: {registered: 30}", "states: {held: 1, drift: 3}", 'error_codes: {"9001": 7, E17: 65535}']
)  # fmt: skip
def test_numbers_that_are_meant(told, lines):
    """Words may share a number where the site says so."""
    assert told((BUDGET, f"{BUDGET}    {lines}\n")) == []


def test_an_error_code_of_eight_bits(told):
    """Every number that may stand there can be given, under the names by which they were told; no other name makes it silent."""
    narrow = ("errorCode: {at: 62, type: uint16}", "errorCode: {at: 62, type: uint8l}")

    def given(numbers):
        return told(narrow, (BUDGET, f"{BUDGET}    error_codes: {numbers}\n"))

    ours = {str(int(reason)): number for number, reason in enumerate(HostReason, 1)}
    assert given({"unmapped": 255, **ours}) == []
    assert "cannot hold 9999 (unmapped); take" in given(ours)[0]
    assert "cannot hold 9001, 9002, 9003 and 22 more" in given({"unmapped": 255, "bad_quality": 1})[0]


@pytest.mark.parametrize("host", ["ems.acme.example", '"fe80::1%eth0"', '"::1"', '"2001:db8::502"'])
def test_hosts_by_name_and_by_address(told, host):
    """Colons of IPv6 are no port's."""
    assert told((HOST, f"host: {host}")) == []


def test_any_address_may_come_from_the_environment(told):
    """A variable is text, as a number in quotes is."""
    variable = ("request: 6\n", "request: {env: COMMAND}\n")
    assert told(variable, ("request: 6,", "request: '6',"), environ={"COMMAND": "6"}) == []


def test_a_list_of_known_words_is_whole(told):
    """Nobody has to guess what the other ten are."""
    (found,) = told(("      meteringType:", "      xyz: name\n      meteringType:"))
    assert "technologyType" in found
    assert " more" not in found


def test_the_variable_that_gives_a_bad_value_is_named(told):
    """Its value does not stand in the file, where the default looks right; it is not shown either."""
    (found,) = told(environ={"SMP_BRIDGE_RUGBY_PORT": "hunter2"})
    assert (
        found == "adapters.ems.port: must be a valid integer; the environment variable SMP_BRIDGE_RUGBY_PORT gives it"
    )
    (found,) = told(environ={"SMP_BRIDGE_RUGBY_PORT": "70000"})
    assert found.endswith(
        "must be less than or equal to 65535; the environment variable SMP_BRIDGE_RUGBY_PORT gives it"
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0"), (0.01, "10ms"), (0.1, "100ms"), (1, "1s"), (1.5, "1500ms"), (60, "1min"), (90, "90s"), (3600.0, "1h"), (86_400, "1d")],
)  # fmt: skip
def test_seconds_as_a_person_writes_them(seconds, text):
    """The largest unit that leaves no fraction."""
    assert duration_text(seconds) == text
