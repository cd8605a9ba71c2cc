"""Every alarm that the code can raise has its line for the person on duty."""

import re
from pathlib import Path

from bridge.journal.alarms import RUNBOOK

BRIDGE = Path(__file__).parents[2] / "bridge"
RAISED = re.compile(r'(?:alarm|_alarm|raise_alarm)\(\s*(?:\w+, )?"([A-Z_]{4,})"')


def test_each_alarm_has_a_runbook_line():
    """A code in a call, or in the tables of the journal, is explained; and no line explains what nobody raises."""
    code = "".join(file.read_text() for file in BRIDGE.rglob("*.py") if file.name != "alarms.py")
    raised = set(RAISED.findall(code))
    assert {"IN_DOUBT", "CIRCUIT_OPEN", "MISDIRECTED"} <= raised
    assert raised - set(RUNBOOK) == set()
    assert [name for name in RUNBOOK if f'"{name}"' not in code] == []
