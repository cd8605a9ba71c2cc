"""`tracing:` of bridge.yaml: where traces go, and what is said when they cannot."""

import shutil
import sys
from importlib import import_module
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from bridge.config import load
from bridge.config.tracing import TracingOptions, installed
from bridge.errors import ConfigError
from bridge.material import problems_of
from tests.support.paper import find

GOOD = Path(__file__).parent / "config_cases/good"
SHIPPED = Path(__file__).parents[2] / "config/bridge.yaml"
URL = "https://collector.example:4318/v1/traces"


@pytest.fixture
def directory(tmp_path):
    target = tmp_path / "config"
    shutil.copytree(GOOD, target)
    (target / "collector").write_text("Bearer t0ken-of-the-collector\n")
    return target


def config(directory, tracing):
    path = directory / "bridge.yaml"
    path.write_text(f"{path.read_text()}\ntracing: {tracing}\n")
    return load(directory, find, environ={"COLLECTOR": URL})


def problem(directory, tracing):
    with pytest.raises(ConfigError) as caught:
        config(directory, tracing)
    [found] = caught.value.problems
    return found


def test_without_the_section_nothing_is_traced(directory):
    """Off unless somebody wants it."""
    assert load(directory, find, environ={}).host.tracing is None


def test_an_endpoint_is_all_it_needs(directory):
    """Everything is traced then; the endpoint may come from the environment."""
    options = config(directory, "{endpoint: {env: COLLECTOR}}").host.tracing
    assert options == TracingOptions(endpoint=URL)
    assert (options.sample_ratio, options.service_name, options.headers) == (1.0, "smp-bridge", {})


def test_a_header_for_the_collector_is_a_secret(directory):
    """Read from its file, and never shown."""
    options = config(directory, f"{{endpoint: '{URL}', headers: {{Authorization: {{file: collector}}}}}}").host.tracing
    assert options.headers["Authorization"].reveal() == "Bearer t0ken-of-the-collector"
    assert "t0ken" not in repr(options)


@pytest.mark.parametrize(
    ("tracing", "place", "wrong"),
    [
        ("{}", "tracing", "`endpoint` is missing; add it"),
        ("{endpoint: 'http://collector.example/v1/traces'}", "tracing.endpoint", "must be https:// unless the collector runs on this"),
        ("{endpoint: 'https://collector.example:4318'}", "tracing.endpoint", "must be the whole address, path included"),
        ("{endpoint: collector.example}", "tracing.endpoint", "must be an address such as https://collector.example"),
        (f"{{endpoint: '{URL}', headers: {{Authorization: t0ken}}}}", "tracing.headers.Authorization", "a secret never stands in this file"),
        (f"{{endpoint: '{URL}', headers: {{Host: {{file: collector}}}}}}", "tracing.headers", "is set by the host itself; leave it out"),
        (f"{{endpoint: '{URL}', sample_ratio: 1.5}}", "tracing.sample_ratio", "less than or equal to 1"),
        (f"{{endpoint: '{URL}', ca: not-there.pem}}", "tracing.ca", "does not exist"),
        (f"{{endpoint: '{URL}', sample_rate: 1}}", "tracing.sample_rate", "did you mean `sample_ratio`"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_place(directory, tracing, place, wrong):
    """One problem each, and nothing of a secret in it."""
    found = problem(directory, tracing)
    assert found.path == place
    assert wrong in found.text
    assert found.line > 0
    assert "t0ken" not in str(found)


def test_without_its_packages_the_problem_names_the_command(directory, monkeypatch):
    """At the section, from the released package and from the source."""
    monkeypatch.setattr(import_module("bridge.config.load"), "installed", lambda: False)
    found = problem(directory, f"{{endpoint: '{URL}'}}")
    assert found.path == "tracing"
    assert "pip install 'smp-bridge[tracing]'" in found.text
    assert "pip install '.[tracing]'" in found.text


@pytest.mark.parametrize("missing", ["opentelemetry", "opentelemetry.proto"])
def test_what_is_installed_is_found_out_without_loading_it(monkeypatch, missing):
    """All of OpenTelemetry may be missing, or only its protocol beside another part of it."""
    assert installed()
    monkeypatch.setitem(sys.modules, missing, None)
    assert not installed()


def test_authorities_that_are_none_are_found_by_the_check(directory):
    """Before anything starts, as every other file of keys."""
    found = config(directory, f"{{endpoint: '{URL}', ca: collector}}")
    [told] = [each for each in problems_of(found) if each.path == "tracing.ca"]
    assert told.text == f"the file {directory / 'collector'}: holds no PEM certificate of an authority"


def test_the_shipped_file_shows_every_option(directory):
    """Commented out; uncommented it is right, and says the defaults."""
    lines = SHIPPED.read_text().splitlines()
    start = lines.index("# tracing:")
    shown = "\n".join(line.removeprefix("# ") for line in lines[start : lines.index("participants:") - 1])
    document = YAML(typ="safe").load(shown)["tracing"]
    assert document.keys() == TracingOptions.model_fields.keys()
    assert document.pop("headers") == {"Authorization": {"file": "../keys/collector"}}
    document.pop("ca")
    assert TracingOptions.model_validate(document) == TracingOptions(endpoint=URL)
