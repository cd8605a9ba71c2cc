"""Faults are counted: every test adds its rows to one table, which is printed at the end of the run."""

import pytest
from fault_table import Row, render

ROWS = pytest.StashKey[list[Row]]()


class Table:
    """Where a test puts its rows; a red row fails the test that adds it."""

    def __init__(self, rows: list[Row]) -> None:
        self._rows = rows

    def add(self, row: Row) -> None:
        self._rows.append(row)
        assert not row.red, f"\n{render([row])}"


@pytest.fixture(scope="session")
def table(request) -> Table:
    return Table(request.config.stash.setdefault(ROWS, []))


def pytest_terminal_summary(terminalreporter, config):
    rows = config.stash.get(ROWS, [])
    if rows:
        terminalreporter.section("faults")
        terminalreporter.write_line(render(rows))
