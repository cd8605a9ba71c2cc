"""What is installed: exactly our two packages, with the data that they need, and nothing of tests or configuration."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """The files of a wheel built from what is tracked and what is new."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("bridge", "adapters"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = "import sys; from hatchling.build import build_wheel; build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(out)], cwd=source, check=True, capture_output=True)
    [wheel] = out.glob("*.whl")
    return zipfile.ZipFile(wheel).namelist()


def test_two_packages_and_nothing_else(names):
    """`tests`, `config` and `systemd` are never installed."""
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"bridge", "adapters"}


def test_the_data_comes_along(names):
    """Profiles, their schemas, the vocabulary, the journal's migrations and each adapter's sample."""
    for part in (
        "bridge/profiles/default.yaml",
        "bridge/profiles/odd.yaml",
        "bridge/profiles/schemas/asset.schema.json",
        "bridge/vocabulary.yaml",
        "bridge/journal/schema/sqlite/0001.sql",
        "bridge/journal/schema/postgres/0001.sql",
        "adapters/opcua/sample.yaml",
    ):
        assert part in names


def test_adapters_are_found_by_entry_point(names):
    """Ours are declared as anybody's are."""
    assert any(name.endswith("entry_points.txt") for name in names)
