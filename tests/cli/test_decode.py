"""`smp-bridge decode` as a person meets it: the one value and nothing else, or a table."""

import json
import sys
from datetime import datetime
from pathlib import Path

import pytest

from bridge.cli import main

VECTORS = Path(__file__).parents[1] / "adapters" / "modbus" / "vectors"


@pytest.fixture
def decode(monkeypatch, capsys):
    """Run the command; returns its exit status, what it printed, and what it complained of."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["smp-bridge", "decode", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return ended.value.code or 0, captured.out, captured.err

    return run


def vectors():
    """(arguments, value) of the published vectors that need no more than a type, an order and a bit."""
    for file in sorted(VECTORS.glob("*.txt")):
        for number, line in enumerate(file.read_text("utf-8").splitlines(), 1):
            if line.startswith("#"):
                continue
            kind, how, wire, value, _ = (part.strip() for part in line.split(" | ", 4))
            words = {word.partition("=")[0]: word.partition("=")[2] for word in how.split()}
            if value == "null" or words.keys() & {"missing", "pad", "bits", "zone"}:
                continue
            order = next((word for word in words if word.isupper()), None)
            arguments = ["--type", kind, *(["--order", order] if order else [])]
            arguments += ["--bit", words["bit"]] if "bit" in words else []
            yield pytest.param([*arguments, wire], json.loads(value), id=f"{file.stem}:{number}")


@pytest.mark.parametrize(("arguments", "value"), list(vectors()))
def test_a_published_vector_is_printed_alone(decode, arguments, value):
    """One line with the value, on standard output, and nothing beside it."""
    status, printed, complaint = decode(*arguments)
    assert (status, complaint) == (0, "")
    (line,) = printed.splitlines() or [""]
    if isinstance(value, bool):
        assert line == str(int(value))
    elif isinstance(value, list):
        assert line == " ".join(map(str, value))
    elif isinstance(value, str) and arguments[1] != "string":
        assert datetime.fromisoformat(line) == datetime.fromisoformat(value)
    elif isinstance(value, str):
        assert line == value
    else:
        assert type(value)(line) == value


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--type", "float32", "--order", "CDAB", "0000", "4246"], "49.5"),
        (["--type", "float32", "--order", "cdab", "0x0000,0x4246"], "49.5"),
        (["--type", "int16", "--scale", "0.1", "01EF"], "49.5"),
        (["--type", "int16", "--scale", "0.1", "FFFD"], "-0.3"),
        (["--type", "uint32", "--scale", "1000", "0000:C15C"], "49500000"),
        (["--type", "uint16", "--scale", "0.1", "014A"], "33"),
        (["--type", "uint16", "--scale", "0.1", "0000"], "0"),
        (["--type", "float32", "--scale", "0.001", "47F12000"], "123.456"),
        (["--type", "bit", "--bit", "3", "0008"], "1"),
        (["--type", "bit", "--bit", "20", "--order", "CDAB", "0000 0010"], "1"),
        (["--type", "bit", "--bit", "4", "0008"], "0"),
        (["--type", "epoch32", "6B038200"], "2026-11-23T00:00:00Z"),
        (["--type", "string", "4142 4300"], "ABC"),
    ],
)
def test_the_value_as_it_is_printed(decode, arguments, line):
    """Scaled numbers are exact and have no exponent, a bit is 0 or 1, a moment is in UTC; bytes may be written with blanks, commas, colons and 0x."""
    assert decode(*arguments) == (0, line + "\n", "")


def test_without_a_type_there_is_a_table(decode):
    """What the bytes could mean, the most plausible first; an order alone leaves what has that order."""
    status, printed, _ = decode("00004246")
    lines = printed.splitlines()
    assert status == 0
    assert lines[0].split() == ["TYPE", "ORDER", "VALUE"]
    assert lines[1].split() == ["float32", "CDAB", "49.5"]
    assert ["uint32", "ABCD", "16966"] in [line.split() for line in lines]
    _, printed, _ = decode("--order", "ABCD", "--scale", "10", "00004246")
    lines = printed.splitlines()
    assert {line.split()[1] for line in lines[1:]} == {"ABCD"}
    assert lines[1].split() == ["uint32", "ABCD", "169660"]


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["--type", "int24", "0000"], 2, "int64"),
        (["--type", "uint16", "000"], 2, "two for each byte"),
        (["--type", "uint16", "00zz"], 2, "'z'"),
        (["00" * 251], 2, "1 to 250"),
        (["--type", "uint16", "--scale", "x", "0001"], 2, "0.1 or 1000"),
        (["--bit", "1", "0001"], 2, "--type bit"),
        (["--protocol", "mqtt", "0001"], 2, "no codec"),
        (["--type", "uint32", "0001"], 1, "takes 4 bytes"),
        (["--type", "uint16", "--order", "ABCD", "0001"], 1, "AB, BA"),
        (["--type", "bcd16", "12A4"], 1, "12A4"),
        (["--type", "string", "--scale", "2", "4142"], 1, "belongs to numbers"),
        (["--order", "ABCD", "0001"], 1, "there are AB"),
        (["000102"], 1, "two bytes each"),
    ],
)
def test_a_wrong_question_gets_a_clear_answer(decode, arguments, status, says):
    """Nothing on standard output, the reason and what would be right on standard error."""
    found, printed, complaint = decode(*arguments)
    assert (found, printed) == (status, "")
    assert says in " ".join(complaint.replace("│", " ").split())
