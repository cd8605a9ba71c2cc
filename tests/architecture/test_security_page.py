"""SECURITY.md: every claim names its tests, and they are there and run."""

import ast
import functools
import re
from pathlib import Path

import pytest

from adapters.modbus.config import ModbusOptions
from adapters.mqtt.config import MqttOptions
from adapters.opcua.config import Policy
from bridge.config.host import ClockOptions, JournalOptions
from bridge.journal import sealer
from bridge.market import echoes

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "SECURITY.md").read_text()
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
NONE = "—"
# What rows say that the bridge does not do, or that is somebody else's: no test can prove it.
DISCLAIMED = {
    "disk encryption is the installation's",
    "log lines are journald's",
    "no second factor",
    "revocation lists are not fetched",
    "the library's ciphers, and no cryptography of our own",
    "write-once media are the installation's",
}
UNPROVED = ("installation", "not built")  # these rows claim nothing of the bridge
TABLES = {"Threats": 4, "IEC 62443-3-3": 5, "NCSC Cyber Assessment Framework": 3}
# The system requirements of IEC 62443-3-3 that a host like this can have to do with (all but 2.2, 2.3 and 5.3: radio, portable devices, messages between people).
REQUIREMENTS = {
    1: set(range(1, 14)), 2: {1, *range(4, 13)}, 3: set(range(1, 10)), 4: {1, 2, 3}, 5: {1, 2, 4}, 6: {1, 2}, 7: set(range(1, 9)),
}  # fmt: skip


def rows(title):
    """The rows of a section's table, as lists of cells."""
    section = PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


CLAIMS = [
    pytest.param(title, row, id=f"{title[:4]}: {' '.join(row[:2])[:50]}") for title in TABLES for row in rows(title)
]


@functools.cache
def declared(file):
    """The test functions of a file that pytest collects, without those that are always skipped."""
    found = set()
    for node in ast.parse((ROOT / file).read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test"):
            marks = {ast.unparse(mark).partition("(")[0] for mark in node.decorator_list}
            if not marks & {"pytest.mark.skip", "pytest.mark.xfail"}:
                found.add(node.name)
    return found


def test_the_tables_are_read():
    """As they are meant: every row has all of its cells, and every requirement its row."""
    for title, cells in TABLES.items():
        assert rows(title), title
        assert [row for row in rows(title) if len(row) != cells] == []
    named = [row[0] for row in rows("IEC 62443-3-3")]
    wanted = [f"{group}.{number}" for group, numbers in REQUIREMENTS.items() for number in sorted(numbers)]
    assert named == wanted


@pytest.mark.parametrize(("title", "row"), CLAIMS)
def test_each_claim_is_proved(title, row):
    """By tests that exist; a row that claims nothing says whose business it is, and one that claims a level names no other word."""
    text = " ".join(row)
    named = NAMED.findall(text)
    nobody = title != "Threats" and any(cell in UNPROVED for cell in row)
    assert bool(named) != nobody, f"{row[0]} {'claims nothing and yet names a test' if nobody else 'names no test'}"
    if title == "IEC 62443-3-3":
        assert row[2] in {"1", "2", "3", *UNPROVED}
    for file, name in named:
        assert (ROOT / file).exists(), f"there is no {file}"
        assert name in declared(file), f"{file} has no test {name}"


def pieces(cell):
    """The claims of a cell, or the tests of each: what stands between semicolons."""
    return [piece.strip() for piece in cell.split(";")]


@pytest.mark.parametrize(("title", "row"), CLAIMS)
def test_every_claim_of_a_row_has_tests_of_its_own(title, row):
    """Behind it, or at the same place of the last column; `—` stands there for what the row says it does not claim."""
    if title == "Threats":
        assert [claim for claim in pieces(row[2]) if not NAMED.search(claim)] == []
        return
    if any(cell in UNPROVED for cell in row):
        return
    claims, proofs = pieces(row[-2]), pieces(row[-1])
    assert len(claims) == len(proofs)
    for claim, proof in zip(claims, proofs, strict=True):
        assert bool(NAMED.search(proof)) != (proof == NONE), claim
        assert proof != NONE or claim in DISCLAIMED, f"{claim!r} claims something and names no test"


def remaining(start):
    """The point of "What remains" that begins so."""
    section = PAGE.partition("\n## What remains, in short\n")[2].partition("\n## ")[0]
    [point] = [line for line in section.splitlines() if line.startswith(f"- **{start}")]
    return point


def test_what_remains_is_as_the_code_has_it():
    """The numbers that the page gives for what it does not stop are those of the code."""
    echoes_of = remaining("A secret shorter than")
    assert re.findall(r"\d+", echoes_of) == [str(echoes.LEAST), str(echoes.MOST)]
    assert f"what was not sealed yet ({JournalOptions.model_fields['seal_every'].default:g} s)" in PAGE
    assert f"an offset of {ClockOptions.model_fields['hold_at'].default:g} s holds signing" in PAGE
    assert f"an alarm at {sealer.LARGE:.0%}".replace("%", " %") in PAGE
    assert "`journal.anchors`" in remaining("Evidence of the last seconds")
    assert "anchors" in JournalOptions.model_fields
    unprotected = remaining("Modbus and MQTT without TLS")
    assert "OPC UA with `policy: None`" in unprotected
    assert {policy.value for policy in Policy} >= {"None"}
    assert {model.model_fields["tls"].default for model in (ModbusOptions, MqttOptions)} == {None}


def test_nothing_else_looks_like_a_test():
    """A name that is written wrongly is no proof."""
    assert len(re.findall(r"\btests/", PAGE)) == len(NAMED.findall(PAGE))


def test_the_documents_name_only_tests_that_are_there():
    """The same for every page of the documentation."""
    wrong = []
    for page in (ROOT / "docs").glob("*.md"):
        for file, name in NAMED.findall(page.read_text()):
            if not (ROOT / file).exists() or name not in declared(file):
                wrong.append(f"{page.name}: {file}::{name}")
    assert wrong == []
