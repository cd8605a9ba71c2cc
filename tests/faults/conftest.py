"""Faults are counted: every test adds its rows to one table, which is printed at the end of the run."""

import pytest
from fault_plugin import Table


@pytest.fixture
def table(request) -> Table:
    return Table(request.node)


@pytest.fixture
def rounds(request) -> int:
    """How often a fault is injected that is injected again and again."""
    return request.config.getoption("--fault-rounds")
