"""What a site file may say, and what the parts of it say together."""

import copy
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from modbus_site import SAMPLE, options_of, read_site, selection_of, selections_of
from pydantic import ValidationError
from ruamel.yaml import YAML

from adapters.modbus import ADAPTER
from adapters.modbus.config import Each, ModbusOptions, Registers
from adapters.modbus.targets import FieldTarget
from bridge.api import InUse, OutcomeField, Trigger
from bridge.config import load
from bridge.errors import ConfigError
from bridge.registry import find

CONFIG = Path(__file__).parents[3] / "config" / "sites" / "rugby.yaml"
VENDOR_MAP = SAMPLE.parent / "vendor_map.yaml"


@pytest.mark.parametrize("path", [SAMPLE, CONFIG, VENDOR_MAP], ids=lambda path: path.name)
def test_the_shipped_sites_are_accepted(path, monkeypatch):
    """The samples and the demo's site fit the models, and nothing is wrong between their parts."""
    monkeypatch.chdir(path.parent)  # the file beside a site is named as from there
    site = read_site(path)
    assert list(ADAPTER.check(options_of(site), selections_of(site))) == []


def test_the_samples_values_are_the_defaults():
    """Options that the sample spells out beside its own addresses stand at their defaults."""
    options = options_of(read_site(SAMPLE))
    defaults = ModbusOptions(host="x")
    own = {"host", "magic", "version", "heartbeat", "writable"}
    for name in set(ModbusOptions.model_fields) - own:
        assert getattr(options, name) == getattr(defaults, name), name


def test_the_readme_lists_every_option_and_its_default():
    """The table of options is the model's own."""
    table = (SAMPLE.parent / "README.md").read_text("utf-8").split("## Options")[1].split("\n## ")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:3]] for line in table.splitlines() if line.startswith("| `")]
    told = {name.strip("`"): default for name, default in rows}
    assert list(told) == list(dict.fromkeys(told))
    assert set(told) == set(ModbusOptions.model_fields)
    for name, field in ModbusOptions.model_fields.items():
        if told[name] in {"none", "nothing"}:
            assert field.default in {None, (), ""}, name
        else:
            given = YAML(typ="safe").load(told[name].strip("`"))
            assert getattr(ModbusOptions.model_validate({"host": "x", name: given}), name) == field.default, name


def test_the_library_is_not_imported_with_the_adapter():
    """Naming the adapter costs nothing until a session opens."""
    code = "import adapters.modbus, sys; sys.exit('pymodbus' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("8..9", [(8, 2), (9, 1)], [(7, 1), (9, 2), (10, 1)]),
        (8, [(8, 1)], [(8, 2)]),
        ("8", [(8, 1)], [(9, 1)]),
        (
            {"from": 160, "to": 179, "every": 80, "count": 64},
            [(160, 20), (240, 20), (160 + 63 * 80, 20), (179, 1)],
            [(159, 1), (180, 1), (175, 10), (160 + 64 * 80, 1), (0, 1), (170, 80)],
        ),
    ],
)
def test_writable_ranges(text, inside, outside):
    """A range covers its registers in each repeat, and never the space between two of them."""
    registers = Registers.model_validate(text)
    assert all(registers.covers(*span) for span in inside)
    assert not any(registers.covers(*span) for span in outside)


@pytest.mark.parametrize(
    "bad",
    [
        "9..8",
        "x",
        "",
        True,
        70000,
        {"from": 1, "to": 2, "count": 2},
        {"from": 1, "to": 20, "every": 10, "count": 2},
        {"from": 1, "to": 2, "every": 60000, "count": 3},
        {"from": 1},
    ],
)
def test_a_range_that_makes_no_sense_is_refused(bad):
    """Ranges that end before they begin, overlap themselves or leave the device are errors."""
    with pytest.raises(ValidationError):
        Registers.model_validate(bad)


@pytest.mark.parametrize(
    "bad",
    [
        {"type": "string"},
        {"type": "int32", "registers": 3},
        {"type": "int32", "order": "AB"},
        {"type": "uint16", "bit": 3},
        {"type": "bit"},
        {"type": "bit", "bit": 16},
        {"type": "uint16", "of": "batteries.reference"},
        {"type": "bitset", "registers": 4, "of": "batteries"},
        {"type": "bitset", "registers": 4, "order": "ABCD"},
        {"type": "int8l", "order": "ABCD"},
        {"type": "int16", "bits": "0..3"},
        {"type": "uint16", "bits": "8..16"},
        {"type": "uint16", "bits": "7..4"},
        {"type": "uint16", "pad": "space"},
        {"type": "epoch32", "zone": "Europe/London"},
        {"type": "datetime64", "zone": "Europe/Lundon"},
        {"type": "float32", "scale_at": 3},
        {"type": "float16", "missing": "sunspec"},
        {"type": "int16", "missing": 65536},
        {"type": "int16", "missing": -32769},
        {"type": "string", "registers": 2, "missing": 0},
        {"type": "int24"},
        {"type": "uint16", "at": 65536},
        {"type": "uint16", "scale": 0.1},
    ],
)
def test_a_field_that_cannot_be_is_refused(bad):
    """Widths, orders, bits and references that do not belong to a type are errors in the file."""
    with pytest.raises(ValidationError):
        FieldTarget.model_validate({"at": 0, **bad})


@pytest.mark.parametrize(
    "bad",
    [{"poll": 1}, {"poll": "1ms"}, {"poll": "fast"}, {"address_base": 2}, {"port": 0}, {"max_registers_per_read": 126}],
)
def test_an_option_out_of_its_range_is_refused(bad):
    """Durations have units and bounds; the library's limits are limits here too."""
    with pytest.raises(ValidationError):
        ModbusOptions.model_validate({"host": "x", **bad})


def test_a_poll_of_ten_milliseconds_is_allowed():
    """The fastest poll."""
    assert ModbusOptions(host="x", poll="10ms").poll == 0.01


def test_several_records_need_a_stride():
    """Without one they would all be the first."""
    with pytest.raises(ValidationError, match="stride"):
        Each.model_validate({"base": 100, "count": 2})


def problems(change):
    site = copy.deepcopy(read_site(SAMPLE))
    change(site)
    return {problem.path: problem.text for problem in ADAPTER.check(options_of(site), selections_of(site))}


def _writable(site, value):
    site["adapters"]["ems"]["writable"] = value


def _set(site, path, value):
    *parents, last = path.split("/")
    for parent in parents:
        site = site[parent]
    site[last] = value


def test_an_outcome_outside_writable_is_found_for_every_record():
    """One repeat too few: the last record's result would be written where nobody allowed it."""
    found = problems(
        lambda site: _writable(site, ["8..9", {"from": 160, "to": 179, "every": 80, "count": 63}, "6060..6079"])
    )
    assert set(found) == {
        f"flows.batteries.outcome.{name}"
        for name in ("state", "errorCount", "errorCode", "transactionId", "updatedAt", "alarm")
    }
    assert "record 63" in found["flows.batteries.outcome.state"]


def test_the_handshake_must_be_writable_too():
    """The host answers in the header; both flows say so."""
    found = problems(lambda site: _writable(site, [{"from": 160, "to": 179, "every": 80, "count": 64}, "6060..6079"]))
    assert set(found) == {
        f"flows.{flow}.submit.{name}" for flow in ("batteries", "unit") for name in ("status", "error")
    }


@pytest.mark.parametrize(
    ("path", "value", "where", "what"),
    [
        (
            "flows/batteries/outcome/state",
            {"at": 60, "type": "float32"},
            "flows.batteries.outcome.state.type",
            "cannot hold",
        ),
        (
            "flows/batteries/outcome/errorCount",
            {"at": 60, "type": "uint16"},
            "flows.batteries.outcome.errorCount",
            "shares",
        ),
        ("flows/unit/records/fields/assets/of", "cars.reference", "flows.unit.records.fields.assets.of", "no flow"),
        ("flows/unit/records/fields/assets/of", "batteries.ref", "flows.unit.records.fields.assets.of", "no field"),
        ("flows/unit/submit/equals", 1, "flows.unit.submit.equals", "batteries"),
        ("flows/unit/submit/sequence", 4, "flows.unit.submit", "must be the same"),
        ("flows/batteries/records/key", "ref", "flows.batteries.records.key", "reference"),
        ("flows/batteries/records/each/stride", 45, "flows.batteries.records.each.stride", "overlap"),
        ("flows/unit/records/each/base", 65510, "flows.unit.records.each", "past"),
    ],
)
def test_parts_that_do_not_fit_each_other_are_found(path, value, where, what):
    """Each problem stands at its place in the flow and says what would be right."""
    assert what in problems(lambda site: _set(site, path, value))[where]


def test_a_flow_on_change_needs_no_header():
    """`when: change` takes no addresses."""
    flow = copy.deepcopy(read_site(SAMPLE)["flows"]["unit"])
    flow["submit"] = {"when": "change"}
    assert selection_of("unit", flow).trigger is Trigger.CHANGE


def serial(device, **settings):
    return ModbusOptions.model_validate({"serial": {"device": str(device), **settings}})


def clashes(*options):
    return [
        (clash.first, clash.second, clash.path, clash.text)
        for clash in ADAPTER.check_beside([InUse(each, ()) for each in options])
    ]


def test_a_shared_line_has_one_setting(tmp_path):
    """Each setting that differs is named, under whatever name the line is opened; others lines, and connections of their own, are nobody's concern."""
    line, alias = tmp_path / "line", tmp_path / "alias"
    line.touch()
    alias.symlink_to(line)
    same = f"all adapters that share {alias} need the same"
    assert clashes(serial(line), serial(tmp_path / "another", baudrate=9600), serial(alias)) == []
    assert clashes(serial(line), serial(alias, baudrate=9600, parity="N", stop_bits=2)) == [
        (0, 1, "adapter.serial.baudrate", f"is 9600, another adapter has 19200; {same}"),
        (0, 1, "adapter.serial.parity", f"is N, another adapter has E; {same}"),
        (0, 1, "adapter.serial.stop_bits", f"is 2, another adapter has 1; {same}"),
    ]
    shared = {"host": "h", "port": 1, "shared": True}
    one, other = ModbusOptions.model_validate(shared), ModbusOptions.model_validate({**shared, "framing": "rtu"})
    assert [clash[2] for clash in clashes(one, other)] == ["adapter.framing"]
    assert clashes(one, other.model_copy(update={"shared": False}), other.model_copy(update={"port": 2})) == []


@pytest.fixture
def two_sites(tmp_path):
    """What `check` says of the sample as two sites, the adapter of each with settings of its own."""
    good = Path(__file__).parents[2] / "unit" / "config_cases" / "good"
    shutil.copytree(good, tmp_path / "config")
    sites = tmp_path / "config" / "sites"
    shutil.rmtree(sites)
    sites.mkdir()

    def read(**settings):
        for name, own in settings.items():
            site = read_site(SAMPLE) | {"site": name}
            left = {
                key: value for key, value in site["adapters"]["ems"].items() if key not in {"host", "port", "framing"}
            }
            site["adapters"]["ems"] = left | own
            with (sites / f"{name}.yaml").open("w") as file:
                YAML(typ="safe").dump(site, file)
        with pytest.raises(ConfigError) as raised:
            load(tmp_path / "config", find, environ={})
        [problem] = raised.value.problems
        assert problem.file == str(sites / "west.yaml")
        assert problem.line > 1
        assert problem.text.endswith("(the other is adapters.ems of east.yaml)")
        return problem

    return read


def test_adapters_of_two_sites_on_one_line(two_sites, tmp_path):
    """`check` names the file, the place and the other adapter, also where the setting is a default."""
    line = str(tmp_path / "line")
    problem = two_sites(
        east={"serial": {"device": line, "baudrate": 9600}}, west={"serial": {"device": line}, "unit": 2}
    )
    assert problem.path == "adapters.ems.serial.baudrate"
    assert problem.text.startswith("is 19200, another adapter has 9600;")


def test_two_sites_of_one_device(two_sites):
    """A copied site whose address nobody changed: told at the flow that would write, in the later file."""
    problem = two_sites(east={"host": "10.0.0.5"}, west={"host": "10.0.0.5"})
    assert problem.path == "flows.batteries.submit.status"
    assert "both adapters are of 10.0.0.5:502 unit 1" in problem.text


@pytest.mark.parametrize(
    ("target", "kind", "numbers", "lost"),
    [
        ("state", {"type": "uint16"}, {"registered": 70000}, "a uint16 here cannot hold 70000 (registered); take"),
        ("state", {"type": "uint16", "bits": "0..2"}, {"held": 11, "sent": 2}, "11 (held)"),
        ("state", {"type": "int8l"}, {"refused": 200}, "200 (refused)"),
        ("state", {"type": "uint16"}, {"refused": -1}, "-1 (refused)"),
        ("errorCode", {"type": "uint8h"}, dict.fromkeys(("other", "9001", "9002", "9003"), 9999), "and 1 more; take"),
        ("state", {"type": "uint16"}, {"registered": 65535}, ""),
        ("state", {"type": "int16"}, {"refused": -1}, ""),
        ("state", {"type": "uint16", "bits": "0..3"}, {"held": 11}, ""),
        ("errorCode", {"type": "bcd16"}, {"other": 9999}, ""),
        ("errorCode", {"type": "string", "registers": 1}, {"other": 123456}, ""),
    ],
)
def test_numbers_that_a_target_cannot_hold(target, kind, numbers, lost):
    """Every state and code that may be written fits; it would show when the first one is refused."""
    site = copy.deepcopy(read_site(SAMPLE))
    flow = site["flows"]["unit"]
    flow["outcome"][target] = {"at": flow["outcome"][target]["at"], **kind}
    name = OutcomeField(target)
    given = [replace(each, numbers={name: numbers}) for each in selections_of({"flows": {"unit": flow}})]
    told = [each.text for each in ADAPTER.check(options_of(site), given) if each.path == f"flows.unit.outcome.{target}"]
    assert (lost in told[0]) if lost else told == []
