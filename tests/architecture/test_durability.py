"""docs/durability.md: every promise names the tests that prove it, and they exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/durability.md").read_text()
PROMISES = re.findall(r"(?ms)^### (\d+\..*?)\n(.*?)(?=^##)", PAGE)


def test_there_are_promises():
    """The page is read as it is meant."""
    assert len(PROMISES) == 10


@pytest.mark.parametrize(("title", "text"), PROMISES, ids=[title for title, _ in PROMISES])
def test_each_promise_is_proved(title, text):
    """Its proofs are tests of this repository, by name."""
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text.partition("Proved by")[2])
    assert named, f"{title} names no test"
    for file, name in named:
        assert re.search(rf"^(async )?def {name}\(", (ROOT / file).read_text(), re.MULTILINE), f"{file} has no {name}"


def test_every_fault_has_its_file():
    """The table of faults names files that are there, and every file of faults is in it."""
    table = set(re.findall(r"`(tests/\w+/\w+\.py)` \|$", PAGE, re.MULTILINE))
    assert all((ROOT / file).exists() for file in table)
    assert {f"tests/faults/{file.name}" for file in (ROOT / "tests/faults").glob("test_*.py")} <= table
