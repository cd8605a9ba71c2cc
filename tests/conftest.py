"""What all tests share: the support modules beside them, importable by name."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

SUPPORT = Path(__file__).parent / "support"
if str(SUPPORT) not in sys.path:
    sys.path.insert(0, str(SUPPORT))

from fault_plugin import pytest_addoption, pytest_configure  # noqa: E402 - only now it is found

__all__ = ["pytest_addoption", "pytest_configure"]

# A property is tried with the same examples in each run, and none fails because the machine was busy for a moment; `make test-long` draws new ones.
settings.register_profile("drawn", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("suite", settings.get_profile("drawn"), derandomize=True)
settings.load_profile("suite")

# Folders whose files take long, the longest first: a worker that got one of them last would keep all others waiting. The rest follows as it is found.
LONG_FIRST = ("faults", "processes", "service", "contract", "adapters/opcua", "market", "adapters/mqtt", "web")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of long files come first; the order inside a file stays."""
    places = {Path(__file__).parent / name: rank for rank, name in enumerate(LONG_FIRST)}

    def rank(item: pytest.Item) -> int:
        return min((places[folder] for folder in item.path.parents if folder in places), default=len(places))

    items.sort(key=rank)


@pytest.fixture(scope="session")
def cluster() -> Iterator[object]:
    """A PostgreSQL server of this test session (`postgres.Cluster`)."""
    import postgres

    made = postgres.started()
    yield made
    made.remove()
