"""Adapters are found by entry point, and imported only when named."""

import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest

from bridge import registry
from bridge.api import ENTRY_POINT_GROUP
from bridge.config import AdapterMissing
from tests.support.paper import PAPER


@pytest.fixture
def installed(monkeypatch):
    """Pretend that these entry points are installed."""

    def install(*points: tuple[str, str]) -> None:
        found = [EntryPoint(name, value, ENTRY_POINT_GROUP) for name, value in points]

        def entry_points(*, group: str, name: str | None = None) -> list[EntryPoint]:
            assert group == ENTRY_POINT_GROUP
            return [point for point in found if name in {None, point.name}]

        monkeypatch.setattr(registry, "entry_points", entry_points)

    return install


def test_an_adapter_is_found_by_its_protocol(installed):
    """The entry point's name is the protocol word."""
    installed(("paper", "tests.support.paper:PAPER"))
    assert registry.find("paper") is PAPER
    assert registry.known() == ("paper",)


def test_an_unknown_protocol_names_the_nearest(installed):
    """A misspelt protocol is answered with the one that was meant."""
    installed(("opcua", "x:y"), ("modbus", "x:y"))
    with pytest.raises(AdapterMissing, match="unknown protocol; did you mean `modbus`"):
        registry.find("modbuss")
    with pytest.raises(AdapterMissing, match="known are modbus, opcua"):
        registry.find("bacnet")


def test_a_missing_library_is_named(installed):
    """An adapter whose library is absent says which, and how to install it."""
    installed(("stone", "no_such_library.adapter:ADAPTER [stone]"))
    with pytest.raises(AdapterMissing, match=r"needs no_such_library.*smp-bridge\[stone\]"):
        registry.find("stone")
    installed(("stone", "no_such_library.adapter:ADAPTER"))
    with pytest.raises(AdapterMissing, match="install the package that holds no_such_library"):
        registry.find("stone")


@pytest.mark.parametrize(
    ("points", "text"),
    [
        ([("paper", "tests.support.paper:NOTHING")], "cannot be imported"),
        ([("paper", "tests.support.paper:find")], "is not an adapter"),
        ([("paper", "tests.support.paper:PAPER"), ("paper", "other:PAPER")], "two packages offer paper"),
    ],
)
def test_what_is_no_adapter_is_refused(installed, points, text):
    """A wrong name, a wrong object and two owners of one word are all said plainly."""
    installed(*points)
    with pytest.raises(AdapterMissing, match=text):
        registry.find("paper")


def test_listing_imports_no_adapter():
    """Knowing the words costs no protocol library."""
    code = "import sys; from bridge import registry; registry.known(); assert not any(m.startswith('adapters.') for m in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
