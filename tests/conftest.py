"""What all tests share: the support modules beside them, importable by name."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SUPPORT = Path(__file__).parent / "support"
if str(SUPPORT) not in sys.path:
    sys.path.insert(0, str(SUPPORT))

from fault_plugin import pytest_addoption, pytest_configure  # noqa: E402 - only now it is found

__all__ = ["pytest_addoption", "pytest_configure"]


@pytest.fixture(scope="session")
def cluster() -> Iterator[object]:
    """A PostgreSQL server of this test session (`postgres.Cluster`)."""
    import postgres

    made = postgres.started()
    yield made
    made.remove()
