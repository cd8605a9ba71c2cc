"""Every alarm that the code can raise has its line for the person on duty."""

import re
from pathlib import Path

from bridge.journal.alarms import RUNBOOK, AlarmBit, bits_of

BRIDGE = Path(__file__).parents[2] / "bridge"
RAISED = re.compile(r'(?:alarm|_alarm|raise_alarm)\(\s*(?:\w+, )?"([A-Z_]{4,})"')


def test_each_alarm_has_a_runbook_line():
    """A code in a call, or in the tables of the journal, is explained; and no line explains what nobody raises."""
    code = "".join(file.read_text() for file in BRIDGE.rglob("*.py") if file.name != "alarms.py")
    raised = set(RAISED.findall(code))
    assert {"IN_DOUBT", "CIRCUIT_OPEN", "MISDIRECTED"} <= raised
    assert raised - set(RUNBOOK) == set()
    assert [name for name in RUNBOOK if f'"{name}"' not in code] == []


def test_the_document_has_every_alarm_and_bit():
    """docs/alarms.md: code, bit and advice as in the code, and the table of bits; nothing missing, nothing too much."""
    lines = (BRIDGE.parent / "docs/alarms.md").read_text().splitlines()
    told = [f"| `{code}` | {bits_of([code]).word or '-'} | {text} |" for code, text in RUNBOOK.items()]
    assert [line for line in lines if line.startswith("| `")] == told
    bits = [f"| {int(bit).bit_length() - 1} | {int(bit)} | {bit.word} |" for bit in AlarmBit]
    assert [line for line in lines if line[:3].strip("| ").isdigit() or line[:4].strip("| ").isdigit()] == bits


def test_each_alarm_sets_at_most_one_bit():
    """An EMS's program looks at one bit for each kind."""
    assert all(int(bits_of([code])).bit_count() <= 1 for code in RUNBOOK)


def test_the_lines_are_read_on_a_terminal_too():
    """Where they lead on, they name the document: a link would stand there as it is written."""
    assert [code for code, text in RUNBOOK.items() if "](" in text] == []
