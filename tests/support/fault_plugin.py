"""What the fault tests add to pytest: options, and one table of all their rows, whichever worker they ran in."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pytest
from fault_table import Row, merged, render

ROW = "fault_row"
_ROWS = pytest.StashKey[list[Row]]()


class Table:
    """Where a test puts its rows; a red row fails the test that adds it. Rows of one fault are counted together."""

    def __init__(self, item: pytest.Item) -> None:
        self._item = item

    def add(self, *rows: Row) -> None:
        """Put rows in, all of them, and then fail if one is red."""
        self._item.user_properties += [(ROW, asdict(row)) for row in rows]
        red = [row for row in rows if row.red]
        assert not red, f"\n{render(red)}"


def pytest_addoption(parser):
    group = parser.getgroup("faults", "the fault tests (make faults)")
    group.addoption(
        "--fault-rounds", type=int, default=20, help="Rounds of each fault that is injected again and again (20)."
    )
    group.addoption("--fault-points", default="", help="Only these kill points, comma-separated (all).")
    group.addoption(
        "--fault-seed",
        type=int,
        default=0,
        help="What the random part of the faults is drawn from; the soak draws one by itself.",
    )
    group.addoption("--soak-minutes", type=float, default=1.0, help="How long the soak lasts, without its ends (1).")
    group.addoption("--fuzz-messages", type=int, default=100_000, help="Messages of `make fuzz` in all (100,000).")
    group.addoption("--fuzz-seed", type=int, default=0, help="What they are drawn from; 0 draws a seed and prints it.")
    group.addoption("--fault-report", type=Path, default=None, help="Write the rows of the table to this JSON file.")


class Rows:
    """Collects the rows from the reports, which come back from the workers of pytest-xdist too."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report):
        if report.when == "teardown":  # the last report of a test holds what all its phases added
            found = [Row(**value) for name, value in report.user_properties if name == ROW]
            self._config.stash.setdefault(_ROWS, []).extend(found)

    @pytest.hookimpl
    def pytest_terminal_summary(self, terminalreporter):
        rows = merged(self._config.stash.get(_ROWS, []))
        if rows:
            terminalreporter.section("faults")
            terminalreporter.write_line(render(rows))
        self._report(rows)

    def _report(self, rows: Sequence[Row]) -> None:
        path = self._config.getoption("--fault-report")
        if path is not None:
            path.write_text(json.dumps([{**asdict(row), "red": row.red} for row in rows], indent=1))


def pytest_configure(config):
    if not hasattr(config, "workerinput"):  # the workers' rows come to the controller with their reports
        config.pluginmanager.register(Rows(config), "fault-rows")
