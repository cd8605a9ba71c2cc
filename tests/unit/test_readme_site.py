"""The site that the README explains line by line is one that `check` takes."""

import re
import shutil
from pathlib import Path

import pytest

from bridge.config import load
from bridge.errors import ConfigError
from bridge.registry import find

ROOT = Path(__file__).parents[2]
GOOD = Path(__file__).parent / "config_cases" / "good"
SECURITY = re.compile(r"security: \{policy: Basic256Sha256[^}]*\}")
OPTIONAL = "storageCapacityKwh"


def readme_site():
    text = (ROOT / "README.md").read_text("utf-8").split("### A site's YAML, line by line")[1]
    site = text.split("```yaml\n")[1].split("```")[0]
    made, count = SECURITY.subn("security: {policy: None}", site)  # its files are the reader's own
    assert count == 1
    return made


@pytest.fixture
def problems(tmp_path):
    """What is wrong with a site beside a good `bridge.yaml`."""
    directory = tmp_path / "config"
    shutil.copytree(GOOD, directory)

    def read(text):
        (directory / "sites" / "north.yaml").write_text(text)
        try:
            load(directory, find, environ={})
        except ConfigError as error:
            return [str(problem) for problem in error.problems]
        return []

    return read


def test_it_is_accepted(problems):
    assert problems(readme_site()) == []


def test_each_field_but_one_is_needed(problems):
    """As the README says."""
    text = readme_site()
    lines = text.split("    payload:")[1].split("    outcome:")[0].split("\n")[1:-1]
    assert len(lines) > 12
    free = [line.split(":")[0].strip() for line in lines if problems(text.replace(f"{line}\n", "")) == []]
    assert free == [OPTIONAL]
