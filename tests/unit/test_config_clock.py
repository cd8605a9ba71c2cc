"""`clock:` of bridge.yaml: who is asked about this machine's clock."""

import shutil
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from bridge.assembly import discipline_source
from bridge.config import ClockOptions, load
from bridge.discipline import Chrony, Kernel
from bridge.errors import ConfigError
from tests.support.paper import find

GOOD = Path(__file__).parent / "config_cases/good"
SHIPPED = Path(__file__).parents[2] / "config/bridge.yaml"


@pytest.fixture
def directory(tmp_path):
    target = tmp_path / "config"
    shutil.copytree(GOOD, target)
    return target


def read(directory, clock):
    path = directory / "bridge.yaml"
    path.write_text(f"{path.read_text()}\nclock: {clock}\n")
    return load(directory, find, environ={}).host.clock


def test_without_the_section_the_kernel_is_asked(directory):
    """Every 10 s, an alarm from 100 ms on, signing held from 2 s on."""
    options = load(directory, find, environ={}).host.clock
    assert (options.source, options.alarm_at, options.hold_at, options.every) == ("kernel", 0.1, 2.0, 10.0)
    assert isinstance(discipline_source(options), Kernel)


def test_the_shipped_file_says_the_defaults():
    """What config/bridge.yaml shows is what holds without it."""
    document = YAML(typ="safe").load(SHIPPED.read_text())["clock"]
    assert document.pop("source") == {"env": "SMP_BRIDGE_CLOCK", "default": "kernel"}
    assert ClockOptions.model_validate(document) == ClockOptions()


def test_chrony_and_nobody(directory):
    """chronyc by its path, or in PATH; and `none` is a choice of its own."""
    options = read(directory, "{source: chrony, chronyc: /opt/bin/chronyc, hold_at: 500ms}")
    assert (options.chronyc, options.hold_at) == ("/opt/bin/chronyc", 0.5)
    assert isinstance(discipline_source(options), Chrony)
    assert discipline_source(options.model_copy(update={"source": "none"})) is None


@pytest.mark.parametrize(
    ("clock", "wrong"),
    [
        ("{source: gps}", "source"),
        ("{hold_at: 2}", "with its unit"),
        ("{hold_at: 50ms}", "`alarm_at` must be above 0 and not above `hold_at`"),
        ("{alarm_at: 0}", "`alarm_at` must be above 0"),
        ("{every: 50ms}", "must be between 100ms and 10min"),
        ("{every: 1h}", "must be between 100ms and 10min"),
        ("{offset: 1s}", "offset"),
        ("{source: chrony, chronyc: ''}", "chronyc"),
    ],
)
def test_what_is_wrong_is_said(directory, clock, wrong):
    """With its place."""
    with pytest.raises(ConfigError) as caught:
        read(directory, clock)
    [problem] = caught.value.problems
    assert wrong in str(problem)
    assert problem.path.startswith("clock")
