"""The reference scripts are what they were when they were last measured, and small."""

import hashlib
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PINNED = dict(
    reversed(line.split("  ")) for line in (HERE / "floors.sha256").read_text().splitlines() if not line.startswith("#")
)
MOST_LINES = 120


def test_every_reference_script_is_pinned():
    """A new one cannot come without its hash."""
    assert sorted(PINNED) == sorted(path.name for path in HERE.glob("floor_*.py"))


@pytest.mark.parametrize("name", sorted(PINNED))
def test_a_reference_script_is_the_one_that_was_measured(name):
    """Whoever changes one measures before and after, in a commit of its own."""
    assert hashlib.sha256((HERE / name).read_bytes()).hexdigest() == PINNED[name], (
        f"{name} was changed: floors.sha256 says how to do that"
    )


@pytest.mark.parametrize("name", sorted(name for name in PINNED if name != "floor_smp.py"))
def test_a_reference_script_is_small(name):
    """Protocol and SMP half together; lines that hold code, for the formatter decides about the empty ones."""
    assert sum(code_lines((HERE / part).read_text()) for part in ("floor_smp.py", name)) <= MOST_LINES


def code_lines(text):
    """Lines that are neither empty nor a comment nor the module's docstring."""
    body = text.split('"""', 2)[2]
    return sum(1 for line in body.splitlines() if line.strip() and not line.strip().startswith("#"))
