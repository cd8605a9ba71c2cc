"""What an adapter's README says of the peers that it was tested against is what the tests install and run."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PEERS = ROOT / "tests" / "peers"
READMES = {path.parent.name: path.read_text("utf-8") for path in ROOT.glob("adapters/*/README.md")}
# What Debian installs for the tests: the name that the README uses, and the package.
DEBIAN = {"modbus": [("libmodbus", "libmodbus5")], "mqtt": [("mosquitto", "mosquitto")]}
LIBRARIES = {"opcua": ["asyncua"], "modbus": ["pymodbus"], "mqtt": ["paho-mqtt", "jmespath", "amqtt"]}
HEADINGS = ("## Options", "## Limits", "## Tested with")


def section(name: str) -> str:
    """The section of that heading."""
    return READMES[name].split("\n## Tested with\n")[1].split("\n## ")[0]


@pytest.mark.parametrize("name", ["opcua", "modbus", "mqtt"])
def test_the_sections_that_an_integrator_looks_for(name):
    """Options, limits, what was measured, peers with versions, troubleshooting."""
    readme = READMES[name]
    assert not [heading for heading in HEADINGS if f"\n{heading}" not in readme]
    assert re.search(r"^## (Troubleshooting|When it does not work)$", readme, re.MULTILINE)
    assert "tests/bench/reading.py" in readme


@pytest.mark.parametrize("name", ["opcua", "modbus", "mqtt"])
def test_packages_of_npm_stand_there_in_the_version_that_is_pinned(name):
    """One version in package.json, in its lock file and in the README."""
    pinned = json.loads((PEERS / name / "package.json").read_text())["dependencies"]
    locked = json.loads((PEERS / name / "package-lock.json").read_text())["packages"]
    for package, version in pinned.items():
        assert re.fullmatch(r"\d+\.\d+\.\d+", version), f"{package} is not pinned"
        assert locked[f"node_modules/{package}"]["version"] == version
        assert stated(name, package) == [version], package


def stated(name: str, peer: str) -> list[str]:
    """The versions that the README's section names for this peer: beside it, or in the next cell of its row."""
    found = re.findall(rf"\b{re.escape(peer)} (\d+(?:\.\d+)+)", section(name))
    for row in section(name).splitlines():
        cells = [cell.strip() for cell in row.split("|")]
        if len(cells) > 3 and cells[1].startswith(peer) and re.fullmatch(r"\d+(\.\d+)+", cells[2]):
            found.append(cells[2])
    return list(dict.fromkeys(found))


@pytest.mark.parametrize("name", DEBIAN)
def test_packages_of_debian_stand_there_in_the_version_that_is_installed(name):
    """As far as this is the release of Debian that the tests are written for."""
    if shutil.which("dpkg-query") is None or "VERSION_CODENAME=bookworm" not in Path("/etc/os-release").read_text():
        pytest.skip("another release has other versions")
    for peer, package in DEBIAN[name]:
        asked = ["dpkg-query", "-W", "-f", "${Version}", package]
        version = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.split("-")[0]
        assert version in stated(name, peer), f"{peer} {version} is installed, {stated(name, peer)} stands there"


@pytest.mark.parametrize("name", LIBRARIES)
def test_libraries_of_python_stand_there_in_the_version_that_is_locked(name):
    """By as many numbers as the README gives."""
    text = "".join(path.read_text() for path in (ROOT / "locks").glob("*.txt"))
    locked = dict(re.findall(r"^([\w-]+)==([\w.]+)", text, re.MULTILINE))
    for library in LIBRARIES[name]:
        versions = stated(name, library)
        assert versions, library
        for version in versions:
            assert f"{locked[library]}.".startswith(f"{version}."), (
                f"{library} {locked[library]} is locked, {version} stands there"
            )


@pytest.mark.parametrize("name", ["opcua", "modbus", "mqtt"])
def test_the_tests_that_are_named_exist(name):
    """A table that says what shows what would be worth nothing otherwise."""
    folder = ROOT / "tests" / "adapters" / name
    named = re.findall(r"`((?:cases/)?\w+(?:\.py)?)`", section(name))
    for each in named:
        if each.startswith(("test_", "cases/")):
            assert (folder / each).exists(), each
