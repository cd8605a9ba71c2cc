"""The shipped YAML is the tested truth: config/ and every adapter's sample load, given the files and variables that they name."""

import re
import shutil
from pathlib import Path

import pytest

from bridge import registry
from bridge.config import Config, load
from bridge.errors import ConfigError
from bridge.mapping import compile_flow

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "config"
SAMPLES = sorted(ROOT.glob("adapters/*/sample.yaml"))
MISSING_FILE = re.compile(r"the file (\S+) (?:does not exist|cannot be read: No such file)")
MISSING_VARIABLE = re.compile(r"the environment variable (\w+) is not set")


def load_provided(directory: Path) -> Config:
    """Load a configuration after making the files and variables that a first reading asks for; anything else is an error."""
    environ: dict[str, str] = {}
    try:
        return load(directory, registry.find, environ=environ)
    except ConfigError as error:
        for problem in error.problems:
            if found := MISSING_FILE.search(problem.text):
                path = Path(found[1])
                assert directory.parent in path.parents or directory.parent in path.resolve().parents
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("placeholder")
            elif found := MISSING_VARIABLE.search(problem.text):
                environ[found[1]] = "placeholder"
            else:
                pytest.fail(str(error))
    return load(directory, registry.find, environ=environ)


@pytest.fixture
def directory(tmp_path):
    target = tmp_path / "checkout" / "config"
    target.parent.mkdir()
    shutil.copytree(CONFIG, target)
    return target


def test_the_shipped_configuration_loads(directory):
    """config/ is a whole configuration: three sites, each with its assets and one unit, and every flow compiles."""
    config = load_provided(directory)
    assert {site.name for site in config.sites.values()} == {"crawley", "ipswich", "rugby"}
    protocols = {adapter.adapter.protocol for site in config.sites.values() for adapter in site.adapters.values()}
    assert protocols == {"modbus", "mqtt", "opcua"}
    for site in config.sites.values():
        operations = sorted(flow.operation.value for flow in site.flows.values())
        assert operations == ["asset.create", "unit.create"]
        for flow in site.flows.values():
            compile_flow(flow, config.vocabulary)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.parent.name)
def test_every_adapters_sample_loads(sample, directory):
    """An adapter's sample.yaml is a site file that the adapter's own models accept."""
    for site in (directory / "sites").iterdir():
        site.unlink()
    shutil.copy(sample, directory / "sites" / sample.name)
    (site,) = load_provided(directory).sites.values()
    assert sample.parent.name in {adapter.adapter.protocol for adapter in site.adapters.values()}


def test_there_are_samples():
    """Each of the three adapters ships one."""
    assert {sample.parent.name for sample in SAMPLES} >= {"modbus", "mqtt", "opcua"}


def test_secrets_are_never_literals_in_the_shipped_files():
    """No shipped file holds a password: each stands behind env, file or credential."""
    for path in (*CONFIG.rglob("*.yaml"), *SAMPLES):
        for line in path.read_text().splitlines():
            found = re.search(r"\b\w*password:\s*(\S+)", line.split("#")[0])
            assert found is None or found[1].startswith("{"), f"{path}: {line}"


def test_no_problem_hides_another(tmp_path):
    """Missing files, an unknown key, a wrong type, an unmappable field and an outcome outside `writable:` in one site: all named at once."""
    shutil.copytree(CONFIG, tmp_path / "config")
    site = tmp_path / "config/sites/ipswich.yaml"
    text = site.read_text()
    for before, after in (
        ("sampling_interval: 50ms", "sampling_interval: often"),
        ("publishing_interval: 50ms", "publishing_intervall: 50ms"),
        ("assetName: name", "assetNmae: name"),
        ("errorCode: Registration/ErrorCode", "errorCode: Plant/SetPoint"),
    ):
        assert before in text
        text = text.replace(before, after, 1)
    site.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "config", registry.find, environ={})
    told = [str(problem) for problem in caught.value.problems if "ipswich" in problem.file]
    for part in ("does not exist", "sampling_interval", "publishing_intervall", "assetNmae", "outcome.errorCode"):
        assert any(part in line for line in told), (part, told)
